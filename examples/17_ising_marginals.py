"""All marginals of an Ising lattice at the critical coupling, learned from its energy, beside the exact ones.

python examples/17_ising_marginals.py [--coupling 0.44] [--field 0] [--steps 2000] [--output examples-output]
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from posterax_marginalization import Energy, Lattice, MarginalizationModel
from posterax_models import IsingLattice, SubsetMarginals, assignments

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDE, SIZE = 4, 16
QUERIES = 20_000


def main(coupling: float, field: float, steps: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    law = IsingLattice(SIDE, SIDE, coupling, field)
    states = jnp.asarray(assignments((2,) * SIZE))
    exact = SubsetMarginals.of(np.asarray(law.log_weight(states)).reshape((2,) * SIZE))  # 43 million marginals

    model = MarginalizationModel(Lattice(SIDE, SIDE, periodic=True), num_steps=steps, learning_rate=4e-3)
    fitted = model.fit(Energy(law.log_weight, (2,) * SIZE), key=jr.key(0), progress=False)
    print(f"trained {steps} steps in {time.perf_counter() - began:.0f} s, tables of exact values included")

    x = np.asarray(law.sample(QUERIES, key=jr.key(1)))
    rng = np.random.default_rng(0)
    observed = rng.uniform(size=x.shape).argsort(-1) < rng.integers(0, SIZE + 1, (QUERIES, 1))
    told, true = fitted.log_marginal(x, observed, check=False), np.asarray(exact(x, observed))
    off, sizes = np.abs(told - true), observed.sum(-1)
    print(
        f"{QUERIES:,} marginals, one pass each: error {off.mean():.3f} nats on average, 95 % below "
        f"{np.quantile(off, 0.95):.3f}, at most {off.max():.2f}"
    )
    z = fitted.log_partition(4000, key=jr.key(2))
    print(f"log Z {law.log_partition():.4f}: learned {z.learned:.4f}, lower bound {z.lower_bound:.4f}")
    print(f"importance {z.importance:.4f} +- {z.standard_error:.4f}, ESS {z.ess:.0f} of 4,000, k-hat {z.k_hat:.2f}")
    draws = fitted.sample(4000, key=jr.key(3))
    magnetisation = 2 * draws.mean(-1) - 1
    print(f"positive magnetisation: {np.mean(magnetisation > 0) + 0.5 * np.mean(magnetisation == 0):.3f} of draws")
    print(fitted.error_report(x[:200], observed[:200], key=jr.key(4)).words)

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    axes[0].plot(true, told, ".", color="C0", markersize=1.5, alpha=0.4)
    axes[0].axline((0, 0), slope=1, color="0.3", linewidth=0.8)
    axes[0].set(
        xlabel="exact log marginal, nats", ylabel="network, one pass", xticks=range(-16, 1, 4), yticks=range(-16, 1, 4)
    )
    errors = [off[sizes == size] for size in range(SIZE + 1)]
    axes[1].plot([error.mean() for error in errors], "o-", color="C3", label="mean error")
    axes[1].plot([np.quantile(error, 0.95) for error in errors], ".:", color="C3", label="95 %")
    table = fitted.report["consistency"]
    axes[1].plot(
        [row["num_observed"] for row in table], [row["residual"] for row in table], color="0.5", label="residual, rms"
    )
    axes[1].set(xlabel="spins observed", ylabel="error, nats", ylim=(0, None), xticks=range(0, SIZE + 1, 4))
    axes[1].legend(frameon=False)
    bins = np.linspace(-1 - 1 / SIZE, 1 + 1 / SIZE, SIZE + 2)
    axes[2].hist(2 * x.mean(-1) - 1, bins, density=True, color="0.8", label="exact draws")
    axes[2].hist(magnetisation, bins, density=True, histtype="step", color="C0", label="draws of the network")
    axes[2].set(xlabel="magnetisation")
    axes[2].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "ising_marginals.png", dpi=110)
    print(f"{time.perf_counter() - began:.0f} s; wrote {output / 'ising_marginals.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--coupling", type=float, default=0.44)
    parser.add_argument("--field", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.coupling, given.field, given.steps, given.output)
