r"""Integrals over the shared scale s of a scale mixture.

Given s, the data have likelihood $s^{-\mathrm{count}/2} e^{-\mathrm{quad}/(2s)}$ up to a constant, where
$\mathrm{quad} = \sum_j y_j^T C^{-1} y_j$ and `count` is the number of observations, n times m. So one scalar and one
number are all that a prior h of s ever sees of the data. Closed form where there is one, else quadrature in log s.

All functions are for float64, which the caller switches on; all but `importance`, `check_prior` and `mean_is_infinite`
can be jitted, mapped, and differentiated in `quad` and in the prior's parameters. Source: Lee et al. (2022),
arXiv:2107.01408.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float

from ._priors import Atoms
from ._scale_importance import ImportanceSample as ImportanceSample
from ._scale_importance import importance as importance
from ._scale_law import log_total
from ._scale_nodes import integrate as integrate
from ._scale_posterior import ScalePosterior as ScalePosterior
from ._scale_posterior import log_posterior
from ._scale_prior import check_prior as check_prior
from ._scale_prior import likelihood, widen
from ._scale_prior import mean_is_infinite as mean_is_infinite


def log_marginal(prior: dist.Distribution, quad, count) -> Float[Array, ""]:
    r"""Log of $\int h(s)\, s^{-\mathrm{count}/2} e^{-\mathrm{quad}/(2s)} ds$, in nats.

    - `prior`: h, a scalar distribution on s > 0.
    - `quad`: a scalar, not negative. `count`: a number of observations.

    Closed form for `InverseGamma` and `Delta`, a sum for `Atoms`, else by quadrature: about 1e-12 relative, also its
    gradient. `+inf`, or meaningless, where `quad` is 0 and the prior does not keep s away from 0.
    """
    prior, quad, count = widen(prior), jnp.asarray(quad, float), jnp.asarray(count, float)
    if isinstance(prior, dist.InverseGamma):
        a, b = prior.concentration, prior.rate
        return gammaln(a + count / 2) - gammaln(a) + a * jnp.log(b) - (a + count / 2) * jnp.log(b + quad / 2)
    if isinstance(prior, dist.Delta):
        value = jnp.asarray(prior.v)
        return -count / 2 * jnp.log(value) - quad / 2 / value + jnp.asarray(prior.log_density)
    if isinstance(prior, Atoms):
        log_l, constant = likelihood(quad, count)
        return constant + logsumexp(prior.log_weights + log_l(jnp.log(prior.values)))
    return _log_marginal(prior, quad, count)


@jax.jit
def _log_marginal(prior, quad, count):
    return likelihood(quad, count)[1] + log_total(*log_posterior(prior, quad, count))


def scale_posterior(prior: dist.Distribution, quad, count) -> dist.Distribution:
    """The law of s given the data, as a NumPyro distribution. Arguments as for `log_marginal`.

    `InverseGamma`, `Delta` and `Atoms` give their own kind, all else a `ScalePosterior`. With `quad` and `count` 0 it
    is the prior's own law.
    """
    prior, quad, count = widen(prior), jnp.asarray(quad, float), jnp.asarray(count, float)
    if isinstance(prior, dist.InverseGamma):
        return dist.InverseGamma(prior.concentration + count / 2, prior.rate + quad / 2)
    if isinstance(prior, dist.Delta):
        return dist.Delta(prior.v)
    if isinstance(prior, Atoms):
        return Atoms(prior.values, prior.log_weights + likelihood(quad, count)[0](jnp.log(prior.values)))
    return ScalePosterior(prior, quad, count)


def atoms(posterior: dist.Distribution) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """A discrete law that stands for a law of s in integrals: scales, and log-weights that sum to one.

    - `posterior`: what `scale_posterior` returns (S = 1 for `Delta`, the number of atoms for `Atoms`), or any other
      scalar density on s > 0, by quadrature (S = 768).

    Integrals over s of functions that are smooth in log s are then sums, to about 13 digits.
    """
    if isinstance(posterior, dist.Delta):
        return jnp.asarray(posterior.v, float)[None], jnp.zeros(1)
    if isinstance(posterior, Atoms):
        return posterior.values, posterior.log_weights
    law = posterior if isinstance(posterior, ScalePosterior) else ScalePosterior(posterior, 0.0, 0.0)
    return law.rule
