"""From prior to posterior by temperatures: two modes that chains do not leave, and the evidence of three models.

python examples/10_tempered_evidence.py [--particles 1000] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from posterax import Target, get, sample
from posterax_models import BimodalMixture
from posterax_particles import Importance, TemperedSMC

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def polynomial(x, y, degree):
    """A polynomial with a normal prior: its evidence has a closed form."""
    coefficients = numpyro.sample("coefficients", dist.Normal(0.0, 1.0).expand([degree + 1]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.vander(x, degree + 1) @ coefficients, 0.3), obs=y)


def exact_evidence(x, y, degree):
    design = np.vander(x, degree + 1)
    law = dist.MultivariateNormal(jnp.zeros(len(x)), design @ design.T + 0.09 * np.eye(len(x)))
    return float(law.log_prob(y))


def main(particles: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    problem = BimodalMixture()
    tempered = TemperedSMC(particles)
    methods = {
        "tempered SMC": (tempered, 10),
        "tempered SMC, moved by HMC": (
            TemperedSMC(particles, get("hmc")(num_warmup=0, step_size=0.5, trajectory_length=1.5), num_moves=2), 10,
        ),
        "importance from the prior": (Importance(10 * particles), 10),
        "NUTS, four chains": (get("nuts")(num_warmup=500), 4),
    }  # fmt: skip
    print(f"{'':28}{'weight of a mode':>18}{'estimated / exact evidence':>30}")
    print(f"{'exact':28}{0.75:18.3f}")
    results = {}
    for name, (sampler, chains) in methods.items():
        results[name] = draws = sample(sampler, problem.target, num_chains=chains, key=jr.key(0), progress=False)
        weights = np.exp(draws.flat_log_weights() - draws.flat_log_weights().max())
        share = np.average(draws["x"].sum(axis=-1).ravel() > 0, weights=weights)
        found = "none" if draws.log_evidence is None else describe(draws.log_evidence, float(problem.log_evidence))
        print(f"{name:28}{share:18.3f}{found:>30}")

    # Which degree made these data? The evidence of each model, and what that says of its probability.
    random = np.random.default_rng(0)
    x = np.linspace(-1, 1, 15)
    y = 1.0 - 0.5 * x + 1.2 * x**2 + 0.3 * random.normal(size=15)
    degrees, estimates, exact = range(5), [], []
    for degree in degrees:
        target = Target.from_numpyro(polynomial, jnp.asarray(x), jnp.asarray(y), degree)
        draws = sample(tempered, target, num_chains=4, key=jr.key(1), progress=False)
        estimates.append(draws.log_evidence)
        exact.append(exact_evidence(x, jnp.asarray(y), degree))
        print(f"degree {degree}: log evidence {np.mean(estimates[-1]):.2f} ± {np.std(estimates[-1]):.2f}, "
              f"exact {exact[-1]:.2f}")  # fmt: skip

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].plot(*results["tempered SMC"]["x"][0].T, ".", markersize=2, label="tempered SMC")
    for chain in results["NUTS, four chains"]["x"]:
        axes[0].plot(*chain[::20].T, "x", markersize=3, color="C1", alpha=0.5)
    axes[0].plot([], [], "x", color="C1", label="NUTS: each chain in one mode")
    axes[0].set(xlabel="x[0]", ylabel="x[1]")
    axes[0].legend(frameon=False, fontsize=8)
    ladder = results["tempered SMC"].stats
    axes[1].plot(ladder["inverse_temperature"].T, "o-", color="C0", alpha=0.5, markersize=3)
    axes[1].set(xlabel="step", ylabel="inverse temperature", yscale="log")
    axes[2].plot(degrees, exact, "k_", markersize=16, label="exact")
    axes[2].errorbar(degrees, np.mean(estimates, axis=1), 2 * np.std(estimates, axis=1), fmt="o", label="tempered SMC")
    axes[2].set(xlabel="degree of the polynomial", ylabel="log evidence", xticks=list(degrees))
    axes[2].legend(frameon=False, fontsize=8)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "tempered_evidence.png", dpi=110)
    print(f"wrote {output / 'tempered_evidence.png'}")


def describe(log_evidence, exact):
    ratio = np.exp(np.asarray(log_evidence, float) - exact)
    return f"{ratio.mean():.3f} ± {ratio.std(ddof=1) / np.sqrt(len(ratio)):.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
