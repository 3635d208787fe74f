"""A thousand independent fits, by a pool of processes or by Dask: do their intervals hold the truth?

python examples/30_thousand_fits.py [--fits 1000] [--workers 2] [--dask] [--output examples-output]

Patients who are well or ill are seen eight times at random. Each case of the study simulates a data set and fits both
rates; the share of intervals that hold the true rate is compared with what the intervals claim. The study keeps its
cases in the output folder: killed, it goes on where it stopped.
"""

import argparse
import contextlib
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax import Plan, study
from posterax_mjp import MJPLikelihood, PanelData, Process

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RATES = np.array([[0.0, 0.5], [1.5, 0.0]])  # a year
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
TIMES = np.cumsum(np.random.default_rng(0).uniform(0.1, 1.0, 8))


def one_fit(number, *, key):
    """Patients of one data set; log rates, their standard errors."""
    del number
    first, second = jr.split(key)
    states = Process(RATES, np.array([0.75, 0.25])).sample(TIMES, 40, key=first)
    fitted = MJPLikelihood(method="ml").fit(PanelData.from_paths(np.asarray(states), TIMES), key=second)
    table = fitted.table(0.95)
    low, high = (np.log(table.loc["rates", side].to_numpy()) for side in ("lower", "upper"))
    return {"estimate": (low + high) / 2, "error": (high - low) / (2 * 1.959964)}


def compiled(number, *, key):
    """The same question where the answer is known, for a Plan: a mean of forty normal numbers, sd known."""
    del number
    return jr.normal(key, (40,)).mean()


@contextlib.contextmanager
def executor(workers: int, dask: bool):
    """Anything that is a `concurrent.futures.Executor`."""
    if not dask:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


def covered(estimate: np.ndarray, error: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of intervals that hold the truth, by level."""
    from scipy.stats import norm

    z = np.abs(estimate - truth) / error
    return np.array([np.mean(z < norm.ppf(0.5 + level / 2)) for level in LEVELS])


def main(fits: int, workers: int, dask: bool, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with executor(workers, dask) as pool:
        found = study(one_fit, fits, key=jr.key(0), on=pool, checkpoint=output / f"fits-{fits}")
    seconds = time.perf_counter() - began
    print(f"{fits} fits by {workers} workers of {'Dask' if dask else 'a process pool'}: {seconds:.0f} s")
    shares = covered(found["estimate"], found["error"], np.log([0.5, 1.5]))
    began = time.perf_counter()
    means = study(compiled, 100 * fits, key=jr.key(1), on=Plan(), at_once=100)
    known = covered(means, np.full(len(means), 40**-0.5), np.zeros(1))
    print(f"{100 * fits:,} simulations of a mean, compiled: {time.perf_counter() - began:.1f} s")
    print(
        f"{'claimed':>8} {'rates':>8} {'a mean':>8}   (two standard errors of rates' 0.90: {(0.18 / fits) ** 0.5:.3f})"
    )
    for level, share, exact in zip(LEVELS, shares, known, strict=True):
        print(f"{level:8.2f} {share:8.3f} {exact:8.3f}")
    z = (found["estimate"] - np.log([0.5, 1.5])) / found["error"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    grid = np.linspace(-4, 4, 200)
    axes[0].hist(z.ravel(), 40, range=(-4, 4), density=True, color="0.8")
    axes[0].plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="C3")
    axes[0].set(title="errors of log rates over their standard errors", yticks=[])
    axes[1].axline((0, 0), slope=1, color="0.7", linewidth=0.8)
    axes[1].plot(LEVELS, shares, "o", color="C0", label=f"rates, {fits} fits")
    axes[1].plot(LEVELS, known, "x", color="C1", label="a mean, compiled")
    axes[1].set(title="intervals that hold the truth", xlabel="claimed", ylabel="found", xlim=(0.45, 1), ylim=(0.45, 1))
    axes[1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "thousand_fits.png", dpi=110)
    print(f"wrote {output / 'thousand_fits.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.fits, given.workers, given.dask, given.output)
