"""What the conformance kit must reach: mutants caught, nobody blamed, and quick enough to be run every day."""

import gc
import sys
import time
from typing import Any

from _study import FULL, study
from _timing import ROOT, Figure, fresh, load, rows, started

_SMOKE = "numpyro:nuts"
_TWO = 2  # processes at a time: as many as CI has cores
_TRIALS = 100  # of each stated fault


def _mutate() -> Any:
    load(ROOT / "tests" / "contract" / "mutants" / "mutate.py")
    return sys.modules["mutate"]


def _forget() -> None:
    import jax

    jax.clear_caches()  # hundreds of compiled programs would use up the process's memory mappings
    gc.collect()


def _shared_out(function: str, items: list, **options: Any) -> list:
    """What `function` makes of each item, in two processes, joined."""
    waiting = [started("testing", function, items[i::_TWO], **options) for i in range(_TWO)]
    return [row for wait in waiting for row in wait()]


# How long a sampler's smoke run takes, from nothing


@rows("smoke-seconds")
def smoke():
    found = fresh("testing", "smoke_run", _SMOKE)
    text = f"{found['seconds']:.1f} s for {_SMOKE}, import and compilation included; {found['passed']}"
    yield "smoke-seconds", Figure(found["seconds"], text)


def smoke_run(name: str) -> dict:
    """Seconds of a smoke run in this process."""
    began = time.perf_counter()
    import jax.random as jr
    from posterax.testing import check_sampler

    report = check_sampler(name, key=jr.key(0), throw=False)
    return {"seconds": time.perf_counter() - began, "passed": "passed" if report.passed else "FAILED"}


# Mutants


@rows("mutants-missed", "correct-blamed")
def mutants():
    mutate = _mutate()
    # The slowest first, so that both processes end together.
    jobs = sorted([*range(len(mutate.MUTANTS)), *mutate.TAGS], key=lambda job: _kind(mutate, job), reverse=True)
    if FULL:
        pairs = [jobs[i : i + _TWO] for i in range(0, len(jobs), _TWO)]
        parts = study("testing-mutants", range(len(pairs)), lambda i: _shared_out("judge", pairs[i]))
        found = [row for part in parts for row in part]
    else:
        found = _shared_out("judge", jobs)
    caught = {row["name"]: row for row in found if row["mutant"]}
    correct = {row["name"]: row for row in found if not row["mutant"]}
    missed = [name for name, row in caught.items() if not row["failed"]]
    lines = [f"{len(caught) - len(missed)} of {len(caught)} caught at standard"]
    width = max(map(len, caught))
    for mutant in mutate.MUTANTS:
        row = caught[mutant.name]
        more = "" if FULL else f" (found in {row['seconds']:.0f} s)"
        lines.append(f"{mutant.name:{width}}  {mutant.component:15}{', '.join(row['failed']) or 'MISSED'}{more}")
    yield "mutants-missed", Figure(len(missed), "\n".join(lines))
    blamed = [f"{name}: {', '.join(row['failed'])}" for name, row in correct.items() if row["failed"]]
    yield "correct-blamed", Figure(len(blamed), "; ".join(blamed) or f"all {len(correct)} pass every check")


def _kind(mutate: Any, job: Any) -> str:
    return mutate.kind(job if isinstance(job, str) else mutate.MUTANTS[job].component)


def judge(jobs: list) -> list[dict]:
    """The checks that mutants (by number) and correct components (by name) fail at standard.

    A mutant's first failure ends its trial, unless FULL=1 asks for the whole table.
    """
    import jax.random as jr
    from posterax.testing._run import Runner

    mutate, found = _mutate(), []
    for job in jobs:
        mutant = None if isinstance(job, str) else mutate.MUTANTS[job]
        component = job if mutant is None else mutant.component
        began, failed = time.monotonic(), []
        runner = Runner(
            mutate.made(component, mutant), mutate.kind(component), key=jr.key(1), level="standard",
            tags=mutate.TAGS[component],
        )  # fmt: skip
        for check in runner.checks:
            if not runner.run(check.name).passed:
                failed.append(check.name)
                if mutant is not None and not FULL:
                    break
        name = component if mutant is None else mutant.name
        found.append(
            {"name": name, "mutant": mutant is not None, "failed": failed, "seconds": time.monotonic() - began}
        )
        _forget()
    return found


# False alarms


@rows("false-alarms", "false-alarms-others")
def false_alarms():
    mutate = _mutate()
    three = ["RandomWalk", "LinearGaussian", "Likelihood"]
    found = _shared_out("alarms", [[name, 200] for name in three])
    text = "; ".join(f"{row['name']}: {row['alarms']} of {row['runs']} runs" for row in found)
    yield "false-alarms", Figure(sum(row["alarms"] for row in found), text)
    import posterax

    registered = [
        c.qualified_name for c in posterax.components() if c.spec.kind in ("sampler", "estimator", "objective")
    ]
    others = [[name, 5] for name in (*registered, *(name for name in mutate.TAGS if name not in three))]
    found = _shared_out("alarms", others)
    text = "; ".join(f"{row['name']}: {row['alarms']}" for row in found)
    yield "false-alarms-others", Figure(sum(row["alarms"] for row in found), f"alarms in 5 runs of each: {text}")


def alarms(jobs: list) -> list[dict]:
    """How many smoke runs blame a correct component, of so many, all in this process."""
    import jax.random as jr
    import posterax
    from posterax.testing import check_estimator, check_objective, check_sampler

    mutate, found = _mutate(), []
    checks = {"sampler": check_sampler, "estimator": check_estimator, "objective": check_objective}
    for name, runs in jobs:
        if ":" in name:
            thing, tags = name, None
            kind = next(c.spec.kind for c in posterax.components() if c.qualified_name == name)
        else:
            thing, tags, kind = mutate.made(name), mutate.TAGS[name], mutate.kind(name)
        reports = [checks[kind](thing, key=jr.key(5000 + i), tags=tags, throw=False) for i in range(runs)]
        found.append({"name": name, "runs": runs, "alarms": sum(not report.passed for report in reports)})
        _forget()
    return found


# Components that are broken


@rows("messages")
def messages():
    done = fresh("testing", "broken")
    yield (
        "messages",
        Figure(len(done["faults"]), "; ".join(done["faults"]) or f"{done['tried']} broken components told"),
    )


def broken() -> dict:
    """What the kit says of components that lack a method, have wrong shapes, or give NaN."""
    import jax.random as jr
    from posterax.testing import ConformanceError, check_estimator, check_objective, check_sampler

    _mutate()
    kit = load(ROOT / "tests" / "contract" / "test_kit.py")
    trials = [(check_sampler, cls, {"exact"}) for cls in (kit.NoStep, kit.WrongShape, kit.GoesNaN, kit.Raises)]
    trials += [
        (check_estimator, cls, {"exact", "amortised"}) for cls in (kit.NoInfer, kit.WrongParameter, kit.NaNScale)
    ]
    trials += [(check_objective, cls, {"density-model"}) for cls in (kit.NoLoss, kit.ManyLosses, kit.NaNLoss)]
    faults = []
    for check, cls, tags in trials:
        try:
            check(cls(), tags=tags, key=jr.key(0))
            faults.append(f"{cls.__name__} passed")
        except ConformanceError as error:
            outcome, text = error.report.failures[0], str(error)
            parts = (cls.__name__, outcome.check, outcome.seen, outcome.expected)
            if not all(part and part in text for part in parts) or "Traceback" in text:
                faults.append(f"{cls.__name__}: {text}")
        except Exception as error:
            faults.append(f"{cls.__name__}: {type(error).__name__}: {error}")
    return {"tried": len(trials), "faults": faults}


# The error budget, and what it leaves to be seen


# The cheap statistical checks, and how many runs of each with FULL=1.
_CHEAP = (
    ("Likelihood", ("score", "truth-wins"), 10_000),
    ("Subsampled", ("score", "truth-wins", "unbiased"), 10_000),
    ("RandomWalk", ("known-answer",), 10_000),
    ("LinearGaussian", ("known-answer", "density"), 10_000),
    ("RandomWalk", ("exact-start-regression",), 2_500),
    ("LinearGaussian", ("sbc", "coverage"), 2_500),
)


@rows("screen")
def screen():
    """How often the screens of cheap checks ring for correct components."""
    from scipy import stats

    lines, odd = [], []
    for name, checks, number in _CHEAP:
        number = number if FULL else 400
        each = min(1_250, number // _TWO)
        halves = lambda seed: [[name, checks, seed + i, each] for i in range(_TWO)]  # noqa: B023, E731
        study_name = f"testing-null-{name}-{checks[0]}"
        parts = study(study_name, range(0, number // each, _TWO), lambda seed: _shared_out("null", halves(seed)))  # noqa: B023
        rows_of = [row for part in parts for row in part]
        for check in checks:
            runs = sum(row[check]["runs"] for row in rows_of)
            rung, often = (sum(p <= at for row in rows_of for p in row[check]["small"]) for at in (1e-3, 0.05))
            odd.append(float(stats.binom.sf(rung - 1, runs, 1e-3)))
            lines.append(f"{check} of {name}: {rung} of {runs} at 1e-3, {often} at 0.05")
    first = f"the screens of correct components; the oddest count has p = {min(odd):.2g}"
    yield "screen", Figure(min(odd), "\n".join([first, *lines]))


def null(jobs: list) -> list[dict]:
    """Small p-values of smoke-level statistical checks of correct components."""
    import jax.random as jr
    from posterax.testing._run import Runner

    mutate, found = _mutate(), []
    for name, checks, seed, runs in jobs:
        exact = {tag for tag in mutate.TAGS[name] if not tag.startswith("bias")} - {"approximate"}
        tags = exact | ({"exact"} if name == "LinearGaussian" else set())  # no slack, so that p-values are not idle
        thing, p_values = mutate.made(name), {check: [] for check in checks}
        for i in range(runs):
            key = jr.key(100_000 + runs * seed + i)
            runner = Runner(thing, mutate.kind(name), key=key, level="smoke", tags=tags)
            for check in checks:
                p_values[check].append(runner.screen(check))
        # Only the small ones are of interest, and there are thousands.
        found.append(
            {
                check: {"runs": runs, "small": sorted(float(f"{p:.3g}") for p in ps if p <= 0.1)}
                for check, ps in p_values.items()
            }
        )
    return found


@rows("faults-caught")
def faults():
    """How often each statistical check catches the fault that the documentation says it catches."""
    _mutate()
    known = load(ROOT / "tests" / "contract" / "mutants" / "faults.py").FAULTS
    if FULL:
        parts = study("testing-faults", range(len(known)), lambda i: fresh("testing", "catch", i, _TRIALS))
    else:
        chosen = [i for i, fault in enumerate(known) if fault.check != "sbc-by-fits"]  # minutes by itself
        parts = _shared_out("catch_all", chosen)
    lines, worst = [], 1.0
    for part in parts:
        curve = ", ".join(f"{size:g}: {share:.0%}" for size, share in part["curve"])
        stated = next((size for size, share in part["curve"] if share >= 0.99), None)
        lines.append(f"{part['kind']} {part['check']}: {part['unit']}; {curve}; 99 % from {stated} on")
        worst = min(worst, part["curve"][-1][1])
    yield "faults-caught", Figure(worst, "\n".join(lines))


def catch_all(indices: list) -> list[dict]:
    """The largest fault of each check, so many times."""
    return [catch(i, 30, only_last=True) for i in indices]


def catch(index: int, trials: int, only_last: bool = False) -> dict:
    """The share of screens at `standard` that ring, for each size of one fault."""
    import jax.numpy as jnp
    import jax.random as jr
    from posterax.testing import _budget
    from posterax.testing._run import Runner

    _mutate()
    fault = load(ROOT / "tests" / "contract" / "mutants" / "faults.py").FAULTS[index]
    curve = []
    for size in fault.sizes[-1:] if only_last else fault.sizes:
        thing, rung = fault.make(jnp.asarray(size)), 0
        for i in range(trials):
            runner = Runner(thing, fault.kind, key=jr.key(200_000 + i), level="standard", tags=fault.tags)
            p_value = runner.screen(fault.check)
            rung += p_value is not None and p_value <= _budget.SCREEN
        curve.append([size, rung / trials])
        if curve[-1][1] == 1.0:
            break
    _forget()
    return {"check": fault.check, "kind": fault.kind, "unit": fault.unit, "curve": curve}


MEASURES = (smoke, messages, mutants, false_alarms, screen, faults)
