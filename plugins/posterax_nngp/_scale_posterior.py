"""The law of the scale given data, for any prior: everything from one quadrature in log s."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from posterax import in_float64

from ._scale_law import cumulative, mean_and_variance, quantile
from ._scale_nodes import End, Log, integrate
from ._scale_prior import ends, likelihood, log_density, widen


class ScalePosterior(dist.Distribution):
    r"""The law of s > 0 with density proportional to $h(s)\, s^{-\mathrm{count}/2} e^{-\mathrm{quad}/(2s)}$.

    - `prior`: h, a scalar NumPyro distribution with a density on positive values.
    - `quad`: Q, a scalar, not negative: the sum over outputs of $y^T C^{-1} y$.
    - `count`: n times m, a scalar: how many observations. `quad = count = 0` gives back the prior.

    `log_prob` is exact up to quadrature of the normaliser, which is made once. Draws invert the distribution function
    and are differentiable in `quad` and in the prior's parameters; their tails end where the density of log s is 45
    nats below its maximum. To be made where float64 is switched on; it can then be used anywhere. Source of the law:
    Lee et al. (2022), arXiv:2107.01408, who sample it by importance.
    """

    arg_constraints = {"quad": constraints.nonnegative, "count": constraints.nonnegative}  # noqa: RUF012
    pytree_data_fields = ("prior", "quad", "count", "nodes", "log_weights", "log_total")
    prior: dist.Distribution
    nodes: Float[Array, " S"]
    log_weights: Float[Array, " S"]
    log_total: Float[Array, ""]

    def __init__(self, prior: dist.Distribution, quad, count, *, validate_args: bool | None = None):
        self.prior = widen(prior)
        self.quad, self.count = jnp.asarray(quad, float), jnp.asarray(count, float)
        self.nodes, self.log_weights, self.log_total = _solve(self.prior, self.quad, self.count)
        super().__init__(validate_args=validate_args)

    @property
    def support(self):
        """The support of the prior."""
        return self.prior.support

    @property
    def log_marginal(self) -> Float[Array, ""]:
        """What the function `log_marginal` gives, in nats; always by quadrature."""
        return self.log_total + likelihood(self.quad, self.count)[1]

    @property
    def rule(self) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
        """The law as S = 768 scales and their log-weights, which sum to one: nodes of the quadrature."""
        return jnp.exp(self.nodes), self.log_weights

    @validate_sample
    def log_prob(self, value):
        """Log density at `value`, in nats."""
        return in_float64(_log_prob)(self._terms, self.log_total, value)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()):
        """Draws of shape `sample_shape`, by inversion of the distribution function."""
        return self.icdf(jr.uniform(key, self.shape(sample_shape)))

    def cdf(self, value):
        """Probability of a smaller scale."""
        return in_float64(_cdf)(self._terms, value)

    def icdf(self, q):
        """The scale whose `cdf` is `q`."""
        return in_float64(_icdf)(self._terms, q)

    @property
    def mean(self):
        """Infinite where the tail of the density is too heavy."""
        return in_float64(_moments)(*self._terms)[0]

    @property
    def variance(self):
        """Infinite where the tail of the density is too heavy."""
        return in_float64(_moments)(*self._terms)[1]

    @property
    def _terms(self):
        return self.prior, self.quad, self.count


def log_posterior(prior, quad, count) -> tuple[Log, End, End]:
    """Log density of t = log s given the data, up to a constant, and the ends of its support."""
    log_h, low, high = log_density(prior)
    log_l, _ = likelihood(quad, count)
    return lambda t: log_h(t) + log_l(t), low, high


@jax.jit
def _solve(prior, quad, count):
    log_f, low, high = log_posterior(prior, quad, count)
    nodes, log_weights = integrate(log_f, low, high)
    log_weights = log_weights + log_f(nodes)
    total = logsumexp(log_weights)
    return nodes, log_weights - total, total


def _log_prob(terms, log_total, value):
    log_s = jnp.log(jnp.asarray(value, float))
    return log_posterior(*terms)[0](log_s) - log_s - log_total


def _cdf(terms, value):
    log_f, *support = log_posterior(*terms)
    return cumulative(log_f, jnp.log(jnp.asarray(value, float)), *support)


def _icdf(terms, q):
    log_f, *support = log_posterior(*terms)
    return jnp.clip(jnp.exp(quantile(log_f, jnp.asarray(q, float), *support)), *ends(terms[0]))


@jax.jit
def _moments(prior, quad, count):
    return mean_and_variance(*log_posterior(prior, quad, count))
