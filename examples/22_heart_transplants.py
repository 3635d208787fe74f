"""After a heart transplant: rates between stages of a disease and death, and survival beside a mere count.

python examples/22_heart_transplants.py [--draws 1000] [--output examples-output]

Rates that do not change with time are too simple here: of the patients more die at first, and fewer after that, than
such a process has it, and the picture shows it.

Reads `mjp/msm_cav.csv` (622 patients of Papworth Hospital) of the folder that POSTERAX_DATA names. Where there is none
it simulates patients with the rates that were fitted to these.
"""

import argparse
import os
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import pandas as pd
from posterax_mjp import MJPLikelihood, PanelData, Process, answers, plot_intervals, read_panel

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STAGES = ("none", "mild", "severe", "dead")
EDGES = [[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
FITTED = [[0, 0.1279, 0, 0.0425], [0.2251, 0, 0.3426, 0.0403], [0, 0.1306, 0, 0.3065], [0, 0, 0, 0]]


def main(draws: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    panel, title = read()
    print(f"{title}\n{panel!r}")
    likeliest = MJPLikelihood(edges=EDGES).fit(panel, key=jr.key(0))
    assert likeliest.report is not None
    print(f"maximum of the likelihood: -2 log L = {-2 * likeliest.report['log_likelihood']:.4f}")
    fitted = MJPLikelihood(method="laplace", edges=EDGES, num_draws=draws).fit(panel, key=jr.key(0))
    table = fitted.table(key=jr.key(1))
    print(table.round(3).to_string())

    known = fitted.infer(key=jr.key(1))
    print(f"draws weighted to the posterior: effective size {known.effective_sample_size():.0f} of {draws}")
    years = np.arange(0.5, 14.1, 0.5)
    told = answers(fitted, known, times=years).quantile([0.025, 0.5, 0.975])["transition_probs"]
    alive = 1 - told[:, :, STAGES.index("none"), STAGES.index("dead")]
    time, observed = kaplan_meier(panel)
    for year in (1.0, 5.0, 10.0):
        high, middle, low = alive[:, np.flatnonzero(years == year)[0]]
        counted = observed[np.searchsorted(time, year, side="right") - 1]
        print(f"alive after {year:2g} years: {middle:.3f} ({low:.3f} to {high:.3f}); Kaplan-Meier {counted:.3f}")
    plot_intervals(table).savefig(output / "heart_rates.png", dpi=120)
    plot(output / "heart_survival.png", years, alive, time, observed)
    print(f"wrote {output / 'heart_rates.png'}; wrote {output / 'heart_survival.png'}")


def kaplan_meier(panel: PanelData) -> tuple[np.ndarray, np.ndarray]:
    """Times of deaths, and the share alive after each, whatever the stages."""
    last = np.flatnonzero(~np.append(panel.follows[1:], False))
    first = np.flatnonzero(~panel.follows)
    length, dead = panel.time[last] - panel.time[first], panel.state[last] == STAGES.index("dead")
    time, number = np.unique(length[dead], return_counts=True)
    at_risk = (length >= time[:, None]).sum(1)
    return np.append(0.0, time), np.append(1.0, np.cumprod(1 - number / at_risk))


def read() -> tuple[PanelData, str]:
    """The panel, and where it is from."""
    file = Path(os.environ.get("POSTERAX_DATA", "../shared/data")) / "mjp" / "msm_cav.csv"
    if file.is_file():
        frame = pd.read_csv(file)
        frame["stage"] = np.array(STAGES)[np.asarray(frame["state"]) - 1]
        subject, title = "PTNUM", "622 patients of Papworth Hospital"
    else:
        frame, title = simulated(), "simulated patients: there is no mjp/msm_cav.csv where POSTERAX_DATA points"
        subject = "patient"
    return read_panel(frame, time="years", state="stage", subject=subject, states=STAGES, entered=["dead"]), title


def simulated() -> pd.DataFrame:
    """Visits about every two years; the day of a death is known."""
    process = Process(jnp.array(FITTED), jnp.array([1.0, 0.0, 0.0, 0.0]))
    jumps = process.sample_jumps(12.0, 300, max_jumps=40, key=jr.key(0))
    visits = np.arange(0.0, 12.0, 1.9)
    seen, rows = np.asarray(jumps.at(visits)), []
    for patient in range(300):
        visited = zip(visits, seen[patient], strict=True)
        rows += [(patient, time, STAGES[stage]) for time, stage in visited if STAGES[stage] != "dead"]
        death = np.flatnonzero(np.asarray(jumps.states[patient]) == 3)
        if death.size and np.isfinite(jumps.times[patient, death[0]]):
            rows.append((patient, float(jumps.times[patient, death[0]]), "dead"))
    return pd.DataFrame(rows, columns=["patient", "years", "stage"])


def plot(path: Path, years: np.ndarray, alive: np.ndarray, time: np.ndarray, observed: np.ndarray) -> None:
    """Survival: by the fitted process, and counted."""
    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    high, middle, low = alive
    axes.step(time, observed, where="post", color="0.3", label="Kaplan-Meier")
    axes.plot(years, middle, color="C0", label="Markov jump process, 95 %")
    axes.fill_between(years, low, high, color="C0", alpha=0.2, lw=0)
    axes.set(xlabel="years since the transplant", ylabel="share alive", ylim=(0, 1))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    arguments = parser.parse_args()
    main(arguments.draws, arguments.output)
