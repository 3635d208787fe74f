"""What posterax_numpyro must reach: NumPyro's own speed and compile time, its results, and the reference posteriors."""

import statistics
import warnings
from pathlib import Path

from _study import seeds, study
from _timing import ROOT, Figure, Stopwatch, data_folder, fresh, load, matrix_product, rows, spread

_WARMUP = 500
_DRAWS = {"eight-schools": 20_000, "logistic": 8_000}  # execution takes a second or more on either side
_CHAINS = 4
_PAIRS = 15
_FRESH_PAIRS = 5


# The two models, as a user of NumPyro writes them


def _problem(model: str):
    import numpy as np
    import numpyro
    import numpyro.distributions as dist
    from posterax_models import eight_schools

    if model == "eight-schools":
        problem = eight_schools()

        def eight(y, sigma):
            mu = numpyro.sample("mu", dist.Normal(0, 5))
            tau = numpyro.sample("tau", dist.HalfCauchy(5))
            with numpyro.plate("school", y.shape[0]):
                eta = numpyro.sample("eta", dist.Normal(0, 1))
                theta = numpyro.deterministic("theta", mu + tau * eta)
                numpyro.sample("y", dist.Normal(theta, sigma), obs=y)

        return eight, (problem.observed, problem.sigma)

    def logistic(x, y):
        intercept = numpyro.sample("intercept", dist.Normal(0, 2.5))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=intercept + x @ beta), obs=y)

    random = np.random.default_rng(0)
    x = random.normal(size=(500, 10))
    y = random.uniform(size=500) < 1 / (1 + np.exp(-(0.5 + x @ random.normal(size=10))))
    return logistic, (x, y.astype(np.int32))


def _ours(model, data, num_draws: int, seed: int):
    """One call: values by site and gradient evaluations, both (chain, draw, ...), and the stopwatch."""
    import jax.random as jr
    from posterax import Target, sample
    from posterax_numpyro import NUTS

    key = jr.key(seed)
    with Stopwatch() as watch:
        target = Target.from_numpyro(model, *data)
        draws = sample(
            NUTS(num_warmup=_WARMUP), target, num_draws=num_draws, num_chains=_CHAINS, key=key, progress=False
        )
    return draws.values, draws.stats["n_steps"], watch


def _theirs(model, data, num_draws: int, seed: int):
    """The same of NumPyro."""
    import jax
    import jax.random as jr
    import numpy as np
    from numpyro.infer import MCMC, NUTS

    key = jr.key(seed)
    with Stopwatch() as watch:
        mcmc = MCMC(
            NUTS(model), num_warmup=_WARMUP, num_samples=num_draws, num_chains=_CHAINS, chain_method="vectorized",
            progress_bar=False,
        )  # fmt: skip
        mcmc.run(key, *data, extra_fields=("num_steps",))
        samples = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    steps = mcmc.get_extra_fields(group_by_chain=True)["num_steps"]
    return {name: np.asarray(value) for name, value in samples.items()}, np.asarray(steps), watch


_SIDES = {"ours": _ours, "theirs": _theirs}


# Execution, and whether the results are the same


@rows(*(f"{what}-{model}" for model in _DRAWS for what in ("gradient", "result")))
def execution():
    for model in _DRAWS:
        runs = study(f"numpyro-gradient-{model}", seeds(1, 5), lambda seed: fresh("numpyro", "race", model, seed))  # noqa: B023
        pairs = [pair for run in runs for pair in run["pairs"]]
        ratios = [_per(pair, "ours", "gradients") / _per(pair, "theirs", "gradients") for pair in pairs]
        lockstep = [_per(pair, "ours", "lockstep") / _per(pair, "theirs", "lockstep") for pair in pairs]
        seconds = {side: statistics.median(pair[side]["execution"] for pair in pairs) for side in _SIDES}
        wall = {side: statistics.median(pair[side]["wall"] for pair in pairs) for side in _SIDES}
        fastest = {side: 1e6 * min(_per(pair, side, "lockstep") for pair in pairs) for side in _SIDES}
        compiled = max(pair["ours"]["compiled"] for pair in pairs)
        text = (
            f"{spread(ratios)} over {len(pairs)} pairs of {_CHAINS} chains, {_WARMUP} + {_DRAWS[model]} steps\n"
            f"per gradient of the slowest chain in each step, which vectorised chains wait for: {spread(lockstep)},\n"
            f"in the fastest runs {fastest['ours']:.2f} us against {fastest['theirs']:.2f} us\n"
            f"execution {seconds['ours']:.2f} s against {seconds['theirs']:.2f} s; whole call {wall['ours']:.2f} s "
            f"against {wall['theirs']:.2f} s (NumPyro compiles in each call; ours compiled {compiled} programs)\n"
            f"matrix product meanwhile {spread([1e3 * pair['product'] for pair in pairs], 1)} ms"
        )
        yield f"gradient-{model}", Figure(statistics.median(ratios), text)
        worst = max((entry for run in runs for entry in run["z"]), key=lambda entry: abs(entry[1]))
        count = sum(len(run["z"]) for run in runs)
        text = f"{abs(worst[1]):.2f} for {worst[0]}, the largest of {count} ({_largest(count)} of as many normal ones)"
        yield f"result-{model}", Figure(abs(worst[1]), text)


def _per(pair: dict, side: str, unit: str) -> float:
    return pair[side]["execution"] / pair[side][unit]


def _largest(count: int) -> str:
    """The median of the largest of `count` absolute standard normal numbers."""
    return f"{statistics.NormalDist().inv_cdf(0.5 + 0.5 ** (1 + 1 / count)):.2f}"


def race(name: str, seed: int) -> dict:
    """Interleaved pairs of runs, and the difference of the last pair's means in combined standard errors."""
    import numpy as np
    from posterax import Draws
    from posterax._arviz import mcse

    warnings.simplefilter("ignore")
    model, data = _problem(name)
    pairs, values = [], {}
    for number in range(_PAIRS + 1):  # the first pair only compiles
        pair: dict = {"product": statistics.median(matrix_product() for _ in range(3))}
        for side in sorted(_SIDES, reverse=number % 2 == 1):
            values[side], steps, watch = _SIDES[side](model, data, _DRAWS[name], 1000 * seed + number)
            pair[side] = {
                "execution": watch.execution,
                "wall": watch.wall,
                "compiled": watch.compiled,
                # After warm-up only, on both sides: NumPyro keeps no count of its warm-up, and both are as long.
                "gradients": int(steps.sum()),
                "lockstep": int(steps.max(axis=0).sum()),
            }
        if number:
            pairs.append(pair)
    draws = {side: Draws(values[side], {}) for side in _SIDES}
    means = {side: draws[side].mean() for side in _SIDES}
    errors = {side: mcse(draws[side])["mean"] for side in _SIDES}
    z = []
    for site, ours in means["ours"].items():
        score = (ours - means["theirs"][site]) / np.hypot(errors["ours"][site], errors["theirs"][site])
        z += [[site + str(list(index) or ""), float(score[index])] for index in np.ndindex(score.shape)]
    return {"pairs": pairs, "z": z}


# Compile time


@rows(*(f"compile-{model}" for model in _DRAWS))
def compilation():
    for model in _DRAWS:
        calls: dict[str, list] = {side: [] for side in _SIDES}
        for number in range(seeds(_FRESH_PAIRS, 15).stop):
            for side in sorted(_SIDES, reverse=number % 2 == 1):
                calls[side].append(fresh("numpyro", "first_call", side, model))
        ratios = [a["compile"] / b["compile"] for a, b in zip(calls["ours"], calls["theirs"], strict=True)]
        middle = {
            side: {what: statistics.median(call[what] for call in several) for what in several[0]}
            for side, several in calls.items()
        }
        text = f"{spread(ratios)} over {len(ratios)} pairs of fresh processes"
        for side, what in middle.items():
            text += (
                f"\n{side}: {what['compile']:.2f} s for {what['compiled']:.0f} programs; whole first call "
                f"{what['wall']:.2f} s"
            )
        yield f"compile-{model}", Figure(statistics.median(ratios), text)


def first_call(side: str, name: str) -> dict:
    """Seconds of a first call in this process, and of tracing, lowering and compiling in it."""
    import jax.random as jr

    warnings.simplefilter("ignore")
    model, data = _problem(name)
    jr.key(0)  # the backend starts
    _, _, watch = _SIDES[side](model, data, 500, 0)
    return {"compile": watch.compile, "wall": watch.wall, "compiled": watch.compiled, "traced": watch.traced}


# Reference posteriors

_POSTERIORS = ("eight_schools", "kidiq", "arK", "sblri", "earnings")


@rows(*(f"{what}-{name}" for name in _POSTERIORS for what in ("ess", "mean", "sd")))
def reference_posteriors():
    folder = data_folder("posteriordb")
    for name in _POSTERIORS:
        if folder is None and name != "eight_schools":
            for what in ("ess", "mean", "sd"):
                yield f"{what}-{name}", Figure(None, "no posteriordb/ in POSTERAX_DATA, shared/data or ../shared/data")
            continue

        def one(seed):
            return fresh("numpyro", "posterior", name, folder and str(folder), seed)  # noqa: B023

        runs = study(f"numpyro-posteriordb-{name}", seeds(1, 20), one)
        least = min(((ess, parameter) for run in runs for parameter, ess in run["ess"].items()))
        shape = "{num_chains} x {num_draws} draws, {bits} bits, {diverging} divergences, {seconds:.0f} s".format(
            **runs[0]
        )
        again = f" (the worst of {len(runs)} seeds)" if len(runs) > 1 else ""
        yield f"ess-{name}", Figure(least[0], f"{least[0]:.0f} for {least[1]}{again}; {shape}")
        for what in ("mean", "sd"):
            z, parameter, ours, theirs = max(
                (abs(z), parameter, ours, theirs)
                for run in runs
                for parameter, figure, ours, theirs, z in run["rows"]
                if figure == what
            )
            count = sum(row[1] == what for run in runs for row in run["rows"])
            among = f"the largest of {count} ({_largest(count)} of as many normal ones)"
            text = f"{z:.2f} for {parameter} ({ours:.5g}, reference {theirs:.5g}), {among}"
            yield f"{what}-{name}", Figure(z, text)


def posterior(name: str, folder: str | None, seed: int) -> dict:
    """One run on a reference posterior: models, settings and comparison are those of the test suite."""
    import jax.random as jr
    import numpy as np
    from posterax import sample
    from posterax._arviz import bulk_ess

    warnings.simplefilter("ignore")
    models = load(ROOT / "tests" / "plugins" / "numpyro" / "posteriordb_models.py")
    target, reference = models.problem(name, folder and Path(folder))
    settings = models.SETTINGS[name]
    with Stopwatch() as watch:
        draws = sample(
            settings.sampler, target, num_draws=settings.num_draws, num_chains=settings.num_chains, plan=settings.plan,
            key=jr.key(100 + seed), progress=False,
        )  # fmt: skip
    ess = bulk_ess(draws)
    return {
        "ess": {parameter: float(np.min(models.entry(ess, parameter))) for parameter in reference},
        "rows": [list(row) for row in models.compare(draws, reference)],
        "num_chains": draws.num_chains,
        "num_draws": draws.num_draws,
        "bits": settings.plan.precision or 32,
        "diverging": int(draws.stats["diverging"].sum()),
        "seconds": watch.wall,
    }


MEASURES = (execution, compilation, reference_posteriors)
