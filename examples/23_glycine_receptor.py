"""A single channel that opens and shuts: rates from how long it does, and from mere snapshots at once by the network.

python examples/23_glycine_receptor.py [--windows 300] [--output examples-output]

Reads `mjp/gly_A_10uM.csv` (a glycine receptor, idealised) of the folder that POSTERAX_DATA names; where there is none
it simulates a channel with one open and two shut states. Two states are one class each: real channels have several,
which the histograms show, and sojourns too short to be seen are not corrected for.
"""

import argparse
import os
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import pandas as pd
from posterax_mjp import MJPLikelihood, PanelData, Process, pretrained, read_dwell_times

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STEP = 0.5  # ms between snapshots
POINTS = 100  # in a window


def main(windows: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    frame, title = read()
    panel = read_dwell_times(frame, duration="duration_ms", state="class", states=["shut", "open"])
    fitted = MJPLikelihood().fit(panel, key=jr.key(0))
    table = fitted.table()
    print(f"{title}\n{panel!r}\n{table.round(4).to_string()}")
    stays = {name: sojourns(panel, state) for state, name in enumerate(panel.states)}
    exact = {name: 1 / values.mean() for name, values in stays.items()}
    print(f"rates per ms: opening {fitted.rates[0, 1]:.4f}, shutting {fitted.rates[1, 0]:.4f}; by counting sojourns "
          f"{exact['shut']:.4f}, {exact['open']:.4f}")  # fmt: skip

    snapshots = seen(panel, windows)
    law = pretrained().law(snapshots)
    likeliest = MJPLikelihood().fit(snapshots, key=jr.key(0)).rates
    mean, sd = np.asarray(law.mean), np.sqrt(np.asarray(law.variance))
    print(f"\n{windows} windows of {POINTS} snapshots, one every {STEP} ms, as if they were apart")
    for i, j, name in ((0, 1, "opening"), (1, 0, "shutting")):
        print(f"{name:9} network {mean[i, j]:.4f} +- {sd[i, j]:.4f}; likelihood of the snapshots {likeliest[i, j]:.4f}")
    plot(output / "glycine.png", stays, fitted.rates)
    print(f"wrote {output / 'glycine.png'}")


def read() -> tuple[pd.DataFrame, str]:
    """Durations with their class, and where they are from; sojourns below 0.03 ms are joined to what is around them."""
    file = Path(os.environ.get("POSTERAX_DATA", "../shared/data")) / "mjp" / "gly_A_10uM.csv"
    if not file.is_file():
        return simulated(), "a simulated channel: there is no mjp/gly_A_10uM.csv where POSTERAX_DATA points"
    raw = pd.read_csv(file)
    usable = (np.asarray(raw["flag"]) & 8) == 0
    lengths, amplitude = (np.asarray(raw[name])[usable] for name in ("duration_ms", "amplitude_raw"))
    place = np.maximum.accumulate(np.where(lengths >= 0.03, np.arange(len(lengths)), 0))
    frame = pd.DataFrame({"duration_ms": lengths, "class": np.where(amplitude == 0, "shut", "open")[place]})
    return frame, "rat glycine receptor, 10 uM glycine, idealised recording"


def simulated() -> pd.DataFrame:
    """Shut for long or for a short while, and open: 4,000 jumps."""
    rates = jnp.array([[0.0, 0.0, 0.02], [0.0, 0.0, 2.0], [0.3, 0.6, 0.0]])
    jumps = Process(rates, jnp.array([1.0, 0.0, 0.0])).sample_jumps(1e9, 1, max_jumps=4000, key=jr.key(0))
    states = np.append(np.asarray(jumps.start), np.asarray(jumps.states[0][:-1]))
    lengths = np.diff(np.asarray(jumps.times[0], float), prepend=0.0)
    return pd.DataFrame({"duration_ms": np.maximum(lengths, 1e-3), "class": np.where(states == 2, "open", "shut")})


def sojourns(panel: PanelData, state: int) -> np.ndarray:
    """Lengths of all stays in a state."""
    return panel.gaps[panel.state[:-1] == state]


def seen(panel: PanelData, windows: int) -> PanelData:
    """Snapshots of the middle of a record, in windows."""
    first = panel.time[-1] / 2 - windows * POINTS * STEP / 2
    times = max(first, 0.0) + STEP * np.arange(windows * POINTS)
    states = panel.state[np.searchsorted(panel.time, times, side="right") - 1]
    return PanelData.from_paths(states.reshape(windows, POINTS), STEP * np.arange(POINTS), names=panel.states)


def plot(path: Path, stays: dict[str, np.ndarray], rates: np.ndarray) -> None:
    """Histograms of sojourns on a logarithmic axis, and what one exponential law of each expects."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for panel, (name, values), rate in zip(axes, stays.items(), (rates[0, 1], rates[1, 0]), strict=True):
        edges = np.geomspace(max(values.min(), 1e-3), values.max(), 40)
        panel.hist(values, edges, color="0.75", label="observed")
        expected = len(values) * np.diff(-np.exp(-rate * edges))
        panel.plot(np.sqrt(edges[1:] * edges[:-1]), expected, color="C3", label="one exponential law")
        panel.set(xscale="log", xlabel=f"{name} time, ms", ylabel="sojourns")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    arguments = parser.parse_args()
    main(arguments.windows, arguments.output)
