"""A distribution transformer for your own simulator: train, compare with the exact answer, look at its calibration.

python examples/15_train_your_own.py [--steps 3000] [--output examples-output]

Counts of a Poisson law of unknown rate, up to eight of them, and a gamma prior that may change from call to call.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax_distribution_transformer import DistributionTransformer, InferenceProblem, Rows, calibrate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# What a user writes: how priors are drawn, and how a latent makes data.


def draw_prior(key):
    shape, rate = jnp.exp(0.7 * jr.normal(key, (2,)))
    return dist.Gamma(1.0 + shape, rate)


def simulate(rate, *, key):
    key_counts, key_num = jr.split(key)
    counts = dist.Poisson(rate).sample(key_counts, (8, 1))
    return Rows(counts, jnp.arange(8) < jr.randint(key_num, (), 1, 9))


problem = InferenceProblem(draw_prior, simulate)


def main(steps: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    estimator = DistributionTransformer(depth=2, num_steps=steps)
    fitted = estimator.fit(problem, key=jr.key(0), checkpoint=output / "train_your_own")
    print(f"trained: {fitted.report['loss']:.3f} nats, {fitted.report['num_weights']} weights")

    counts = np.array([3.0, 5.0, 2.0, 4.0])[:, None]
    grid = np.linspace(0.05, 12, 600)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    for axis, (shape, rate) in zip(axes, ((2.0, 0.5), (8.0, 1.0), (1.5, 1.5)), strict=True):
        prior = dist.Gamma(shape, rate)
        exact, found = dist.Gamma(shape + counts.sum(), rate + len(counts)), fitted.infer(counts, prior=prior)
        p, q = (np.exp(np.asarray(law.log_prob(grid), float)) for law in (exact, found))
        kl = np.trapezoid(np.where(p > 1e-12, p * np.log((p + 1e-300) / (q + 1e-300)), 0.0), grid)
        print(f"Gamma({shape}, {rate}): KL(exact || inferred) {kl:.4f} nats")
        axis.plot(grid, np.exp(np.asarray(prior.log_prob(grid))), color="0.6", linestyle=":", label="prior")
        axis.plot(grid, p, color="0.2", linewidth=4, alpha=0.35, label="exact posterior")
        axis.plot(grid, q, color="C3", linewidth=1.2, label="network")
        axis.set(title=f"prior Gamma({shape}, {rate}): KL {kl:.4f}", xlabel="rate")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(output / "train_your_own.png", dpi=110)

    calibration = calibrate(fitted, problem, 2000, key=jr.key(1))
    print(calibration.words)
    print(calibration.coverage())
    calibration.plot(output / "train_your_own_calibration.png")
    print(f"wrote {output / 'train_your_own.png'}; wrote {output / 'train_your_own_calibration.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.steps, given.output)
