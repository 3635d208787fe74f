"""One observation, many priors: posteriors by a trained network, beside the exact ones, and corrected.

python examples/14_prior_on_the_fly.py [--observation 0.8] [--draws 4000] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax_distribution_transformer import (
    LinearGaussian,
    MixtureMetaPrior,
    correct,
    gaussian_mixture,
    posterior_target,
    pretrained,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PRIORS = {
    "one mode": gaussian_mixture([1.0], [0.0], scale=[1.0]),
    "two modes": gaussian_mixture([0.5, 0.5], [-1.5, 1.5], scale=[0.4, 0.4]),
    "narrow, in the wrong place": gaussian_mixture([1.0], [-1.0], scale=[0.3]),
    "spike and slab": gaussian_mixture([0.6, 0.4], [0.0, 0.0], scale=[0.2, 2.0]),
    "three modes, unequal": gaussian_mixture([0.2, 0.5, 0.3], [-1.5, 0.2, 1.8], scale=[0.3, 0.3, 0.5]),
    "six components, as none in training": gaussian_mixture(
        np.full(6, 1 / 6), np.linspace(-2, 2, 6), scale=np.full(6, 0.25)
    ),
}


def log_likelihood(x, seen):
    return dist.Normal(x, 1.0).log_prob(seen)


def main(observation: float, num_draws: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    fitted, problem = pretrained("gaussian-mixture-1d"), LinearGaussian.of(MixtureMetaPrior(4))
    seen, grid = np.array([observation]), np.linspace(-4, 4, 801)
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.5), layout="constrained")
    print(f"{'prior':36} {'KL':>9} {'ESS':>7} {'k-hat':>6} {'log evidence':>13} {'exact':>8}")
    for axis, (name, prior) in zip(axes.ravel(), PRIORS.items(), strict=True):
        exact, found = problem.exact(prior, seen), fitted.infer(seen, prior=prior, check=False)
        density = {
            label: np.exp(np.asarray(law.log_prob(grid), float))
            for label, law in (("prior", prior), ("exact posterior", exact), ("network", found))
        }
        p, q = density["exact posterior"], density["network"]
        kl = np.trapezoid(np.where(p > 1e-12, p * np.log((p + 1e-300) / (q + 1e-300)), 0.0), grid)
        target = posterior_target(prior, log_likelihood, observation)
        draws = correct(fitted, seen, prior=prior, target=target, num_draws=num_draws, key=jr.key(0))
        evidence = np.log(np.trapezoid(density["prior"] * np.exp(log_likelihood(jnp.asarray(grid), observation)), grid))
        print(
            f"{name:36} {kl:9.5f} {draws.effective_sample_size():7.0f} {draws.pareto_k():6.2f}"
            f" {float(draws.log_evidence[0]):13.4f} {evidence:8.4f}"
        )
        axis.plot(grid, density["prior"], color="0.6", linestyle=":", label="prior")
        axis.plot(grid, p, color="0.2", linewidth=4, alpha=0.35, label="exact posterior")
        axis.plot(grid, q, color="C3", linewidth=1.2, label="network")
        axis.axvline(observation, color="C0", linewidth=0.8, label="observation")
        axis.set(title=f"{name}: KL {kl:.4f}", xlim=(-4, 4))
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(output / "prior_on_the_fly.png", dpi=110)
    print(f"wrote {output / 'prior_on_the_fly.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--observation", type=float, default=0.8)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.observation, given.draws, given.output)
