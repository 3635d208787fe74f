"""Rates of a molecular motor at once: a trained network beside maximum likelihood, with few paths and with many.

python examples/20_flashing_ratchet.py [--subsets 10] [--output examples-output]

The flashing ratchet has six states, three of which feel a potential. The network has never seen it.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax import PosteraxWarning
from posterax_mjp import MJPLikelihood, PanelData, Process, pretrained
from posterax_models import FlashingRatchet

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OFF = ~np.eye(6, dtype=bool)
TIMES = np.linspace(0.0, 2.5, 100)
NUMBERS = (10, 30, 100, 300, 1000, 5000)


def main(subsets: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    ratchet = FlashingRatchet()
    process = Process(ratchet.rates, ratchet.stationary_law)
    network = pretrained(polish="map")
    errors = {name: np.full((len(NUMBERS), subsets), np.nan) for name in ("network", "polished", "likelihood")}
    for place, number in enumerate(NUMBERS):
        for subset in range(subsets):
            states = process.sample(TIMES, number, key=jr.fold_in(jr.key(number), subset))
            panel = PanelData.from_paths(np.asarray(states), TIMES, num_states=6)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PosteraxWarning)  # ten paths do not bound all rates
                found = {
                    "network": np.asarray(network.law(panel).mean),
                    "polished": network.polished(panel, key=jr.key(0)).rates,
                    "likelihood": likelihood(panel),
                }
            for name, rates in found.items():
                errors[name][place, subset] = np.sqrt(np.mean((rates - ratchet.rates)[OFF] ** 2))
        told = ", ".join(f"{name} {np.nanmean(each[place]):.3f}" for name, each in errors.items())
        print(f"{number:5} paths: error of the 30 rates {told}")

    states = process.sample(TIMES, 300, key=jr.key(1))
    panel = PanelData.from_paths(np.asarray(states), TIMES, num_states=6)
    network.law(panel)  # compiled
    began = time.perf_counter()
    law = network.law(panel)
    took = time.perf_counter() - began
    told, truth = ratchet.settings_of(np.asarray(law.present_mean())), FlashingRatchet.settings_of(ratchet.rates)
    print(f"\n300 paths of 100 points in {1000 * took:.0f} ms: V {told.potential:.2f}, switching {told.switching:.2f}, "
          f"hopping {told.hopping:.2f}; truth {truth.potential:g}, {truth.switching:g}, {truth.hopping:g}")  # fmt: skip
    there = ratchet.rates > 0
    print(f"jumps that exist, as probabilities: {np.asarray(law.edge_probs)[there].min():.2f} or more; others "
          f"{np.asarray(law.edge_probs)[OFF & ~there].max():.2f} or less")  # fmt: skip
    plot(output / "ratchet.png", errors, law, ratchet)
    print(f"wrote {output / 'ratchet.png'}")


def likelihood(panel: PanelData) -> np.ndarray:
    """Rates of largest likelihood; NaN where a state was never seen to be left."""
    try:
        return MJPLikelihood().fit(panel, key=jr.key(0)).rates
    except ValueError:
        return np.full((6, 6), np.nan)


def plot(path: Path, errors: dict[str, np.ndarray], law, ratchet: FlashingRatchet) -> None:
    """Errors against the number of paths; the law of 300 paths beside the truth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    styles = {"likelihood": ("0.4", "maximum likelihood"), "network": ("C3", "network alone"),
              "polished": ("C0", "network, then posterior mode")}  # fmt: skip
    for name, (colour, label) in styles.items():
        middle = np.nanmedian(errors[name], 1)
        low, high = np.nanquantile(errors[name], [0.1, 0.9], axis=1)
        left.plot(NUMBERS, middle, "o-", ms=3, color=colour, label=label)
        left.fill_between(NUMBERS, low, high, color=colour, alpha=0.15, lw=0)
    left.set(xscale="log", yscale="log", xlabel="paths", ylabel="root mean square error of the rates")
    left.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"], minor=False)
    left.legend(frameon=False)
    mean, sd, probs = (np.asarray(v)[OFF] for v in (law.mean, np.sqrt(law.variance), law.edge_probs))
    truth = ratchet.rates[OFF]
    order = np.argsort(truth, kind="stable")
    place = np.arange(30)
    right.errorbar(place, mean[order], 2 * sd[order], fmt="none", ecolor="0.7", zorder=1)
    dots = right.scatter(place, mean[order], c=probs[order], cmap="viridis", vmin=0, vmax=1, s=18, zorder=2)
    right.step(place, truth[order], where="mid", color="k", lw=1, label="truth")
    right.set(xlabel="pair of states", ylabel="rate", title="network, 300 paths; bars: 2 standard deviations")
    right.title.set_fontsize(10)
    right.legend(frameon=False, loc="upper left")
    figure.colorbar(dots, label="probability of the jump")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsets", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    arguments = parser.parse_args()
    main(arguments.subsets, arguments.output)
