"""A target in the plane tracked by a network, by particles and by Kalman filters: bearings, ranges with outliers.

python examples/16_tracking.py [--steps 60] [--series 20] [--particles 5000] [--output examples-output]
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax_distribution_transformer import (
    BearingRange,
    LinearDynamics,
    SigmaPointUpdate,
    filter_mixture,
    moments,
    pretrained,
    split,
)
from posterax_particles import FeynmanKac, ParticleFilter, run_filter

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SENSORS = BearingRange()
MATRIX, SHIFT, NOISE = SENSORS.dynamics()


class Track(FeynmanKac):
    """Moves by the dynamics, weighed by both sensors."""

    data: dict[str, jax.Array]

    @property
    def num_steps(self):
        return len(self.data["range"])

    def start(self, *, key):
        return SENSORS.centre + jr.normal(key, (2,))

    def log_start(self, x):
        return self.log_potential(0, x, x)

    def move(self, t, x, *, key):
        return MATRIX @ x + SHIFT + SENSORS.step_sd * jr.normal(key, (2,))

    def log_potential(self, t, before, x):
        return SENSORS.log_likelihood(x, {name: rows[t] for name, rows in self.data.items()})


def kalman(parts, seen):
    """The unscented update: of one normal, or of each of several."""
    update = SigmaPointUpdate(lambda x: SENSORS.expected(x)[0], lambda x: SENSORS.expected(x)[1])
    return update(parts, jnp.append(seen["bearing"], seen["range"]))


def main(steps: int, series: int, particles: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    fitted = pretrained("bearing-range")
    start = dist.MultivariateNormal(SENSORS.centre, jnp.eye(2))
    dynamics = LinearDynamics(MATRIX, NOISE, SHIFT)
    paths, data = jax.vmap(lambda key: SENSORS.track(steps, key=key))(jr.split(jr.key(3), series))

    def by_mixture(update, start):
        """Means, log densities of the truth, covariances, and what was out of range."""

        def one(data, path):
            found = filter_mixture(update, data, initial=start, dynamics=dynamics)
            mean, covariance = moments(found.law())
            return mean, jax.vmap(lambda parts, x: parts.log_prob(x))(found.parts, path), covariance, found.outside

        run = jax.jit(jax.vmap(one))
        return lambda: run(data, paths)

    def by_particles():
        @jax.jit
        def one(data, path, key):
            stats = run_filter(ParticleFilter(particles), Track(data), key=key).stats
            mean, sd = stats["states_mean"], stats["states_sd"]
            return mean, dist.Normal(mean, sd).log_prob(path).sum(-1)

        return jax.lax.map(lambda given: one(*given), (data, paths, jr.split(jr.key(4), series)))

    split_start = split(start, SENSORS.num_components)
    found, clock = {}, {}
    for name, call in {
        "network": by_mixture(fitted, split_start),
        f"{particles} particles": by_particles,
        "Kalman, unscented": by_mixture(kalman, start),
        "four of them": by_mixture(kalman, split_start),
    }.items():
        jax.block_until_ready(call())
        began = time.perf_counter()
        found[name] = jax.block_until_ready(call())
        clock[name] = (time.perf_counter() - began) / (steps * series)

    error = {name: np.linalg.norm(np.asarray(result[0]) - paths, axis=-1) for name, result in found.items()}
    head = ("RMSE", "median error", "NLL a step", "first third", "last third", "us a step")
    print(f"{'':18}" + "".join(f"{word:>13}" for word in head))
    for name, off in error.items():
        nll = -np.asarray(found[name][1], float)
        first, *_, last = np.array_split(nll, 3, axis=1)
        row = (np.sqrt((off**2).mean()), np.median(off), nll.mean(), first.mean(), last.mean())
        print(f"{name:18}" + "".join(f"{figure:13.3f}" for figure in row) + f"{1e6 * clock[name]:13.0f}")
    mean, _, covariance, outside = found["network"]
    print(f"outside of the training's range: {float(np.mean(outside)):.3f} of the steps")
    print("(NLL: of the truth under the filter's law; particles as a normal with their means and standard deviations)")

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
    axes[0].plot(*paths[0].T, color="0.3", linewidth=1, label="truth")
    axes[0].plot(*np.asarray(mean[0]).T, color="C3", linewidth=1, label="network")
    particle_mean = np.asarray(found[f"{particles} particles"][0][0])
    axes[0].plot(*particle_mean.T, color="C0", linewidth=1, linestyle="--", label="particles")
    angle = np.linspace(0, 2 * np.pi, 60)
    for t in range(0, steps, max(1, steps // 12)):
        root = np.linalg.cholesky(covariance[0, t])
        ring = np.asarray(mean[0, t]) + 2 * np.stack([np.cos(angle), np.sin(angle)], -1) @ root.T
        axes[0].plot(*ring.T, color="C3", linewidth=0.5, alpha=0.6)
    axes[0].plot(0, 0, "k^", markersize=6)
    axes[0].set(title="one path, ellipses of two standard deviations", aspect="equal")
    axes[0].legend(frameon=False, fontsize=8)
    for color, (name, off) in zip(("C3", "C0", "C2"), error.items(), strict=False):
        axes[1].plot(np.median(off, axis=0), color=color, label=name)
    axes[1].set(xlabel="step", ylabel="median distance from the truth", ylim=(0, None))
    axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "tracking.png", dpi=110)
    print(f"wrote {output / 'tracking.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--particles", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.steps, given.series, given.particles, given.output)
