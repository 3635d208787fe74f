"""What rates of Markov jump processes must reach: the ratchet, calibration, exact posteriors, real data, seconds."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import _mjp_gradient
import _race
import numpy as np
from _mjp_prior import calibration, posteriors, seen
from _study import seeds, study
from _timing import HERE, Figure, data_folder, fresh, matrix_product, rows, spread

_SUBSETS, _PAIRS = 20, 15
_OFF = ~np.eye(6, dtype=bool)
_NO_DATA = "there is no mjp/ where POSTERAX_DATA points"


def _ratchet() -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    folder = data_folder("mjp")
    if folder is None:
        return None
    data = np.load(folder / "dfr_V1.npz")
    return data["states"].astype(int), data["times"], data["rate_matrix"]


def _subsets(number: int, subsets: int):
    """Panels of some of the 10,000 paths: the first so many of random orders, the same for every method and size."""
    from posterax_mjp import PanelData

    ratchet = _ratchet()
    assert ratchet
    states, times, rates = ratchet
    rng = np.random.default_rng(0)
    for _ in range(subsets):
        chosen = rng.permutation(len(states))[:number]
        yield states[chosen], PanelData.from_paths(states[chosen], times, num_states=6), rates


def _error(found: Any, rates: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(found) - rates)[_OFF] ** 2)))


def _words(values: list[float]) -> str:
    return f"{np.mean(values):.4f} +- {np.std(values):.4f}"


# The flashing ratchet


@rows("ratchet-30", "ratchet-300", "ratchet-5000", "map-30", "map-300", "map-5000", "steps")
def ratchet():
    if _ratchet() is None:
        for row in ratchet.rows:
            yield row, Figure(None, _NO_DATA)
        return
    found = {number: study(f"mjp-ratchet-{number}", range(_SUBSETS), lambda s, n=number: one_subset(n, s)) for number in
             (30, 300, 5000)}  # fmt: skip
    for number, runs in found.items():
        each = {name: [run[name] for run in runs] for name in runs[0]}
        errors = each["network"]
        yield f"ratchet-{number}", Figure(float(np.mean(errors)), f"{_words(errors)} over {len(errors)} subsets")
        told = ", ".join(f"{name} {_words(each[name])}" for name in ("likelihood", "map", "pooled", "corrected"))
        best, ratio = np.mean(each["map"]), np.mean(each["map"]) / np.mean(each["likelihood"])
        yield f"map-{number}", Figure(float(best if number == 30 else ratio), told)
    steps = [(run["warm"], run["cold"]) for run in found[300]]
    ratios = [warm / cold for warm, cold in steps]
    warm, cold = (statistics.median(side) for side in zip(*steps, strict=True))
    yield "steps", Figure(statistics.median(ratios), f"{spread(ratios)}; {warm} warm and {cold} cold at 300 paths")


def one_subset(number: int, subset: int) -> dict[str, float]:
    """Errors of all methods on one subset, and evaluations of the likelihood."""
    import dataclasses

    import jax.random as jr
    from posterax import PosteraxWarning
    from posterax_mjp import MJPLikelihood, PooledRates, ProcessPrior, pretrained

    warnings.simplefilter("ignore", PosteraxWarning)
    *_, (_, panel, rates) = _subsets(number, subset + 1)
    network = pretrained(polish="map")
    polished = network.polished(panel, key=jr.key(0))
    pooled = dataclasses.replace(network, prior=ProcessPrior(rates=PooledRates())).polished(panel, key=jr.key(0))
    cold = MJPLikelihood().fit(panel, key=jr.key(0))
    draws = network.draws(panel, 2000, key=jr.key(1))
    assert polished.report
    assert cold.report
    return {
        "network": _error(network.law(panel).mean, rates), "map": _error(polished.rates, rates),
        "pooled": _error(pooled.rates, rates), "likelihood": _error(cold.rates, rates),
        "corrected": _error(draws.mean()["rates"], rates), "ess": float(draws.effective_sample_size()),
        "warm": polished.report["num_evaluations"], "cold": cold.report["num_evaluations"],
    }  # fmt: skip


@rows("flips-300")
def flips():
    """A tenth of the labels wrong: the share known, and estimated."""
    import jax.numpy as jnp
    import jax.random as jr
    from posterax_mjp import LabelFlips, PanelData, pretrained

    if _ratchet() is None:
        yield "flips-300", Figure(None, _NO_DATA)
        return
    errors: dict[str, list[float]] = {"network": [], "share known": [], "share estimated": []}
    for subset, (states, panel, rates) in enumerate(_subsets(300, seeds(6, _SUBSETS).stop)):
        wrong = LabelFlips.flipped(jnp.asarray(states), 6, jnp.asarray(0.1), key=jr.key(subset))
        noisy = PanelData.from_paths(np.asarray(wrong), panel.time[:100], num_states=6)
        errors["network"].append(_error(pretrained(noise=0.1).law(noisy).mean, rates))
        for noise, name in ((0.1, "share known"), (None, "share estimated")):
            polished = pretrained(polish="map", noise=noise).polished(noisy, key=jr.key(0))
            errors[name].append(_error(polished.rates, rates))
    worst = max(np.mean(errors["share known"]), np.mean(errors["share estimated"]))
    yield "flips-300", Figure(float(worst), ", ".join(f"{name} {_words(each)}" for name, each in errors.items()))


# Symmetries, entropy, real data


@rows("permuted", "rescaled")
def symmetries():
    from posterax_mjp import PanelData, pretrained

    panel, *_ = seen(6, 0, False)  # all paths at the same times
    law, order = pretrained().law(panel), np.array([3, 0, 5, 1, 4, 2])
    states = panel.padded(panel.state, 0)
    times = panel.time[: states.shape[1]]
    other = pretrained().law(PanelData.from_paths(order[states], times, num_states=6))
    off = np.abs(np.asarray(other.mean)[np.ix_(order, order)] - law.mean) / np.maximum(np.asarray(law.mean), 1)
    yield (
        "permuted",
        Figure(float(off.max()), f"six states, means differ by {off.max():.1e} at most"),
    )
    slow = pretrained().law(PanelData.from_paths(states, 7.3 * times, num_states=6))
    off = np.abs(7.3 * np.asarray(slow.mean) - law.mean)[_OFF] / np.asarray(law.mean)[_OFF]
    yield (
        "rescaled",
        Figure(float(off.max()), f"rates in other units differ by {off.max():.1e} at most"),
    )


@rows("entropy")
def entropy():
    """Six potentials; one interval of 95 % in twenty misses by chance."""
    said = subprocess.run(
        [sys.executable, str(HERE.parents[1] / "examples" / "21_entropy_production.py"), "--output",
         tempfile.mkdtemp()], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    covered = next(line for line in said.splitlines() if "intervals hold" in line)
    yield "entropy", Figure(float(covered.split()[0]), "\n".join(said.splitlines()[:-1]))


@rows("cav-fixed", "cav-maxima")
def transplants():
    import jax.random as jr
    from posterax_mjp import MJPLikelihood, read_panel

    folder = data_folder("mjp")
    if folder is None:
        for row in transplants.rows:
            yield row, Figure(None, _NO_DATA)
        return
    edges = np.array([[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    fixed = np.where(edges, 0.25, 0.0)
    fixed[1, [0, 2, 3]] = 0.166
    off, maxima, told = [], [], []
    for entered, at, maximum in (([4], 4908.816768, 3968.7979), ([], 4833.006406, 3986.0871)):
        panel = read_panel(folder / "msm_cav.csv", time="years", state="state", subject="PTNUM", entered=entered)
        model = MJPLikelihood(edges=edges).fit(panel, key=jr.key(0))
        value = -2 * at_rates(model, fixed)
        assert model.report
        top = -2 * model.report["log_likelihood"]
        off.append(abs(value - at))
        maxima.append(abs(top - maximum))
        told.append(f"{value:.6f} ({at}), {top:.4f} ({maximum})")
    yield "cav-fixed", Figure(max(off), "; ".join(told))
    yield "cav-maxima", Figure(max(maxima), "; ".join(told))


def at_rates(model: Any, rates: np.ndarray) -> float:
    """Log-likelihood at given rates."""
    import jax.numpy as jnp
    from posterax._precision import precision

    with precision(64):
        likelihood = model.fitted().posterior.likelihood
        return float(likelihood.value(likelihood.model.start(jnp.asarray(rates, jnp.float64))))


# Seconds


@rows("pass-seconds", "polish-seconds", "gradient-speed")
def seconds():
    import jax.random as jr
    from posterax_mjp import PanelData, Process, pretrained
    from posterax_models import FlashingRatchet

    ratchet, times = FlashingRatchet(), np.linspace(0, 2.5, 50)
    process = Process(ratchet.rates, ratchet.stationary_law)
    states = np.asarray(process.sample(times, 300, key=jr.key(0)))
    panel = PanelData.from_paths(states, times, num_states=6)
    network = pretrained(polish="map")

    def taken(work) -> tuple[float, str]:
        work()
        each, products = [], []
        for _ in range(_PAIRS):
            products.append(matrix_product())
            began = time.perf_counter()
            work()
            each.append(time.perf_counter() - began)
        ratio = statistics.median(a / b for a, b in zip(each, products, strict=True))
        return statistics.median(each), f"{spread(each, 4)} s; {ratio:.2f} times a fixed matrix product"

    yield "pass-seconds", Figure(*taken(lambda: np.asarray(network.law(panel).mean)))
    yield "polish-seconds", Figure(*taken(lambda: network.polished(panel, key=jr.key(0))))
    yield "gradient-speed", _gradients()


def _gradients() -> Figure:
    """Log-likelihood with gradient for 1,000 different gaps, against SciPy's expm and its derivative gap by gap."""
    from posterax._precision import precision

    snapshots = _mjp_gradient.snapshots(1000)
    loop = _mjp_gradient.loop(*snapshots)
    with precision(64):
        slopes = _mjp_gradient.ours(*snapshots)
        assert np.allclose(slopes(), loop(), rtol=1e-8)
        ours, theirs = [], []
        for _ in range(_PAIRS):
            began = time.perf_counter()
            slopes()
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            loop()
            theirs.append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Figure(statistics.median(ratios), f"{spread(ratios, 1)} times; ours {1000 * statistics.median(ours):.1f} ms")


@rows("speed-peer")
def peer():
    """One record of 15,000 snapshots. Ours in a fresh process, first and second fit; the peer's without its imports."""
    try:
        python = _race.environment("cthmm")
    except _race.Unavailable as reason:
        yield "speed-peer", Figure(None, str(reason))
        return
    import jax.random as jr
    from posterax_mjp import Process
    from posterax_models import FlashingRatchet

    ratchet, times = FlashingRatchet(), np.arange(15_000) * 0.05
    process = Process(ratchet.rates, ratchet.stationary_law)
    states = np.asarray(process.sample(times, 1, key=jr.key(0)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "panel.npz"
        np.savez(file, states=states, times=times, num_states=6)
        command = [python, str(HERE / "_mjp_peer.py"), str(file)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = json.loads(said.stdout.splitlines()[-1])
        ours = fresh("mjp", "fitted_cold", str(file))
    errors = [_error(found["rates"], ratchet.rates) for found in (ours, theirs)]
    yield "speed-peer", Figure(
        ours["warm"] / theirs["seconds"], f"ours {ours['warm']:.2f} s, {ours['seconds']:.1f} s with compilation; cthmm "
        f"{theirs['seconds']:.1f} s, which counts instead; errors of the rates {errors[0]:.3f} and {errors[1]:.3f}",
    )  # fmt: skip


def fitted_cold(file: str) -> dict[str, Any]:
    """Maximum likelihood of the same panel, first and second time."""
    import jax.random as jr
    from posterax_mjp import MJPLikelihood, PanelData

    data = np.load(file)
    taken, fitted = [], None
    for _ in range(2):
        began = time.perf_counter()
        panel = PanelData.from_paths(data["states"], data["times"], num_states=6)
        fitted = MJPLikelihood().fit(panel, key=jr.key(0))
        taken.append(time.perf_counter() - began)
    assert fitted
    return {"seconds": taken[0], "warm": taken[1], "rates": fitted.rates.tolist()}


MEASURES = (ratchet, flips, calibration, posteriors, symmetries, entropy, transplants, seconds, peer)
