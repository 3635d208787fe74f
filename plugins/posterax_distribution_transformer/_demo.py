"""A section of `posterax demo`: priors swapped on the fly, beside the exact posteriors, and the answer corrected."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist

from ._correct import correct, posterior_target
from ._experiments import NormalVariance
from ._pretrained import pretrained
from ._scores import score

_SEEN = 1.5
_PRIORS = ((2.0, 2.0), (6.0, 3.0), (1.5, 6.0))


def amortised(report: Any) -> None:
    """The variance of a normal number, for any inverse gamma prior, by a network that comes trained."""
    fitted, experiment = pretrained("normal-variance"), NormalVariance()
    laws = [
        (dist.InverseGamma(*prior), experiment.exact(dist.InverseGamma(*prior), jnp.asarray(_SEEN)))
        for prior in _PRIORS
    ]
    report.say("one observation, three priors, each with its posterior by the network")
    inferred = [fitted.infer(_SEEN, prior=prior) for prior, _ in laws]
    report.picture("priors", lambda path: _plot(path, laws, inferred), "Prior, exact posterior, the network's.")

    report.say("2,000 fresh problems: the divergence from the exact posterior, and the time of a thousand")
    found = score(fitted, experiment, 2000, key=jr.key(0))
    report.say(f"mean KL {found.kl.mean():.5f} nats; of the best single normal {found.best_normal.mean():.5f}")
    many = dist.InverseGamma(jnp.full(1000, 2.0), jnp.linspace(1.0, 4.0, 1000))
    answer = jax.jit(lambda seen, prior: fitted.infer(seen, prior=prior))
    seen = jnp.full(1000, _SEEN)
    jax.block_until_ready(jax.tree.leaves(answer(seen, many)))
    began = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(answer(seen, many)))
    report.say(f"1,000 posteriors in {1000 * (time.perf_counter() - began):.0f} ms")

    prior, exact = laws[0]
    target = posterior_target(prior, _log_likelihood, _SEEN)
    draws = correct(fitted, _SEEN, prior=prior, target=target, num_draws=4000, key=jr.key(1))
    ess = draws.effective_sample_size()
    evidence = float(dist.StudentT(4.0, 0.0, 1.0).log_prob(_SEEN))
    log_mean = np.log(exact.rate) - jax.scipy.special.digamma(exact.concentration)
    log_x, sd = np.log(draws["x"]), float(jnp.sqrt(jax.scipy.special.polygamma(1, exact.concentration)))
    weights = np.exp(draws.flat_log_weights() - np.logaddexp.reduce(draws.flat_log_weights()))
    report.compare(
        f"4,000 draws, weighted by the true likelihood: ESS {ess:.0f}, Pareto k-hat {draws.pareto_k():.2f}",
        [
            (
                "log evidence",
                float(np.mean(np.asarray(draws.log_evidence))),
                float(np.sqrt(max(4000 / ess - 1, 1e-6) / 4000)),
                evidence,
            ),
            ("mean log variance", float(weights @ log_x.ravel()), sd / np.sqrt(ess), float(log_mean)),
        ],
    )


def _log_likelihood(x: Any, seen: Any) -> Any:
    return dist.Normal(0.0, jnp.sqrt(x)).log_prob(seen)


def _plot(path: Any, laws: list, inferred: list) -> None:
    import matplotlib.pyplot as plt

    y = np.linspace(-3, 5, 300)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, (prior, exact), found, (shape, scale) in zip(axes, laws, inferred, _PRIORS, strict=True):
        density = [np.exp(np.asarray(law.log_prob(np.exp(y))) + y) for law in (prior, exact, found)]
        panel.plot(y, density[0], color="0.6", linestyle=":", label="prior")
        panel.plot(y, density[1], color="0.2", linewidth=3, alpha=0.4, label="exact posterior")
        panel.plot(y, density[2], color="C3", linewidth=1, label="network")
        panel.set(xlabel="log variance", title=f"InverseGamma({shape:g}, {scale:g})")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
