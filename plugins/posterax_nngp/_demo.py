"""A section of `posterax demo`: a Student-t process beside exact answers, and the bands it predicts."""

from typing import Any

import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from posterax._precision import precision

from ._dense import MLPKernel, networks
from ._regression import ScaleMixtureNNGP
from ._scale import importance, log_marginal

_ROUNDING = 1e-9  # what exact answers may differ by, relative


def wide_networks(report: Any) -> None:
    """A wide network whose readout variance is random."""
    random = np.random.default_rng(1)
    x = np.sort(random.uniform(-1.6, 1.6, 14))[:, None]
    y = np.sin(3 * x[:, 0] + 1) + 0.1 * random.normal(size=14)

    report.say("fitting a Student-t process: the likeliest of four networks, its variances and the noise")
    first, *others = networks((1, 2), ("relu", "erf"), bias_variance=1.0)
    prior = dist.InverseGamma(2.0, 2.0)
    fitted: Any = ScaleMixtureNNGP(first, prior, candidates=tuple(others)).fit((x, y), key=jr.key(0))
    for name, evidence in fitted.report["candidates"]:
        report.say(f"{evidence:8.2f} nats: {name}")

    report.say("the scale integrated out: in closed form, by quadrature and by importance sampling")
    quad, count = float(fitted.knowledge.state["quad"]), len(x)
    with precision(64):
        exact = float(log_marginal(prior, quad, count))
        same = dist.TransformedDistribution(dist.Gamma(2.0, 2.0), dist.transforms.PowerTransform(-1.0))
        by_quadrature = float(log_marginal(same, quad, count))
        sampled = importance(prior, quad, count, key=jr.key(1))
    error = float(np.sqrt(1 / sampled.ess - 1 / len(sampled.scales)))
    report.compare(
        "Log integral over the scale, against the closed form",
        [
            ("quadrature", by_quadrature, _ROUNDING * abs(exact), exact),
            (f"{len(sampled.scales)} draws, ESS {sampled.ess:.0f}", float(sampled.log_marginal), error, exact),
        ],
    )

    report.say("one scale a draw: far out, two outputs are large together")
    report.compare("P(both outputs of a t with 4 degrees of freedom are beyond 4)", [_both_far(jr.key(2))])
    report.picture("bands", lambda path: _plot(path, fitted, x, y), "Predictive medians, 50 % and 95 % intervals.")


def _both_far(key: Any) -> tuple[str, float, float, float]:
    """The share of prior draws at two inputs, all but uncorrelated, and the probability by summing over the scale."""
    from scipy import stats

    prior = dist.InverseGamma(2.0, 2.0)
    law = ScaleMixtureNNGP(MLPKernel(1, "erf", 400.0, 0.0), prior).prior([[1.0, 0.0], [0.0, 1.0]])
    gram = np.asarray(MLPKernel(1, "erf", 400.0, 0.0).nngp([[1.0, 0.0], [0.0, 1.0]]))
    assert abs(gram[0, 1]) < 1e-12  # erf is odd: the outputs at orthogonal inputs are uncorrelated
    draws = np.abs(np.asarray(law.sample(key, (200_000,)))) / np.sqrt(gram[0, 0])
    share = float(np.mean((draws > 4).all(axis=1)))
    s = stats.invgamma(2, scale=2).ppf((np.arange(100_000) + 0.5) / 100_000)
    truth = float(np.mean((2 * stats.norm.sf(4 / np.sqrt(s))) ** 2))
    return "200,000 draws", share, float(np.sqrt(truth * (1 - truth) / 200_000)), truth


def _plot(path: Any, fitted: Any, x: np.ndarray, y: np.ndarray) -> None:
    import matplotlib.pyplot as plt

    grid = np.linspace(-3, 3, 121)[:, None]
    q = fitted.quantiles(grid, [0.025, 0.25, 0.5, 0.75, 0.975])
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for low, high, alpha, label in ((0, 4, 0.2, "95 %"), (1, 3, 0.35, "50 %")):
        axes.fill_between(grid[:, 0], q[low], q[high], alpha=alpha, color="C0", linewidth=0, label=label)
    axes.plot(grid[:, 0], q[2], color="C0", label="median")
    axes.plot(x[:, 0], y, "o", color="0.2", markersize=4, label="data")
    axes.set(xlabel="x", ylabel="y")
    axes.legend(frameon=False, ncols=4, loc="lower center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
