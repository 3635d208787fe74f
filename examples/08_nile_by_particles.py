"""The Nile's level by particle filters beside Kalman's exact answer: filtering, smoothing, forecasts, annealing.

python examples/08_nile_by_particles.py [--particles 2000] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from posterax import EssBelow, sample
from posterax_models import LinearGaussianStateSpace, nile
from posterax_particles import (
    Bootstrap,
    EntropicParticleFilter,
    LookAhead,
    ParticleFilter,
    StateSpaceModel,
    forecast,
    run_filter,
    smooth,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OBS_SD, LEVEL_SD = 122.9, 38.3  # maximum likelihood: Durbin and Koopman (2012), section 2.10
AHEAD = 10


class LocalLevel(StateSpaceModel):
    obs_sd: Array
    level_sd: Array

    def initial(self):
        return dist.Normal(1000.0, jnp.asarray(500.0))

    def transition(self, t, x):
        return dist.Normal(x, self.level_sd)

    def emission(self, t, x):
        return dist.Normal(x, self.obs_sd)


def main(particles: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    flow = jnp.asarray(nile().observed, float).at[40:50].set(jnp.nan)  # ten years are hidden: NaN is missing
    level = LocalLevel(jnp.asarray(OBS_SD), jnp.asarray(LEVEL_SD))
    model = Bootstrap(level, flow)
    one = jnp.ones((1, 1))
    kalman = LinearGaussianStateSpace(jnp.full(1, 1000.0), 500.0**2 * one, one, LEVEL_SD**2 * one, one, OBS_SD**2 * one)
    exact = kalman.filter(flow[:, None])
    print(f"log likelihood by Kalman's filter: {float(exact.log_likelihood):.3f}")

    # The same model by filters of equal size: what each costs, and how well it knows the likelihood.
    filters = {
        "resampling always": ParticleFilter(particles),
        "resampling below half": ParticleFilter(particles, when=EssBelow(0.5)),
        "with one look-ahead": ParticleFilter(particles // 2, look_ahead=LookAhead(1)),
        "annealed, residual": EntropicParticleFilter(particles, correction="residual"),
        "annealed, as published": EntropicParticleFilter(particles),
    }
    errors = {}
    print(f"{'':26}{'moves':>8}{'sd of log evidence':>20}{'worst error of the level':>26}")
    for name, sampler in filters.items():
        draws = sample(sampler, model, num_chains=20, key=jr.key(0), progress=False)
        moves = int(draws.stats["moves"].sum(axis=1)[0])
        evidence = "refused" if draws.log_evidence is None else f"{np.std(draws.log_evidence, ddof=1):.3f}"
        errors[name] = draws.stats["states_mean"].mean(axis=0) - np.asarray(exact.mean)[:, 0]
        print(f"{name:26}{moves:8d}{evidence:>20}{np.abs(errors[name]).max():26.2f}")

    found = run_filter(ParticleFilter(particles, when=EssBelow(0.5), paths=True), model, key=jr.key(1))
    paths = {method: smooth(found, model, 500, key=jr.key(2), method=method) for method in ("backward", "genealogy")}
    for method, drawn in paths.items():
        print(f"{method}: {len(np.unique(drawn[:, 0]))} different levels in the first year among 500 paths")
    _, future = forecast(found, level, steps=AHEAD, num=4000, key=jr.key(3))
    truth = kalman.forecast(flow[:, None], steps=AHEAD)
    print(f"forecast of the last year: {future[:, -1].mean():.1f} ± {future[:, -1].std():.1f}, exact "
          f"{float(truth.observed_mean[-1, 0]):.1f} ± {float(truth.observed_cov[-1, 0, 0]) ** 0.5:.1f}")  # fmt: skip

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    years = 1871 + np.arange(len(flow) + AHEAD)
    now, later = years[: len(flow)], years[len(flow) :]
    smoothed = kalman.smooth(flow[:, None])
    mean, sd = np.asarray(smoothed.mean)[:, 0], np.sqrt(np.asarray(smoothed.cov)[:, 0, 0])
    left.fill_between(now, *np.quantile(paths["backward"], [0.05, 0.95], axis=0), alpha=0.3, linewidth=0,
                      label="level by backward simulation, 90 %")  # fmt: skip
    left.plot(now, mean - 1.645 * sd, "k:", now, mean + 1.645 * sd, "k:", linewidth=1)
    left.plot(now, mean, "k--", linewidth=1, label="level by Kalman's smoother")
    left.fill_between(later, *np.quantile(future, [0.05, 0.95], axis=0), alpha=0.2, color="C2", linewidth=0,
                      label="forecast of the flow, 90 %")  # fmt: skip
    left.plot(now, flow, "o", color="0.5", markersize=3, label="flow")
    left.set(xlabel="year", ylabel="10⁸ m³")
    left.legend(frameon=False, fontsize=8, loc="upper right")
    for name, error in errors.items():
        right.plot(now, error, linewidth=1.2, label=name)
    right.set(xlabel="year", ylabel="10⁸ m³", title="level by the filter, mean of 20 runs, less the exact one")
    right.title.set_fontsize(9)
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "nile_by_particles.png", dpi=110)
    print(f"wrote {output / 'nile_by_particles.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
