"""A target in the plane tracked by a network, beside a particle filter: bearings, and ranges with outliers.

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
from posterax_distribution_transformer import BearingRange, LinearDynamics, filter_mixture, moments, pretrained, split
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


def main(steps: int, series: int, particles: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    fitted = pretrained("bearing-range")
    start = split(dist.MultivariateNormal(SENSORS.centre, jnp.eye(2)), SENSORS.num_components)
    dynamics = LinearDynamics(MATRIX, NOISE, SHIFT)
    paths, data = jax.vmap(lambda key: SENSORS.track(steps, key=key))(jr.split(jr.key(3), series))

    @jax.jit
    def by_network(data):
        found = filter_mixture(fitted, data, initial=start, dynamics=dynamics)
        return found.parts, found.outside, moments(found.law())

    @jax.jit
    def by_particles(data, key):
        found = run_filter(ParticleFilter(particles), Track(data), key=key)
        return found.stats["states_mean"], found.stats["states_sd"]

    clock = {}

    def timed(name, call):
        jax.block_until_ready(call())
        began = time.perf_counter()
        result = jax.block_until_ready(call())
        clock[name] = (time.perf_counter() - began) / (steps * series)
        return result

    parts, outside, (mean, covariance) = timed("network", lambda: jax.vmap(by_network)(data))
    keys = jr.split(jr.key(4), series)
    pf_mean, pf_sd = timed("particles", lambda: jax.lax.map(lambda one: by_particles(*one), (data, keys)))

    error = {
        "network": np.linalg.norm(np.asarray(mean) - paths, axis=-1),
        f"{particles} particles": np.linalg.norm(np.asarray(pf_mean) - paths, axis=-1),
    }
    density = jax.vmap(jax.vmap(lambda one, x: one.log_prob(x)))(parts, paths)
    by_normal = dist.Normal(pf_mean, pf_sd).log_prob(paths).sum(-1)
    print(f"{'':18} {'RMSE':>7} {'median error':>13} {'NLL a step':>11} {'median':>8} {'us a step':>10}")
    for (name, off), nll, seconds in zip(error.items(), (-density, -by_normal), clock.values(), strict=True):
        nll = np.asarray(nll, float)
        print(
            f"{name:18} {np.sqrt((off**2).mean()):7.3f} {np.median(off):13.3f} {nll.mean():11.3f} {np.median(nll):8.3f}"
            f" {1e6 * seconds:10.0f}"
        )
    print(f"outside of the training's range: {float(np.mean(outside)):.3f} of the steps")
    print("(particles are scored by a normal with their means and standard deviations)")

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
    axes[0].plot(*paths[0].T, color="0.3", linewidth=1, label="truth")
    axes[0].plot(*np.asarray(mean[0]).T, color="C3", linewidth=1, label="network")
    axes[0].plot(*np.asarray(pf_mean[0]).T, color="C0", linewidth=1, linestyle="--", label="particles")
    angle = np.linspace(0, 2 * np.pi, 60)
    for t in range(0, steps, max(1, steps // 12)):
        root = np.linalg.cholesky(covariance[0, t])
        ring = np.asarray(mean[0, t]) + 2 * np.stack([np.cos(angle), np.sin(angle)], -1) @ root.T
        axes[0].plot(*ring.T, color="C3", linewidth=0.5, alpha=0.6)
    axes[0].plot(0, 0, "k^", markersize=6)
    axes[0].set(title="one path, ellipses of two standard deviations", aspect="equal")
    axes[0].legend(frameon=False, fontsize=8)
    for color, (name, off) in zip(("C3", "C0"), error.items(), strict=True):
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
