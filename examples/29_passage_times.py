"""First-passage times of a molecular motor with intervals: by a network, its draws weighted, Laplace, and NUTS.

python examples/29_passage_times.py [--paths 200] [--sets 16] [--output examples-output]

From snapshots to intervals is one pipeline. The exact answers of the flashing ratchet are known: intervals are held
against them in many simulated data sets.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax import Draw, Draws, Infer, PosteraxWarning
from posterax_mjp import Answer, MJPLikelihood, PanelData, Process, answers, first_passage_times, pretrained
from posterax_models import FlashingRatchet
from scipy.stats import binom

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RATCHET = FlashingRatchet()
TIMES = np.linspace(0.0, 2.5, 50)
OFF = ~np.eye(6, dtype=bool)
EXACT = np.append(first_passage_times(RATCHET.generator)[OFF], RATCHET.entropy_production)
SHOWN = {"time 0 to 2": 1, "time 2 to 0": 10, "entropy production": 30}
LEVEL, DRAWS = 0.9, 4000
SURE = 0.95  # jumps that the network finds less probable are left out: one that cannot be undone would produce infinity
COLOURS = {"network": "C1", "weighted": "C0", "Laplace": "0.45", "NUTS": "C3"}


def ways() -> dict[str, Callable]:
    """Functions of (panel, key): draws of the rates, with all that follows from each."""
    network, laplace, nuts = (pretrained(polish=polish, edge_threshold=SURE) for polish in (None, "laplace", "nuts"))
    return {
        "network": lambda panel, key: (Infer(network, panel) >> Draw(DRAWS) >> Answer()).run(key=key),
        "weighted": lambda panel, key: answers(None, network.draws(panel, DRAWS, key=key)),
        "Laplace": lambda panel, key: (Infer(laplace, panel) >> Answer()).run(key=key),
        "NUTS": lambda panel, key: (Infer(nuts, panel) >> Answer()).run(key=key),
    }


@dataclasses.dataclass
class Told:
    """What one way tells of one data set: lower end, median and upper end `(3, 31)`, seconds, and the draws' worth."""

    ends: np.ndarray
    seconds: float
    worth: str

    @staticmethod
    def by(way: Callable, panel: PanelData, key) -> "Told":
        """Asked and timed."""
        began = time.perf_counter()
        draws = way(panel, key)
        seconds = time.perf_counter() - began
        found = draws.quantile([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        ends = np.column_stack([found["first_passage_times"][:, OFF], found["entropy_production"]])
        return Told(ends, seconds, worth(draws))

    @property
    def covers(self) -> np.ndarray:
        """Which intervals hold the exact value."""
        return (self.ends[0] <= EXACT) & (self.ends[2] >= EXACT)


def worth(draws: Draws) -> str:
    """Effective size and Pareto's k of weights; effective size and R-hat of chains."""
    if draws.log_weights is not None:
        return f"ESS {draws.effective_sample_size():.0f}, k-hat {draws.pareto_k():.2f}"
    if draws.num_chains == 1:
        return "independent"
    table = draws.replace(values={"rates": draws["rates"]}).summary()
    return f"ESS {table['ess_bulk'].min():.0f}, R-hat {table['r_hat'].max():.3f}"


def simulated(paths: int, number: int) -> PanelData:
    """Snapshots of stationary paths."""
    process = Process(RATCHET.rates, RATCHET.stationary_law)
    states = process.sample(TIMES, paths, key=jr.fold_in(jr.key(0), number))
    return PanelData.from_paths(np.asarray(states), TIMES, num_states=6)


def begun_cold(panel: PanelData, told: Told) -> str:
    """NUTS on the same posterior without the network's start: what that has saved."""
    warm = pretrained(polish="map", edge_threshold=SURE).polished(panel, key=jr.key(2))
    model = MJPLikelihood(method="nuts", edges=warm.edges, prior=warm.prior)
    began = time.perf_counter()
    cold = model.fit(panel, key=jr.key(2), progress=False)
    seconds = time.perf_counter() - began
    ends = Told.by(lambda *_: answers(None, cold.infer()), panel, None).ends
    apart = np.max(np.abs(ends - told.ends)[1] / (told.ends[2] - told.ends[0]))
    steps, fewer = (fit.report["num_evaluations"] for fit in (cold, warm))
    return (
        f"NUTS begun cold, with the same jumps: {seconds:.2f} s; {steps} evaluations to the mode, with it {fewer};"
        f"\nits medians are at most {100 * apart:.1f} % of an interval away from those of NUTS begun at the network"
    )


def main(paths: int, sets: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    found: dict[str, list[Told]] = {name: [] for name in COLOURS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)
        for number in range(sets):
            panel = simulated(paths, number)
            for name, way in ways().items():
                found[name].append(Told.by(way, panel, jr.fold_in(jr.key(1), number)))
    print(f"{paths} paths of {len(TIMES)} snapshots; the first data set, intervals of {100 * LEVEL:.0f} %")
    print("           " + "".join(f"{name:24}" for name in SHOWN) + " seconds  at first  worth")
    print("exact      " + "".join(f"{EXACT[place]:<24.3f}" for place in SHOWN.values()))
    for name, each in found.items():
        seconds, spans = np.median([one.seconds for one in each[1:] or each]), each[0].ends[:, list(SHOWN.values())].T
        told = "".join(f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':24}" for low, middle, high in spans)
        print(f"{name:10} {told}{seconds:8.2f} {each[0].seconds:9.1f}  {each[0].worth}")
    print(begun_cold(simulated(paths, 0), found["NUTS"][0]))
    low, high = binom.interval(0.95, sets, LEVEL)
    print(f"\nIntervals that hold the exact value, of {sets} (95 % of counts would be {low:.0f} to {high:.0f})")
    for name, each in found.items():
        counts = np.sum([one.covers for one in each], 0)
        told = ", ".join(f"{what} {counts[place]}" for what, place in SHOWN.items())
        width = np.median([(one.ends[2, :30] - one.ends[0, :30]) / EXACT[:30] for one in each])
        print(f"{name:10} {told}; 30 times {counts[:30].mean():.1f} on average, width {100 * width:.0f} % of the time")
    plot(output / "passage_times.png", found, sets)
    print(f"{time.perf_counter() - began:.0f} s; wrote {output / 'passage_times.png'}")


def plot(path: Path, found: dict[str, list[Told]], sets: int) -> None:
    """Intervals of two answers, data set by data set; how many of all intervals hold the exact value."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", width_ratios=(3, 3, 2))
    pairs = (("network", "NUTS"), ("Laplace", "NUTS"))
    for axis, what, names in zip(axes, ("time 0 to 2", "entropy production"), pairs, strict=False):
        place = SHOWN[what]
        for shift, name in zip((-0.15, 0.15), names, strict=True):
            low, middle, high = np.stack([one.ends[:, place] for one in found[name]], 1)
            at = np.arange(sets) + 1 + shift
            axis.vlines(at, low, high, color=COLOURS[name], lw=2, label=name)
            axis.plot(at, middle, "_", color=COLOURS[name], ms=6)
        axis.axhline(EXACT[place], color="k", lw=1)
        axis.text(sets + 0.7, EXACT[place], " exact", va="center", fontsize=9)
        axis.set(xlabel="data set", title=what, xlim=(0.4, sets + 0.6), xticks=range(1, sets + 1, 3))
        axis.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
    low, high = binom.interval(0.95, sets, LEVEL)
    axes[2].axhspan(low - 0.5, high + 0.5, color="0.9", lw=0)
    axes[2].axhline(LEVEL * sets, color="0.5", lw=1)
    axes[2].text(3.45, high + 0.5, "where 95 % would be", ha="right", va="bottom", fontsize=8, color="0.4")
    rng = np.random.default_rng(0)
    for place, (name, each) in enumerate(found.items()):
        counts = np.sum([one.covers for one in each], 0)
        jitter = rng.uniform(-0.25, 0.25, (2, len(counts)))
        axes[2].plot(place + jitter[0], counts + 0.6 * jitter[1], "o", ms=3, color=COLOURS[name], alpha=0.7)
    axes[2].set_xticks(range(len(found)), list(found))
    axes[2].set(title=f"31 answers: how many of {sets} hold", ylim=(None, sets + 1))
    for axis in axes:
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=200)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.paths, given.sets, given.output)
