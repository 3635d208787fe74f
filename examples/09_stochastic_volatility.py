"""Stochastic volatility: parameters and hidden volatility by three samplers on one target.

python examples/09_stochastic_volatility.py [--days 300] [--draws 1000] [--output examples-output]
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from posterax import EssBelow, get, sample
from posterax_particles import ParticleFilter, ParticleGibbs, ParticleMarginal, StateSpaceModel, state_space_target

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class StochasticVolatility(StateSpaceModel):
    """Log variance of daily returns, an autoregression: Taylor (1982)."""

    mean: Array
    persistence: Array
    sd: Array

    def initial(self):
        return dist.Normal(self.mean, self.sd / jnp.sqrt(1 - self.persistence**2))

    def transition(self, t, x):
        return dist.Normal(self.mean + self.persistence * (x - self.mean), self.sd)

    def emission(self, t, x):
        return dist.Normal(0.0, jnp.exp(x / 2))


def model():
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    persistence = numpyro.sample("persistence", dist.Beta(20.0, 1.5))
    sd = numpyro.sample("sd", dist.HalfNormal(0.5))
    return StochasticVolatility(mean, persistence, sd)


TRUTH = {"mean": -0.5, "persistence": 0.95, "sd": 0.3}


def main(days: int, draws: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    states, returns = StochasticVolatility(*map(jnp.asarray, TRUTH.values())).simulate(num_steps=days, key=jr.key(5))
    target = state_space_target(model, returns)

    inner = ParticleFilter(num_particles=max(100, days), when=EssBelow(0.5), paths=True, moments=False)
    samplers = {
        "particle Gibbs": ParticleGibbs(num_particles=25, num_warmup=draws // 2),
        "particle marginal": ParticleMarginal(filter=inner, num_warmup=draws // 2),
        "NUTS": get("nuts")(num_warmup=draws // 2),
    }
    results = {}
    for name, sampler in samplers.items():
        began = time.perf_counter()
        results[name] = sample(sampler, target, num_draws=draws, num_chains=2, key=jr.key(0), progress=False)
        table = results[name].summary().loc[list(TRUTH), ["mean", "sd", "mcse_mean", "ess_bulk", "r_hat"]]
        print(f"{name}, {time.perf_counter() - began:.0f} s with compilation\n{table.round(3)}\n")

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(2, 1), layout="constrained")
    day = np.arange(days)
    for colour, (name, found) in zip(("C0", "C1", "C2"), results.items(), strict=True):
        volatility = np.exp(found["states"].reshape(-1, days) / 2)
        low, high = np.quantile(volatility, [0.05, 0.95], axis=0)
        left.fill_between(day, low, high, alpha=0.2, color=colour, linewidth=0)
        left.plot(day, volatility.mean(axis=0), color=colour, linewidth=1, label=name)
        right.hist(found["sd"].ravel(), 40, density=True, histtype="step", color=colour, label=name)
    left.plot(day, np.exp(states / 2), color="k", linewidth=0.8, label="truth")
    left.plot(day, np.abs(returns), "o", color="0.7", markersize=2, label="|return|")
    left.set(xlabel="day", ylabel="volatility: mean and 90 %")
    right.axvline(TRUTH["sd"], color="k", linewidth=0.8)
    right.set(xlabel="sd of the log variance's steps", yticks=[])
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "stochastic_volatility.png", dpi=110)
    print(f"wrote {output / 'stochastic_volatility.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
