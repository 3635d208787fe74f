"""Can the network's uncertainty be trusted? Coverage of rates and reliability of edges on fresh simulated processes.

python examples/24_calibrated_rates.py [--states 4] [--processes 500] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax_mjp import pretrained, score, wide_prior

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(states: int, processes: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    found = score(pretrained().network, wide_prior(), states, processes, key=jr.key(7))
    print(f"{processes} processes of {states} states; one rate of each, with what probability it should be covered")
    for level in (0.5, 0.8, 0.95):
        covered = np.mean(np.abs(found.place - 0.5) < level / 2)
        error = np.sqrt(level * (1 - level) / processes)
        print(f"{level:.2f}: {covered:.3f} (standard error {error:.3f})")
    print(f"standard deviation of the standard scores {np.std(found.z):.3f}")
    probs, edges = found.edge_probs.ravel(), found.edges.ravel()
    base = edges.mean() * (1 - edges.mean())
    print(f"Brier score of the edges {np.mean((probs - edges) ** 2):.4f}; of their frequency alone {base:.4f}")
    plot(output / "calibrated_rates.png", found.place, probs, edges)
    print(f"wrote {output / 'calibrated_rates.png'}")


def plot(path: Path, place: np.ndarray, probs: np.ndarray, edges: np.ndarray) -> None:
    """Where true rates lie in their laws, and how often jumps exist that were told to with some probability."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    count, _, _ = left.hist(place, np.linspace(0, 1, 11), color="0.7")
    expected = len(place) / len(count)
    band = 2 * np.sqrt(expected * (1 - 1 / len(count)))
    left.axhspan(expected - band, expected + band, color="C0", alpha=0.2, lw=0)
    left.axhline(expected, color="C0", lw=1)
    left.set(xlabel="probability given to smaller rates than the true one", ylabel="processes")
    bins = np.digitize(probs, np.linspace(0, 1, 11)[1:-1])
    for number in sorted(set(bins)):
        here = edges[bins == number]
        told, true = probs[bins == number].mean(), here.mean()
        right.errorbar(told, true, 2 * np.sqrt(max(true * (1 - true), 1e-4) / len(here)), fmt="o", ms=4, color="C3")
    right.plot([0, 1], [0, 1], color="0.3", lw=1)
    right.set(xlabel="probability of a jump, told", ylabel="share of jumps that exist")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=4)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    arguments = parser.parse_args()
    main(arguments.states, arguments.processes, arguments.output)
