"""A network's guess weighed, resampled and moved to the exact posterior: one pipeline, each stage beside quadrature.

python examples/25_amortise_reweight_move.py [--draws 2000] [--repeats 8] [--output examples-output]

A position in the plane is seen by a sensor of bearings and by a rangefinder with outliers. The network has been trained
on mixtures of four normals, most with standard deviations of about 0.3; it is asked about other priors, too. Each
stage's draws are compared with quadrature, and with what importance sampling from the prior and NUTS alone make of the
same seconds.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.random as jr
import matplotlib
import numpy as np
from posterax import Draw, Draws, EssBelow, Infer, Move, Resample, Reweight, get, load, sample, save
from posterax_distribution_transformer import BearingRange, Defended, gaussian_mixture, posterior_target, pretrained
from posterax_particles import Importance

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SENSORS = BearingRange()
SEEN = {"bearing": np.array([np.sin(0.6), np.cos(0.6)]), "range": np.array(2.5)}


def prior_of(weights, means, variances):
    return gaussian_mixture(
        np.asarray(weights), np.asarray(means), covariance=np.asarray(variances)[:, None, None] * np.eye(2)
    )


PRIORS = {
    "four places": prior_of(
        [0.05, 0.6, 0.25, 0.1], [[1.4, 2.0], [0.5, 0.8], [2.4, 3.6], [-1.5, 0.5]], [0.03, 0.02, 0.04, 0.1]
    ),
    "wider than in training": prior_of(
        [0.25, 0.25, 0.25, 0.25], [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], [5.0, 5.0, 5.0, 5.0]
    ),
    "far from the data": prior_of(
        [0.25, 0.25, 0.25, 0.25], [[3.2, -0.8], [3.8, -0.8], [3.2, -0.2], [3.8, -0.2]], [0.4, 0.4, 0.4, 0.4]
    ),
}
SIDE = np.linspace(-8.0, 10.0, 641)
POINTS = np.stack(np.meshgrid(SIDE, SIDE), -1).reshape(-1, 2)
CELL = (SIDE[1] - SIDE[0]) ** 2
ANGLES = np.linspace(0, np.pi, 8, endpoint=False)
STAGES = ("Draw#1", "Reweight#1", "Resample#1", "Move#1")


class Exact(NamedTuple):
    """The posterior by quadrature: mass at each point, log evidence, projections in order with their distribution."""

    mass: np.ndarray
    log_evidence: float
    lines: list


def quadrature(prior) -> Exact:
    log_joint = np.asarray(_log_joint(prior, POINTS), float)
    top = log_joint.max()
    total = np.exp(log_joint - top).sum()
    mass = np.exp(log_joint - top) / total
    kept, lines = mass > 1e-12, []
    for angle in ANGLES:
        along = POINTS[kept] @ np.array([np.cos(angle), np.sin(angle)])
        order = np.argsort(along)
        lines.append((along[order], np.cumsum(mass[kept][order])))
    return Exact(mass, top + np.log(total * CELL), lines)


@jax.jit
def _log_joint(prior, points):
    return prior.log_prob(points) + SENSORS.log_likelihood(points, SEEN)


def log_likelihood(x, seen):
    return SENSORS.log_likelihood(x, seen)


def distance(draws: Draws, exact: Exact) -> float:
    """Sliced Wasserstein distance: the mean over directions of that between projections, in the units of position."""
    points, log_weights = draws["x"].reshape(-1, 2), draws.flat_log_weights()
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    found = []
    for angle, (places, cdf) in zip(ANGLES, exact.lines, strict=True):
        along = points @ np.array([np.cos(angle), np.sin(angle)])
        order = np.argsort(along)
        ours = np.append(0.0, np.cumsum(weights[order]))
        at = np.linspace(min(places[0], along.min()), max(places[-1], along.max()), 2000)
        gap = ours[np.searchsorted(along[order], at, side="right")] - np.interp(at, places, cdf, left=0.0, right=1.0)
        found.append(np.abs(gap).mean() * (at[-1] - at[0]))
    return float(np.mean(found))


def of_the_truth(exact: Exact, num: int, repeats: int) -> float:
    """That distance for independent draws of the exact posterior: no method can be expected to be nearer."""
    rng = np.random.default_rng(0)
    rows = (rng.choice(len(POINTS), num, p=exact.mass / exact.mass.sum()) for _ in range(repeats))
    return float(np.mean([distance(Draws({"x": POINTS[row][None]}, {}), exact) for row in rows]))


def followed(pipeline, exact: Exact, repeats: int) -> dict:
    """Distances, effective sizes, k-hat and evidence of each stage and key; median seconds; draws of the last key."""
    for _ in pipeline.follow(key=jr.key(99)):
        pass  # compiled
    told = {"distance": [], "ess": [], "k": [], "evidence": [], "seconds": []}
    for repeat in range(repeats):
        seconds, last = [], {}
        began = time.perf_counter()
        for name, value in pipeline.follow(key=jr.fold_in(jr.key(1), repeat)):
            seconds.append(time.perf_counter() - began)
            last[name] = value
            began = time.perf_counter()
        weighed = last["Reweight#1"]
        told["distance"].append([distance(last[name], exact) for name in STAGES])
        told["ess"].append(weighed.effective_sample_size())
        told["k"].append(weighed.pareto_k())
        told["evidence"].append(float(weighed.log_evidence[0]))
        told["seconds"].append(seconds)
    return {name: np.asarray(rows) for name, rows in told.items()} | {"last": last}


def importance(target, exact: Exact, seconds: float, repeats: int) -> dict:
    """Draws of the prior, weighted: as many as those seconds allow, at most half a million."""
    run = lambda num, key: sample(Importance(num), target, num_chains=1, key=key, progress=False)  # noqa: E731
    trial = 20_000
    num = int(np.clip(trial * seconds / timed(lambda key: run(trial, key)), 1000, 500_000))
    took = timed(lambda key: run(num, key))
    draws = [run(num, jr.fold_in(jr.key(2), repeat)) for repeat in range(repeats)]
    return {"num": num, "seconds": took, "distance": np.array([distance(one, exact) for one in draws]),
            "ess": np.mean([one.effective_sample_size() for one in draws])}  # fmt: skip


def nuts_alone(target, prior, exact: Exact, seconds: float, repeats: int) -> dict:
    """Four chains from draws of the prior: a hundred steps of warm-up, then as many as those seconds allow."""
    sampler = get("nuts")(num_warmup=100, max_tree_depth=6)

    def run(num, key):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so few steps; what they are worth is measured
            starts = {"x": prior.sample(key, (4,))}
            return sample(sampler, target, num_draws=num, num_chains=4, key=key, init=starts, progress=False)

    one, many = timed(lambda key: run(50, key)), timed(lambda key: run(1050, key))
    num = int(np.clip(50 + 1000 * (seconds - one) / max(many - one, 1e-3), 10, 20_000))
    took = timed(lambda key: run(num, key))
    draws = [run(num, jr.fold_in(jr.key(3), repeat)) for repeat in range(repeats)]
    return {"num": 4 * num, "seconds": took, "distance": np.array([distance(one, exact) for one in draws])}


def timed(call) -> float:
    """Seconds of a call, the best of three once it is compiled."""
    call(jr.key(0))
    found = []
    for number in range(3):
        began = time.perf_counter()
        call(jr.key(number))
        found.append(time.perf_counter() - began)
    return min(found)


def main(num_draws: int, repeats: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    fitted, nuts = pretrained("bearing-range"), get("nuts")(num_warmup=0, step_size=0.5, max_tree_depth=5)
    figure, axes = plt.subplots(3, 4, figsize=(13.5, 9), layout="constrained")
    print(f"{'sliced Wasserstein distance to the exact posterior':56}{'guess':>8}{'weighed':>9}{'resampled':>11}"
          f"{'moved':>8}{'ESS':>7}{'k-hat':>7}{'log evidence':>20}")  # fmt: skip
    for row, (name, prior) in zip(axes, PRIORS.items(), strict=True):
        exact, target = quadrature(prior), posterior_target(prior, log_likelihood, SEEN)
        floor = of_the_truth(exact, num_draws, repeats)
        told = {}
        for label, asked in (("network alone", fitted), ("one draw in ten from the prior", Defended(fitted))):
            pipeline = (
                Infer(asked, SEEN, prior)
                >> Draw(num_draws, variable="x")
                >> Reweight(target)
                >> Resample(when=EssBelow(0.75))
                >> Move(nuts, target, steps=5, whiten=True)
            )
            told[label] = followed(pipeline, exact, repeats)
            print(f"{name + ', ' + label:56}{in_words(told[label])}")
        seconds = np.median(told[label]["seconds"], axis=0)
        rivals = {
            "importance\nfrom the prior": importance(target, exact, seconds.sum(), repeats),
            "NUTS\nalone": nuts_alone(target, prior, exact, seconds.sum(), repeats),
        }
        print(f"    exact log evidence {exact.log_evidence:.3f}; distance of {num_draws} draws of the exact posterior "
              f"{floor:.4f}; KL of the network {divergence(fitted, prior, exact):.3f} nats, flagged: "
              f"{'yes' if fitted.outside(SEEN, prior=prior).anywhere else 'no'}")  # fmt: skip
        print("    seconds: " + ", ".join(f"{stage.split('#')[0]} {took:.3f}" for stage, took in
              zip(("Infer", *STAGES), seconds, strict=True)))  # fmt: skip
        for rival, found in rivals.items():
            ess = f", ESS {found['ess']:.0f}" if "ess" in found else ""
            print(f"    {' '.join(rival.split())}: {found['num']} draws in {found['seconds']:.2f} s{ess}, distance "
                  f"{found['distance'].mean():.4f} ± {found['distance'].std():.4f}")  # fmt: skip
        draw_row(row, name, prior, fitted, exact, told, rivals, floor)
    axes[0, 3].legend(frameon=False, fontsize=7, loc="upper left")
    figure.savefig(output / "amortise_reweight_move.png", dpi=110)

    print(f"\nThe last pipeline, as it prints:\n{pipeline}")
    save(output / "pipeline.posterax", pipeline)
    again = load(output / "pipeline.posterax", like=pipeline).run(key=jr.key(5))["x"].tobytes()
    print(f"saved, loaded and run: the same bytes: {again == pipeline.run(key=jr.key(5))['x'].tobytes()}")
    print(f"wrote {output / 'amortise_reweight_move.png'}")


def in_words(told: dict) -> str:
    steps = told["distance"].mean(axis=0)
    evidence = f"{told['evidence'].mean():.3f} ± {told['evidence'].std():.3f}"
    return (f"{steps[0]:8.4f}{steps[1]:9.4f}{steps[2]:11.4f}{steps[3]:8.4f}{told['ess'].mean():7.0f}"
            f"{told['k'].mean():7.2f}{evidence:>20}")  # fmt: skip


def divergence(fitted, prior, exact: Exact) -> float:
    """KL(exact posterior || what the network infers), in nats."""
    here = exact.mass > 1e-14
    inferred = np.asarray(fitted.infer(SEEN, prior=prior, check=False).log_prob(POINTS), float)[here]
    return float(exact.mass[here] @ (np.log(exact.mass[here] / CELL) - inferred))


def draw_row(row, name, prior, fitted, exact: Exact, told, rivals, floor) -> None:
    """Prior, network, weighed draws and moved draws over the exact posterior; distances of stages and rivals."""
    levels = regions(exact.mass)
    shape = (len(SIDE), len(SIDE))
    for axis in row[:3]:
        axis.contourf(SIDE, SIDE, exact.mass.reshape(shape), levels, colors=["0.88", "0.74", "0.56"])
    law = fitted.infer(SEEN, prior=prior, check=False)
    for density, colour, label in ((prior, "C0", "prior"), (law, "C3", "network")):
        mass = np.exp(np.asarray(density.log_prob(POINTS), float)) * CELL
        row[0].contour(SIDE, SIDE, mass.reshape(shape), regions(mass)[:3], colors=colour, linewidths=0.8)
        row[0].plot([], [], color=colour, linewidth=1, label=label)
    last = told["one draw in ten from the prior"]["last"]
    weighed, moved = last["Reweight#1"], last["Move#1"]
    for axis, draws, colour in ((row[1], weighed, "C1"), (row[2], moved, "C2")):
        weights = np.exp(draws.flat_log_weights())
        axis.scatter(*draws["x"][0].T, s=5 * weights / weights.mean(), color=colour, alpha=0.5, linewidths=0)
    middle, reach = exact.mass @ POINTS, 4 * np.sqrt((exact.mass @ (POINTS - exact.mass @ POINTS) ** 2).max())
    for axis in row[1:3]:
        axis.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    row[0].set(ylabel=name, xlim=(-3, 6), ylim=(-3, 6), title="prior, network, exact posterior (grey)")
    row[0].legend(frameon=False, fontsize=7, loc="lower right")
    row[1].set(title="draws, weighed")
    row[2].set(title="resampled where uneven, moved by NUTS")

    columns = ["guess", "weighed", "resampled", "moved", *rivals]
    for (label, each), colour, shift in zip(told.items(), ("C3", "C2"), (-0.15, 0.15), strict=True):
        steps = each["distance"]
        row[3].plot(np.arange(4) + shift, steps.mean(axis=0), color=colour, linewidth=1, label=label)
        row[3].plot(np.tile(np.arange(4) + shift, len(steps)), steps.ravel(), ".", color=colour, markersize=3)
    for place, found in enumerate(rivals.values(), start=4):
        row[3].plot(np.full(len(found["distance"]), place), found["distance"], ".", color="0.3", markersize=4)
    row[3].axhline(floor, color="0.6", linewidth=0.8, linestyle=":", label="draws of the truth")
    row[3].set(yscale="log", title="distance to the exact posterior", xlim=(-0.5, 5.5))
    row[3].set_xticks(range(6), columns, fontsize=6.5)
    for axis in row:
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)


def regions(mass: np.ndarray) -> list[float]:
    """Heights that bound the regions of highest density with 99, 90 and 50 % of the mass, and the top."""
    heights = np.sort(mass)[::-1]
    at = np.searchsorted(np.cumsum(heights) / heights.sum(), (0.99, 0.9, 0.5))
    return [*heights[at], heights[0] * 1.001]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.draws, given.repeats, given.output)
