"""What the core must reach: start-up, killed runs, compilations, and `az.summary` on every Python."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _study import FULL, study
from _timing import ROOT, Figure, Stopwatch, fresh, load, rows

_HEAVY = ("jax", "jaxlib", "equinox", "numpyro", "optax")
_SUMMARY = """
import json, warnings
import arviz as az, jax.random as jr
from posterax import sample
from posterax_models import eight_schools
from posterax_numpyro import NUTS
problem = eight_schools()
draws = sample(NUTS(num_warmup=300), problem.target, num_draws=300, key=jr.key(0), progress=False)
table = az.summary(draws.to_arviz(), round_to="none")
print(json.dumps({
    "arviz": az.__version__, "rows": len(table), "finite": bool(table.notna().to_numpy().all()),
    "mu": float(table["mean"]["mu"]), "exact": float(problem.mean["mu"]),
}))
"""


# Start-up


@rows("import-light", "cli-light", "cli-seconds")
def start_up():
    plugins = [folder.name for folder in (ROOT / "plugins").iterdir() if (folder / "__init__.py").exists()]
    heavy = (*_HEAVY, *plugins, "posterax_models")
    code = "import json, sys, posterax; print(json.dumps(list(sys.modules)))"
    found = _loaded(json.loads(_run([sys.executable, "-c", code]).stdout), heavy)
    yield "import-light", Figure(len(found), f"{', '.join(found) or 'none'} of {len(plugins)} plugins and JAX imported")
    command = str(Path(sys.executable).with_name("posterax"))
    timeline = _run([sys.executable, "-X", "importtime", command, "plugins"]).stderr
    found = _loaded([line.rpartition("|")[2].strip() for line in timeline.splitlines()], _HEAVY)
    yield "cli-light", Figure(len(found), f"{', '.join(found) or 'none'} imported by `posterax plugins`")
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        _run([command, "plugins"])
        seconds.append(time.perf_counter() - began)
    said = " ".join(f"{second:.3f}" for second in seconds)
    yield "cli-seconds", Figure(statistics.median(seconds), f"{statistics.median(seconds):.3f} s ({said})")


def _loaded(modules: list[str], of: tuple[str, ...]) -> list[str]:
    return sorted({name.partition(".")[0] for name in modules} & set(of))


def _run(command: list[str]) -> subprocess.CompletedProcess:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return done


# Killed runs


@rows(*(f"{what}-{kind}" for kind in ("sample", "train", "pipeline") for what in ("resume", "checkpoint")))
def killed():
    kinds = ("sample", "train", "pipeline")
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(2) as pool:
        cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}

        def one(kind, seed):
            return fresh("core", "kill", kind, seed, **cached)

        def all_of(kind):
            return study(f"core-kill-{kind}", range(2, 12) if FULL else range(2, 3), lambda seed: one(kind, seed))

        for kind, runs in zip(kinds, pool.map(all_of, kinds), strict=True):
            kills = sum(run["kills"] for run in runs)
            same = sum(run["identical"] for run in runs)
            present = min(run["present"] for run in runs)
            wrong = "; ".join(words for run in runs for words in run["wrong"])
            text = f"{same} of {kills} killed runs resumed to the same bytes" + (f": {wrong}" if wrong else "")
            yield f"resume-{kind}", Figure(20 * same / kills, text)
            each = f" (the fewest in any 20 of {kills})" if len(runs) > 1 else ""
            yield f"checkpoint-{kind}", Figure(present, f"{present} of 20 left a checkpoint behind{each}")


def kill(kind: str, seed: int) -> dict:
    """20 runs killed at instants uniform over the run and resumed, by the functions of the test suite."""
    warnings.simplefilter("ignore")
    tests = load(ROOT / "tests" / "core" / "test_resume.py")
    result = {"kills": 0, "identical": 0, "present": 0, "wrong": []}
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        whole = {kind: tests.everything(tests.kill_job.make(kind)(None), place, kind)}
        for number, instant in enumerate(tests.instants(kind, 20, seed=seed)):
            folder = place / str(number)
            folder.mkdir()
            result["kills"] += 1
            try:
                result["present"] += tests.kill_and_resume(kind, [instant], folder, whole)
                result["identical"] += 1
            except AssertionError as error:
                result["present"] += any(folder.rglob("run/**/*.posterax"))
                result["wrong"].append(str(error).splitlines()[0])
    return result


# Compilations


@rows("compile-sample", "compile-train", "compile-svi")
def second_calls():
    for what in ("sample", "train", "svi"):
        compiled, traced, first = fresh("core", "second_call", what)
        text = f"{compiled} programs compiled and {traced} traced in the second call; {first} compiled in the first"
        yield f"compile-{what}", Figure(compiled + traced, text)


def second_call(what: str) -> tuple[int, int, int]:
    """Compilations and traces in a second call with other data, and compilations in the first."""
    import jax.random as jr
    import numpy as np

    warnings.simplefilter("ignore")

    def data(seed):
        return np.random.default_rng(seed).normal(size=(40, 2))

    call = {"sample": _sample, "train": _train, "svi": _svi}[what]
    with Stopwatch() as first:
        call(data(0), jr.key(0))
    key = jr.key(1)
    with Stopwatch() as second:
        traced = call(data(1), key)
    return second.compiled, traced, first.compiled


def _target(data):
    import numpyro
    import numpyro.distributions as dist
    from posterax import Target

    global _model
    if _model is None:

        def model(y):
            loc = numpyro.sample("loc", dist.Normal(0, 10).expand([2]).to_event(1))
            scale = numpyro.sample("scale", dist.HalfNormal(5))
            numpyro.sample("y", dist.Normal(loc, scale), obs=y)

        _model = model
    return Target.from_numpyro(_model, data)  # looks at the model's sites once: a trace that belongs to no run


_model = None


def _sample(data, key) -> int:
    from posterax import sample
    from posterax_numpyro import NUTS

    target = _target(data)
    with Stopwatch() as watch:
        sample(NUTS(num_warmup=100), target, num_draws=200, key=key, progress=False)
    return watch.traced


def _svi(data, key) -> int:
    from posterax_numpyro import SVI

    target = _target(data)
    with Stopwatch() as watch:
        SVI(num_steps=200).fit(target, key=key, progress=False)
    return watch.traced


def _train(data, key) -> int:
    import jax.numpy as jnp
    from posterax import Batches, train

    kill_job = load(ROOT / "tests" / "core" / "kill_job.py")
    network = kill_job.Network(jnp.ones((5, 1)), jnp.ones((1, 5)))
    with Stopwatch() as watch:
        train(network, kill_job.Squares(), Batches(data, 8), num_steps=200, key=key, progress=False)
    return watch.traced


# az.summary on every Python


@rows("summary-here", "summary-3.11", "summary-3.12", "summary-3.13")
def summaries():
    yield "summary-here", _summary(sys.executable)
    for wanted in ("3.11", "3.12", "3.13"):
        interpreter = _interpreter(wanted)
        if interpreter is None:
            yield f"summary-{wanted}", Figure(None, f"no python{wanted} on this machine (PATH, ~/.pyenv/versions)")
            continue
        with tempfile.TemporaryDirectory() as place:
            began = time.monotonic()
            _run([interpreter, "-m", "venv", place])
            python = str(Path(place) / "bin" / "python")
            _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)])
            installed = time.monotonic() - began
            figure = _summary(python)
            yield f"summary-{wanted}", figure._replace(text=f"{figure.text}; installed in {installed:.0f} s")


def _interpreter(wanted: str) -> str | None:
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep)]
    folders += [Path(sys.executable).resolve().parent, *sorted(Path.home().glob(".pyenv/versions/*/bin"))]
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.prefix == sys.base_prefix)"
    for folder in folders:
        candidate = folder / f"python{wanted}"
        if candidate.exists():
            said = subprocess.run([candidate, "-c", code], capture_output=True, text=True).stdout
            if said.split() == [wanted, "True"]:
                return str(candidate)
    return None


def _summary(python: str) -> Figure:
    with tempfile.TemporaryDirectory() as elsewhere:  # so that nothing but what is installed can be found
        done = subprocess.run([python, "-c", _SUMMARY], capture_output=True, text=True, cwd=elsewhere)
    if done.returncode != 0:
        return Figure(1, f"failed: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout.splitlines()[-1])
    near = abs(said["mu"] - said["exact"]) < 1.0
    text = f"arviz {said['arviz']}: {said['rows']} rows, mean of mu {said['mu']:.2f} (exact {said['exact']:.2f})"
    if not said["finite"] or not near or said["rows"] < 18:
        return Figure(1, f"wrong: {text}; all finite: {said['finite']}")
    return Figure(0, f"works: {text}")


MEASURES = (start_up, second_calls, killed, summaries)
