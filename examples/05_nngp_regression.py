"""Wide networks with one random scale: heavy-tailed priors, predictive bands, what the data say of the scale.

python examples/05_nngp_regression.py [--rows 14] [--nuts 300] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax import get, sample
from posterax_nngp import BurrXII, MLPKernel, RBFKernel, ScaleMixtureNNGP, TrainedEnsembleLaw, networks

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GRID = np.linspace(-3.0, 3.0, 121)[:, None]
PRIORS = {
    "NNGP, s = 1": dist.Delta(1.0),
    "inverse gamma (1, 1)": dist.InverseGamma(1.0, 1.0),
    "Burr XII (2, 0.6)": BurrXII(2.0, 0.6),
}


def main(rows: int, nuts: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    show(output / "nngp_prior_draws.png", plot_priors)

    random = np.random.default_rng(1)
    x = np.sort(random.choice([-1, 1], rows) * random.uniform(0.3, 1.6, rows))[:, None]  # none near 0, none far out
    y = np.sin(3 * x[:, 0] + 1) + 0.1 * random.normal(size=rows)

    # Hyper-parameters by maximum marginal likelihood, for the network that the evidence prefers among four.
    first, *others = networks((1, 2), ("relu", "erf"), bias_variance=1.0)
    process = ScaleMixtureNNGP(first, dist.InverseGamma(2.0, 2.0), candidates=tuple(others)).fit((x, y), key=jr.key(0))
    for name, evidence in process.report["candidates"]:
        print(f"{evidence:8.2f} nats: {name}")
    sure, all_three = dist.Delta(1.0), ("kernel", "noise", "scale_prior")
    models = {
        "NNGP, s = 1": ScaleMixtureNNGP(process.kernel, sure, process.noise),
        "NNGP, s by ML": ScaleMixtureNNGP(process.kernel, sure, process.noise, learn=all_three),
        "RBF, s by ML": ScaleMixtureNNGP(RBFKernel(0.5), sure, learn=all_three),
    }
    fitted = {"Student-t process": process}
    fitted |= {name: model.fit((x, y), key=jr.key(0)) for name, model in models.items()}
    print(f"{'':20}{'log evidence':>14}{'leave-one-out':>15}   kernel")
    for name, model in fitted.items():
        held_out, _ = model.leave_one_out()
        print(f"{name:20}{model.report['log_evidence']:14.2f}{held_out.sum():15.2f}   {describe(model.kernel)}")
    show(output / "nngp_bands.png", plot_bands, fitted, x, y)

    # The shared scale is learnt fast: from some hundred rows on it is as good as known.
    show(output / "nngp_scale.png", plot_scale, process, x, y)

    # Hyper-parameters by NUTS instead, the scale integrated out of the density that is sampled.
    model = ScaleMixtureNNGP(MLPKernel(1, "erf", bias_variance=1.0), dist.InverseGamma(2.0, 2.0), 0.02)
    draws = sample(get("nuts")(num_warmup=nuts), model.target((x, y)), num_draws=nuts, num_chains=2, key=jr.key(1))
    print(draws.summary().round(3))
    averaged = model.averaged((x, y), draws, GRID, num=50)
    ensemble = TrainedEnsembleLaw(MLPKernel(3, "relu", 2.0, 0.5)).law((x, y), GRID, joint=False)
    show(output / "nngp_three_answers.png", plot_three, process, averaged, ensemble, x, y)


def describe(kernel) -> str:
    if isinstance(kernel, RBFKernel):
        return f"RBF, lengthscale {float(kernel.lengthscale):.2f}"
    return f"{kernel.depth} hidden layer{'s' * (kernel.depth > 1)}, {type(kernel.activation).__name__}"


def show(path: Path, plot, *args) -> None:
    figure = plot(*args)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"wrote {path}")


def clean(axes) -> None:
    for one in np.ravel(axes):
        one.spines[["top", "right"]].set_visible(False)


def plot_priors():
    """Twelve functions from each prior: one scale a function, so that a few are far larger than all others."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    kernel = MLPKernel(2, "erf", 4.0, 1.0)
    for axis, (name, prior) in zip(axes, PRIORS.items(), strict=True):
        law = ScaleMixtureNNGP(kernel, prior).prior(GRID)
        draws = np.asarray(law.sample(jr.key(3), (12,)))
        axis.plot(GRID[:, 0], draws.T, linewidth=1.2)
        axis.set(title=name, xlabel="x")
    axes[0].set(ylabel="f(x)", ylim=(-7, 7))
    clean(axes)
    return figure


def plot_bands(fitted, x, y):
    """Central 50 % and 95 % intervals of new observations; what is left of -1.6 and right of 1.6 is unseen."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharex=True, sharey=True, layout="constrained")
    for axis, (name, model) in zip(axes.flat, fitted.items(), strict=True):
        q = model.quantiles(GRID, [0.025, 0.25, 0.5, 0.75, 0.975])
        axis.axvspan(x.min(), x.max(), color="0.96", zorder=0)
        axis.fill_between(GRID[:, 0], q[0], q[4], color="C0", alpha=0.2, linewidth=0, label="95 %")
        axis.fill_between(GRID[:, 0], q[1], q[3], color="C0", alpha=0.35, linewidth=0, label="50 %")
        axis.plot(GRID[:, 0], q[2], color="C0", label="median")
        axis.plot(x[:, 0], y, "o", color="0.15", markersize=4, label="data")
        axis.set(title=f"{name}\n{describe(model.kernel)}", ylim=(-4, 4))
    axes[0, 0].legend(frameon=False, loc="lower left", ncols=2)
    clean(axes)
    return figure


def plot_scale(process, x, y):
    """The law of s before and after the data, and that of a data set of which these are a part."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    s = np.geomspace(0.05, 50, 400)
    axis.plot(s, s * np.exp(np.asarray(process.scale_prior.log_prob(s))), color="0.5", label="prior")
    for rows in (3, 6, len(x)):
        law = process.condition((x[:: len(x) // rows], y[:: len(x) // rows])).scale_posterior()
        axis.plot(s, s * np.exp(np.asarray(law.log_prob(s))), label=f"{len(x[:: len(x) // rows])} rows")
    axis.set(xscale="log", xlabel="scale s", ylabel="density of log s")
    axis.legend(frameon=False)
    clean(axis)
    return figure


def plot_three(process, averaged, ensemble, x, y):
    """Hyper-parameters at their likeliest values, averaged over, and the ensemble of trained networks: no posterior."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharex=True, sharey=True, layout="constrained")
    laws = {
        "likeliest hyper-parameters": process.infer(GRID, joint=False),
        "averaged over NUTS draws": averaged,
        "ensemble of trained networks\n(a law of starts, not a posterior)": ensemble,
    }
    for axis, (name, law) in zip(axes, laws.items(), strict=True):
        mean, sd = np.asarray(law.mean), np.sqrt(np.asarray(law.variance))
        axis.fill_between(GRID[:, 0], mean - 2 * sd, mean + 2 * sd, color="C1", alpha=0.25, linewidth=0)
        axis.plot(GRID[:, 0], mean, color="C1")
        axis.plot(x[:, 0], y, "o", color="0.15", markersize=4)
        axis.set(title=name, ylim=(-4, 4), xlabel="x")
    axes[0].set(ylabel="mean ± 2 sd")
    clean(axes)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=14)
    parser.add_argument("--nuts", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
