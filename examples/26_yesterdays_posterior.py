"""Yesterday's posterior as today's prior, by a network's mixtures and by particles, beside the exact one of each day.

python examples/26_yesterdays_posterior.py [--days 12] [--places 6] [--draws 2000] [--output examples-output]

Something that stands still in the plane is seen once a day, by a sensor of bearings and by a rangefinder with outliers.
A network's posterior, a mixture of four normals, is its prior of the next day: what it gets wrong stays wrong. Weighed
by the likelihood of all days its draws are exact in the limit of many, and a mixture fitted to them mends the prior of
the next day. Particles (weighed, resampled, moved towards the posterior of all days) need no network.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax import Draw, EssBelow, Infer, Move, Pipeline, Resample, Reweight, get
from posterax_distribution_transformer import (
    BearingRange,
    Components,
    Defended,
    components_of,
    mixture_of,
    posterior_target,
    pretrained,
    split,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SENSORS = BearingRange()
PRIOR = split(dist.MultivariateNormal(jnp.array([1.5, 1.5]), jnp.eye(2)), SENSORS.num_components)
SIDE = 241
ANGLES = np.linspace(0, np.pi, 6, endpoint=False)
METHODS = {
    "network": ("C3", "network, day after day"),
    "weighed": ("C1", "the same, weighed by all days"),
    "mended": ("C4", "network, mended every day"),
    "particles": ("C0", "particles, moved by NUTS"),
    "prior": ("0.5", "draws of the first prior, weighed"),
}
WEIGHTED = [name for name in METHODS if name != "network"]


def log_likelihood(x, seen, counted):
    """Of the days that count: all of them are handed over, so that no new day compiles anew."""
    return counted @ jax.vmap(lambda day: SENSORS.log_likelihood(x, day))(seen)


class Exact(NamedTuple):
    """The posterior of a day by quadrature in a box around it."""

    points: np.ndarray
    mass: np.ndarray
    cell: float
    log_evidence: float

    @property
    def sd(self) -> float:
        """The root mean square distance from the mean, over the root of two."""
        mean = self.mass @ self.points
        return float(np.sqrt(self.mass @ ((self.points - mean) ** 2).sum(-1) / 2))


@jax.jit
def _log_joint(points, seen, counted):
    return PRIOR.log_prob(points) + jax.vmap(lambda x: log_likelihood(x, seen, counted))(points)


def quadrature(seen, counted, low=(-4.0, -4.0), high=(7.0, 7.0)) -> Exact:
    """On a coarse grid first, then on one of the box outside of which there is less than a millionth."""
    for last in (False, True):
        axes = [np.linspace(a, b, SIDE) for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
        cell = np.prod([axis[1] - axis[0] for axis in axes])
        log_joint = np.asarray(_log_joint(points, seen, counted), float)
        total = np.exp(log_joint - log_joint.max()).sum()
        mass = np.exp(log_joint - log_joint.max()) / total
        if not last:
            step = np.array([axis[1] - axis[0] for axis in axes])
            inside = points[mass > 1e-9]
            low, high = inside.min(axis=0) - step, inside.max(axis=0) + step
    return Exact(points, mass, float(cell), float(log_joint.max() + np.log(total * cell)))


def distance(points, weights, exact: Exact) -> float:
    """Sliced Wasserstein distance to the exact posterior, in its standard deviations."""
    found = []
    for angle in ANGLES:
        way = np.array([np.cos(angle), np.sin(angle)])
        one, two = points @ way, exact.points @ way
        at = np.linspace(min(one.min(), two.min()), max(one.max(), two.max()), 1500)
        gap = distribution(one, weights, at) - distribution(two, exact.mass, at)
        found.append(np.abs(gap).mean() * (at[-1] - at[0]))
    return float(np.mean(found)) / exact.sd


def distribution(places, weights, at) -> np.ndarray:
    order = np.argsort(places)
    return np.append(0.0, np.cumsum(weights[order]))[np.searchsorted(places[order], at, side="right")] / weights.sum()


def divergence(law, exact: Exact) -> float:
    """KL(exact || law), in nats."""
    log_prob = np.asarray(_log_prob(law, exact.points), float)
    kept = exact.mass > 1e-14
    return float(exact.mass[kept] @ (np.log(exact.mass[kept] / exact.cell) - log_prob[kept]))


@jax.jit
def _log_prob(law, points):
    return law.log_prob(points)


def normalised(draws) -> np.ndarray:
    log_weights = draws.flat_log_weights()
    return np.exp(log_weights - np.logaddexp.reduce(log_weights))


@jax.jit
def refitted(law, points, weights):
    """The mixture of as many normals nearest to weighted draws, by twenty steps of EM from `law`."""

    def step(_, parts):
        each = dist.MultivariateNormal(parts.mean, scale_tril=parts.scale_tril).log_prob(points[:, None])
        share = weights[:, None] * jax.nn.softmax(parts.log_weights + each, axis=-1)
        total = share.sum(0) + 1e-6
        mean = share.T @ points / total[:, None]
        off = points[:, None] - mean
        covariance = jnp.einsum("nk,nki,nkj->kij", share, off, off) / total[:, None, None]
        floor = 1e-4 * jnp.trace(jnp.cov(points.T, aweights=weights)) * jnp.eye(2)
        return Components(jnp.log(total / total.sum()), mean, jnp.linalg.cholesky(covariance + floor))

    return mixture_of(jax.lax.fori_loop(0, 20, step, components_of(law)))


def lived(place: int, days: int, num: int, fitted, nuts) -> tuple[dict, list]:
    """What each method says on each day at one place: figures by name, `(days,)` or `(days, 4)`; things to draw."""
    one, two, key = jr.split(jr.fold_in(jr.key(0), place), 3)
    truth = PRIOR.sample(one)
    seen = jax.vmap(lambda k: SENSORS.simulate(truth, key=k))(jr.split(two, days))
    draw = Draw(num // 4, 4, variable="x")  # four populations: evidence with its spread
    start = Pipeline((draw,)).run(PRIOR, key=key)
    law, mended, cloud = PRIOR, PRIOR, start
    figures, shown = {}, []

    def note(name, value):
        figures.setdefault(name, []).append(value)

    for day in range(days):
        today, so_far = jax.tree.map(lambda rows: rows[day], seen), (np.arange(days) <= day).astype(np.float32)  # noqa: B023
        exact, target = quadrature(seen, so_far), posterior_target(PRIOR, log_likelihood, seen, so_far)
        day_key, clock = jr.fold_in(key, day), [time.perf_counter()]
        note("outside", bool(fitted.outside(today, prior=law).anywhere))
        law = jax.block_until_ready(fitted.infer(today, prior=law, check=False))
        clock.append(time.perf_counter())
        found = {"weighed": (draw >> Reweight(target)).run(law, key=day_key)}
        clock.append(time.perf_counter())
        ask = Infer(Defended(fitted), today, mended) >> draw >> Reweight(target)
        found["mended"] = ask.run(key=day_key)
        asked = fitted.infer(today, prior=mended, check=False)
        mended = refitted(asked, found["mended"]["x"].reshape(-1, 2), normalised(found["mended"]).astype(np.float32))
        clock.append(time.perf_counter())
        step = Reweight(target) >> Resample(when=EssBelow(0.5)) >> Move(nuts, target, steps=3, whiten=True)
        stages = dict(step.follow(cloud, key=day_key))
        cloud = found["particles"] = stages["Move#1"]
        clock.append(time.perf_counter())
        found["prior"] = Pipeline((Reweight(target),)).run(start, key=day_key)

        points = np.asarray(law.sample(day_key, (num,)))
        note("distance network", distance(points, np.ones(num), exact))
        note("kl network", divergence(law, exact))
        note("kl mended", divergence(mended, exact))
        rows = np.random.default_rng(day).choice(len(exact.points), num, p=exact.mass)
        note("floor", distance(exact.points[rows], np.ones(num), exact))
        for name, draws in found.items():
            note(f"distance {name}", distance(draws["x"].reshape(-1, 2), normalised(draws), exact))
            weighed = stages["Reweight#1"] if name == "particles" else draws
            note(f"ess {name}", weighed.effective_sample_size() / num)
            note(f"evidence {name}", np.asarray(draws.log_evidence, float) - exact.log_evidence)
        for name, seconds in zip(("network", "weighed", "mended", "particles"), np.diff(clock), strict=True):
            note(f"seconds {name}", seconds)
        shown.append((exact, law, mended, cloud))
    return {name: np.array(values) for name, values in figures.items()}, shown


def main(days: int, places: int, num: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    fitted, nuts = pretrained("bearing-range"), get("nuts")(num_warmup=0, step_size=0.5, max_tree_depth=5)
    told, pictures = zip(*(lived(place, days, num, fitted, nuts) for place in range(places)), strict=True)
    figures = {name: np.stack([one[name] for one in told]) for name in told[0]}
    middle = {name: np.median(values, axis=0) for name, values in figures.items() if not name.startswith("evidence")}
    print("medians over places: sliced Wasserstein distance in sd of the exact posterior, and that of its own draws")
    table([*METHODS, "exact"], [middle[f"distance {name}"] for name in METHODS] + [middle["floor"]])
    print("KL(exact || mixture) in nats; share flagged; effective draws as a share, before resampling")
    table(["KL network", "KL mended", "flagged", *WEIGHTED],
          [middle["kl network"], middle["kl mended"], figures["outside"].mean(axis=0),
           *(middle[f"ess {name}"] for name in WEIGHTED)])  # fmt: skip
    for name in WEIGHTED:
        error = np.sqrt((figures[f"evidence {name}"] ** 2).mean(axis=(0, 2)))
        print(f"{METHODS[name][1]:34} root mean square error of the log evidence, by a quarter of the draws: "
              f"{error[0]:.3f} on the first day, {error[-1]:.3f} on the last")  # fmt: skip
    seconds = {
        name: np.median(figures[f"seconds {name}"][:, 1:]) for name in ("network", "weighed", "mended", "particles")
    }
    print("seconds a day: " + ", ".join(f"{name} {took:.3f}" for name, took in seconds.items()))
    plot(output / "yesterdays_posterior.png", figures, pictures[0], days)
    print(f"wrote {output / 'yesterdays_posterior.png'}")


def table(heads: list[str], columns: list) -> None:
    """A line a day."""
    print("day" + "".join(f"{head:>11}" for head in heads))
    for day, row in enumerate(zip(*columns, strict=True), start=1):
        print(f"{day:3}" + "".join(f"{value:11.3f}" for value in row))


def plot(path: Path, figures: dict, days_shown: list, days: int) -> None:
    """Four days at one place; distances, effective sizes and evidence over the days of all places."""
    figure = plt.figure(figsize=(13, 7), layout="constrained")
    grid = figure.add_gridspec(2, 12)
    for column, day in enumerate(np.unique(np.linspace(0, days - 1, 4).round().astype(int))):
        axis = figure.add_subplot(grid[0, 3 * column : 3 * column + 3])
        exact, law, mended, cloud = days_shown[day]
        shape = (SIDE, SIDE)
        across, up = exact.points[:, 0].reshape(shape), exact.points[:, 1].reshape(shape)
        axis.contourf(across, up, exact.mass.reshape(shape), regions(exact.mass), colors=["0.88", "0.74", "0.56"])
        axis.scatter(*cloud["x"].reshape(-1, 2).T[:, ::4], s=4, color="C0", alpha=0.5, linewidths=0)
        middle = exact.mass @ exact.points
        reach = 4.5 * exact.sd
        box = np.stack(np.meshgrid(*(np.linspace(m - reach, m + reach, 150) for m in middle)), -1)
        for density, colour in ((law, "C3"), (mended, "C4")):
            mass = np.exp(np.asarray(_log_prob(density, box.reshape(-1, 2)), float))
            axis.contour(*np.moveaxis(box, -1, 0), mass.reshape(150, 150), regions(mass)[:3], colors=colour,
                         linewidths=0.9)  # fmt: skip
        axis.set(xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]),
                 title=f"day {day + 1}")  # fmt: skip
        axis.spines[["top", "right"]].set_visible(False)
    at = np.arange(1, days + 1)
    panels = [figure.add_subplot(grid[1, 4 * i : 4 * i + 4]) for i in range(3)]
    for name, (colour, label) in METHODS.items():
        panels[0].plot(
            at, np.median(figures[f"distance {name}"], axis=0), "o-", color=colour, markersize=3, label=label
        )
        panels[0].plot(at, figures[f"distance {name}"].T, color=colour, linewidth=0.4, alpha=0.5)
        if name in WEIGHTED:
            panels[1].plot(at, np.median(figures[f"ess {name}"], axis=0), "o-", color=colour, markersize=3)
            panels[1].plot(at, figures[f"ess {name}"].T, color=colour, linewidth=0.4, alpha=0.5)
            error = np.sqrt((figures[f"evidence {name}"] ** 2).mean(axis=(0, 2)))
            panels[2].plot(at, error, "o-", color=colour, markersize=3)
    panels[0].plot(at, np.median(figures["floor"], axis=0), ":", color="0.4", linewidth=1, label="draws of the truth")
    panels[0].set(title="distance to the exact posterior, in its sd", yscale="log", ylim=(8e-3, 60))
    panels[1].set(title="effective draws, as a share", yscale="log")
    panels[2].set(title="error of the log evidence, in nats", yscale="log")
    panels[0].legend(frameon=False, fontsize=7)
    for axis in panels:
        axis.set(xlabel="day", xticks=at[:: max(1, days // 6)])
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def regions(mass: np.ndarray) -> list[float]:
    """Heights that bound the regions of highest density with 99, 90 and 50 % of the mass, and the top."""
    heights = np.sort(mass)[::-1]
    at = np.searchsorted(np.cumsum(heights) / heights.sum(), (0.99, 0.9, 0.5))
    return [*heights[at], heights[0] * 1.001]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=12)
    parser.add_argument("--places", type=int, default=6)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.days, given.places, given.draws, given.output)
