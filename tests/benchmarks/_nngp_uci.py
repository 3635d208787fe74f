"""UCI regression: scale mixtures of NNGPs beside their Gaussian twins and a peer's kernels, split by split.

Every model is chosen by the evidence of its training rows alone: the best of six starts after `SCREENING` steps of
L-BFGS, then fitted for `STEPS`. For ours the starts are six networks, for the peer six random lengthscales and noises.
Figures are those of the test rows, in the units of the target: mean NLL in nats, RMSE, CRPS, and the share of targets
within central intervals.
"""

import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _timing import HERE, data_folder

SANITY = {  # NLL of a simpler search on the same splits: splits, s by ML, inverse gamma
    "yacht": (20, 0.913, 0.928),
    "bostonHousing": (20, 2.420, 2.414),
    "energy": (20, 0.914, 0.913),
    "concrete": (5, 3.032, 3.043),
}
SCREENING, STEPS = 12, 60
DISTINCT = "-distinct"
AGREE = 1e-3
LOOSE = {"energy": 0.2}  # simulated, without noise: its Gram matrices are all but singular, and rounding decides
OURS = ("s fixed", "s by ML", "inverse gamma", "Burr XII")
PEERS = ("RBF", "Matern 5/2", "RBF, ARD", "Matern 5/2, ARD")
FIGURES = ("nll", "rmse", "crps", "in50", "in95")


def folder() -> Path | None:
    """Where the data are."""
    return data_folder("uci")


def split(name: str, number: int) -> tuple[np.ndarray, ...]:
    """Training inputs and targets, test inputs and targets, in raw units.

    With `DISTINCT` at its end the name is that of a data set without copies: a row stays where no row before it, those
    of training first, has the same inputs.
    """
    place = name.removesuffix(DISTINCT)
    x, y = everything(place)
    train, test = (np.loadtxt(folder() / place / f"index_{what}_{number}.txt", dtype=int) for what in ("train", "test"))
    if name.endswith(DISTINCT):
        rows = np.concatenate([train, test])
        first = np.unique(x[rows], axis=0, return_index=True)[1]
        stays = np.isin(np.arange(len(rows)), first)
        train, test = train[stays[: len(train)]], test[stays[len(train) :]]
    return x[train], y[train], x[test], y[test]


def ours(x, y, new, target, models=OURS, depths=(1, 2, 4)) -> dict[str, dict]:
    """Figures of our models on one split; networks of these depths, of ReLU and erf, to choose from."""
    import jax.random as jr
    import numpyro.distributions as dist
    from posterax_nngp import BurrXII, ScaleMixtureNNGP, networks

    priors = {
        "s fixed": dist.Delta(1.0),
        "s by ML": dist.Delta(1.0),
        "inverse gamma": dist.InverseGamma(2.0, 2.0),
        "Burr XII": BurrXII(2.0, 2.0),
    }
    found = {}
    for name in models:
        began = time.perf_counter()
        first, *others = networks(depths, ("relu", "erf"))
        model = ScaleMixtureNNGP(
            first, priors[name], noise=0.05, standardise=True, max_steps=STEPS, screening_steps=SCREENING,
            candidates=tuple(others), learn=("kernel", "noise", *(["scale_prior"] if name == "s by ML" else [])),
        )  # fmt: skip
        with warnings.catch_warnings():  # the budget is what it is
            warnings.simplefilter("ignore")
            fitted = model.fit((x, y), key=jr.key(0))
        law = fitted.infer(new, joint=False)
        found[name] = {
            **figures(law, target),
            "log_evidence": fitted.report["log_evidence"],
            "kernel": f"{fitted.kernel.depth} {type(fitted.kernel.activation).__name__}",
            "jitter": fitted.report["jitter"],
            "seconds": time.perf_counter() - began,
        }
    return found


def figures(law, target) -> dict[str, float]:
    """NLL, RMSE, CRPS and coverage of a batch of predictive laws."""
    log_prob, pit = (np.asarray(values, float) for values in (law.log_prob(target), law.cdf(target)))
    return scores(log_prob, np.asarray(law.mean, float) - target, crps(law, target), pit)


def scores(log_prob: np.ndarray, off: np.ndarray, crps: np.ndarray, pit: np.ndarray) -> dict[str, float]:
    """The figures, of log densities, errors of the mean, CRPS and distribution functions at the targets."""
    return {
        "nll": float(-np.mean(log_prob)),
        "rmse": float(np.sqrt(np.mean(off**2))),
        "crps": float(np.mean(crps)),
        "in50": float(np.mean(np.abs(pit - 0.5) < 0.25)),
        "in95": float(np.mean(np.abs(pit - 0.5) < 0.475)),
    }


def crps(law, target) -> np.ndarray:
    """Of mixtures of normals with one mean, in closed form (Grimit et al., 2006)."""
    weights, mean, sd = components(law)
    spread = np.sqrt(sd[:, :, None] ** 2 + sd[:, None, :] ** 2)
    each = _mean_distance((target - mean)[:, None], sd) @ weights
    return each - 0.5 * np.einsum("i,kij,j->k", weights, spread * np.sqrt(2 / np.pi), weights)


def components(law) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights `(S,)`, means `(k,)` and standard deviations `(k, S)` of a predictive law of ours.

    A mixture over s is brought to 100 components, at the midpoints of equal shares: good to 1e-4 of a CRPS.
    """
    import numpyro.distributions as dist
    from scipy import stats

    mean = np.asarray(law.mean, float)
    if isinstance(law, dist.Normal):
        return np.ones(1), mean, np.asarray(law.scale, float)[:, None]
    if isinstance(law, dist.StudentT):  # s of an inverse gamma law, likewise
        df = float(np.asarray(law.df).ravel()[0])
        sizes = np.sqrt(df / stats.chi2(df).ppf((np.arange(100) + 0.5) / 100))
        return np.full(100, 1 / 100), mean, np.asarray(law.scale, float)[:, None] * sizes
    logits = np.asarray(law.mixing_distribution.logits, float)[0]
    sd = np.asarray(law.component_distribution.scale, float)
    order, weights = np.argsort(sd[0]), np.exp(logits - np.logaddexp.reduce(logits))
    chosen = order[np.minimum(np.searchsorted(np.cumsum(weights[order]), (np.arange(100) + 0.5) / 100), order.size - 1)]
    return np.full(100, 1 / 100), mean, sd[:, chosen]


def _mean_distance(off, sd):
    """E|N(off, sd^2)|."""
    from scipy.special import ndtr

    z = off / sd
    return off * (2 * ndtr(z) - 1) + 2 * sd * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


def peers(python: Path, x, y, new, target) -> dict[str, dict]:
    """Figures of the peer's kernels on one split, computed in its own environment."""
    from scipy import stats

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "split.npz"
        np.savez(file, x=x, y=y, new=new)
        command = [str(python), str(HERE / "_nngp_uci_peer.py"), str(file), str(SCREENING), str(STEPS)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "PYTHON"))}
        done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found = {}
    for name, said in json.loads(done.stdout.splitlines()[-1]).items():
        mean, sd = np.asarray(said.pop("mean")), np.asarray(said.pop("sd"))
        law, distance = stats.norm(mean, sd), _mean_distance(target - mean, sd)
        crps = distance - sd / np.sqrt(np.pi)
        found[name] = {**scores(law.logpdf(target), mean - target, crps, law.cdf(target)), **said}
    return found


def table(name: str, results: list[dict[str, dict]], reference: str = "s by ML") -> str:
    """Mean and standard error over the splits of every figure, and the paired difference of NLL to the reference."""
    lines = [
        f"{name}, {len(results)} splits",
        f"{'':18}" + "".join(f"{what:>17}" for what in FIGURES) + f"{'NLL less ' + reference:>22}",
    ]
    for model in results[0]:
        cells = []
        for what in FIGURES:
            values = np.array([result[model][what] for result in results])
            cells.append(f"{values.mean():9.3f} ± {_error(values):5.3f}")
        off = np.array([result[model]["nll"] - result[reference]["nll"] for result in results])
        lines.append(
            f"{model:18}" + "".join(f"{cell:>17}" for cell in cells) + f"{off.mean():14.4f} ± {_error(off):.4f}"
        )
    return "\n".join(lines)


def _error(values) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def checked(kept: dict[int, dict], here: dict[int, dict], agree: float = AGREE) -> tuple[list[dict], str]:
    """The kept results, with what was computed here in their place; and in words how the two agree.

    Raises `RuntimeError` where the NLL of a model on a split is another one: by more than `agree` nats.
    """
    both = sorted(set(kept) & set(here))
    off = {
        (number, model): abs(kept[number][model]["nll"] - result["nll"])
        for number in both
        for model, result in here[number].items()
    }
    if wrong := [f"split {number}, {model}: {by:.4f}" for (number, model), by in off.items() if not by < agree]:
        raise RuntimeError(f"NLL anew is not that of results/ within {agree} nats: {'; '.join(wrong)}")
    splits = ", ".join(map(str, here))
    if not both:
        return list(here.values()), f"splits {splits} computed now; results/ has {len(kept)} splits"
    said = (
        f"results/ has {len(kept)} splits, written by FULL=1; of these {', '.join(map(str, both))} computed anew: NLL "
        f"differs by at most {max(off.values()):.1e} nats (allowed: {agree})"
    )
    return [{**kept[number], **here.get(number, {})} for number in sorted(kept)], said


def everything(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of all rows."""
    place = folder() / name
    table = np.loadtxt(place / "data.txt")
    inputs, target = (np.loadtxt(place / f"index_{what}.txt", dtype=int) for what in ("features", "target"))
    return table[:, inputs], table[:, target]


def on_splits(core: int | None, models: list[str], name: str, numbers: list[int]) -> list[dict]:
    """`ours` on some splits, on one core."""
    pin(core)
    return [ours(*split(name, number), models) for number in numbers]


def pin(core: int | None) -> None:
    """Keeps this process on one core: threads of two processes on one core wait for each other."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        there = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {there[core % len(there)]})
