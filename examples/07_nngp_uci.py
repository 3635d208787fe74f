"""A table of test scores on UCI data: networks with a fixed, a fitted and a random scale beside an RBF kernel.

python examples/07_nngp_uci.py [--data-set yacht] [--splits 5] [--output examples-output]

Reads `uci/` of the folder that POSTERAX_DATA names, with the split files of Hernandez-Lobato and Adams (2015). Where
there is none it makes data of its own, Friedman's function of ten inputs, five of which matter.
"""

import argparse
import os
import warnings
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax_nngp import BurrXII, RBFKernel, ScaleMixtureNNGP, networks

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SURE = dist.Delta(1.0)
ALL = ("kernel", "noise", "scale_prior")


def models(candidates) -> dict[str, ScaleMixtureNNGP]:
    """What is compared. A learnt point mass is the Gaussian process with its scale by maximum likelihood."""
    first, *others = candidates
    settings = {"noise": 0.05, "standardise": True, "max_steps": 60, "screening_steps": 12, "candidates": tuple(others)}
    return {
        "NNGP, s = 1": ScaleMixtureNNGP(first, SURE, **settings),
        "NNGP, s by ML": ScaleMixtureNNGP(first, SURE, learn=ALL, **settings),
        "inverse gamma": ScaleMixtureNNGP(first, dist.InverseGamma(2.0, 2.0), **settings),
        "Burr XII": ScaleMixtureNNGP(first, BurrXII(2.0, 2.0), **settings),
        "RBF, s by ML": ScaleMixtureNNGP(RBFKernel(2.0), SURE, learn=ALL, **settings | {"candidates": ()}),
    }


def main(data_set: str, splits: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    name, parts = read(data_set, splits)
    candidates = networks((1, 2), ("relu", "erf")) if splits > 2 else networks((1,), ("relu", "erf"))
    scores = {label: [] for label in models(candidates)}
    for number, (x, y, new, target) in enumerate(parts):
        for label, model in models(candidates).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # 60 steps are what every model gets, converged or not
                fitted = model.fit((x, y), key=jr.key(number))
            law = fitted.infer(new, joint=False)
            inside = np.abs(np.asarray(law.cdf(target)) - 0.5) < 0.475
            rmse = np.sqrt(np.mean((np.asarray(law.mean) - target) ** 2))
            scores[label].append((-np.mean(law.log_prob(target)), rmse, np.mean(inside)))
        print(f"split {number + 1} of {len(parts)}")

    table = {label: np.array(rows) for label, rows in scores.items()}
    print(f"\n{name}, {len(parts)} splits: mean ± standard error on test rows, units of the target")
    print(f"{'':16}{'NLL':>17}{'RMSE':>17}{'in 95 %':>17}{'NLL less s by ML':>22}")
    for label, rows in table.items():
        off = rows[:, 0] - table["NNGP, s by ML"][:, 0]
        cells = [f"{mean:8.3f} ± {error:.3f}" for mean, error in zip(rows.mean(axis=0), errors(rows), strict=True)]
        print(f"{label:16}" + "".join(f"{cell:>17}" for cell in cells) + f"{off.mean():13.4f} ± {errors(off):.4f}")
    path = output / "nngp_uci.png"
    plot(path, name, table)
    print(f"wrote {path}")


def read(data_set: str, splits: int) -> tuple[str, list[tuple[np.ndarray, ...]]]:
    """The name of the data, and training inputs, targets, test inputs, targets of each split."""
    folder = Path(os.environ.get("POSTERAX_DATA", "")) / "uci" / data_set
    if not os.environ.get("POSTERAX_DATA") or not folder.exists():
        return "Friedman's function", [friedman(number) for number in range(splits)]
    table = np.loadtxt(folder / "data.txt")
    columns = {what: np.loadtxt(folder / f"index_{what}.txt", dtype=int) for what in ("features", "target")}

    def part(what, number):
        rows = table[np.loadtxt(folder / f"index_{what}_{number}.txt", dtype=int)]
        return rows[:, columns["features"]], rows[:, columns["target"]]

    return data_set, [(*part("train", number), *part("test", number)) for number in range(splits)]


def friedman(seed: int) -> tuple[np.ndarray, ...]:
    """60 training and 100 test rows of Friedman (1991), with noise of standard deviation 1."""
    random = np.random.default_rng(seed)
    x = random.uniform(size=(160, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y += random.normal(size=160)
    return x[:60], y[:60], x[60:], y[60:]


def errors(values: np.ndarray) -> np.ndarray:
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def plot(path: Path, name: str, table: dict[str, np.ndarray]) -> None:
    """Paired differences: what all models share, the difficulty of a split, is out of the error bars."""
    figure, axis = plt.subplots(figsize=(7.5, 3), layout="constrained")
    off = {label: rows[:, 0] - table["NNGP, s by ML"][:, 0] for label, rows in table.items()}
    place = np.arange(len(off))
    axis.axvline(0, color="0.8", linewidth=1)
    for i, values in enumerate(off.values()):
        axis.plot(values, np.full(len(values), i), "|", color="0.6", markersize=9)
    axis.errorbar(
        [v.mean() for v in off.values()], place, xerr=[errors(v) for v in off.values()], fmt="o", color="C0", capsize=3
    )
    axis.set(yticks=place, yticklabels=list(off), xlabel="test NLL less that of s by ML (nats; left is better)")
    axis.set_title(f"{name}: mean ± standard error, and each split", fontsize=11)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-set", default="yacht", help="a folder of uci/: yacht, bostonHousing, energy, concrete")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
