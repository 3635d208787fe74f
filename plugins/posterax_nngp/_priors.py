"""Laws of a scale s > 0 that NumPyro does not have: Burr XII, beta prime, generalised inverse Gaussian, atoms."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax.scipy.special import betainc, betaln, logsumexp
from jaxtyping import ArrayLike, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from ._priors_gig import GeneralizedInverseGaussian as GeneralizedInverseGaussian


class BurrXII(dist.Distribution):
    r"""The Burr type XII law, with density $c d\, s^{c-1} (1 + s^c)^{-d-1}$ on s > 0.

    - `c`, `d`: positive, of any shapes that broadcast. The tail index is c d: moments of that order and above are
      infinite, and mean and variance are then `inf`.

    As the prior of the *variance* s it gives a network's outputs the tail index 2 c d. Source: Burr (1942),
    doi:10.1214/aoms/1177731607; as scale prior Lee et al. (2022), arXiv:2107.01408.
    """

    arg_constraints = {"c": constraints.positive, "d": constraints.positive}  # noqa: RUF012
    support = constraints.positive  # pyright: ignore[reportAssignmentType]
    reparametrized_params = ["c", "d"]  # noqa: RUF012
    c: Any
    d: Any

    def __init__(self, c: ArrayLike, d: ArrayLike, *, validate_args: bool | None = None):
        self.c, self.d = promote_shapes(c, d)  # pyright: ignore[reportGeneralTypeIssues]
        super().__init__(jnp.broadcast_shapes(jnp.shape(c), jnp.shape(d)), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()):
        """Draws of shape `sample_shape + batch_shape`, by inversion of the distribution function."""
        return self._quantile(jr.exponential(key, self.shape(sample_shape)))

    @validate_sample
    def log_prob(self, value):
        """Log density at `value`, in nats."""
        log_s = jnp.log(value)
        power = jax.nn.softplus(self.c * log_s)  # log(1 + s^c), for any s
        return jnp.log(self.c) + jnp.log(self.d) + (self.c - 1) * log_s - (self.d + 1) * power

    def cdf(self, value):
        r"""$1 - (1 + s^c)^{-d}$."""
        return -jnp.expm1(-self.d * jax.nn.softplus(self.c * jnp.log(value)))

    def icdf(self, q):
        """The value whose `cdf` is `q`."""
        return self._quantile(-jnp.log1p(-jnp.asarray(q)))

    def _quantile(self, exponential):
        """The quantile of probability 1 - exp(-exponential); in logs, since (1 + s^c) may be too large for a float."""
        x = exponential / self.d
        return jnp.exp((x + jnp.log(-jnp.expm1(-x))) / self.c)

    def _moment(self, order):
        index = self.c * self.d
        exists = index > order
        c, d = jnp.where(exists, self.c, order + 1.0), jnp.where(exists, self.d, 1.0)
        return jnp.where(exists, d * jnp.exp(betaln(d - order / c, 1 + order / c)), jnp.inf)

    @property
    def mean(self):
        """D B(d - 1/c, 1 + 1/c), infinite where c d is at most 1."""
        return self._moment(1)

    @property
    def variance(self):
        """Infinite where c d is at most 2."""
        second = self._moment(2)
        return jnp.where(second < jnp.inf, second - jnp.where(second < jnp.inf, self.mean, 0) ** 2, jnp.inf)


class BetaPrime(dist.Distribution):
    r"""The beta prime law, with density $s^{a-1} (1 + s)^{-a-b} / B(a, b)$ on s > 0: the odds
    x / (1 - x) of a beta x.

    - `a`, `b`: positive, of any shapes that broadcast. The tail index is b: the mean is `inf` for b at most 1, the
      variance for b at most 2. With a = b = 1/2 the square root of s is half-Cauchy.
    """

    arg_constraints = {"a": constraints.positive, "b": constraints.positive}  # noqa: RUF012
    support = constraints.positive  # pyright: ignore[reportAssignmentType]
    reparametrized_params = ["a", "b"]  # noqa: RUF012
    a: Any
    b: Any

    def __init__(self, a: ArrayLike, b: ArrayLike, *, validate_args: bool | None = None):
        self.a, self.b = promote_shapes(a, b)  # pyright: ignore[reportGeneralTypeIssues]
        super().__init__(jnp.broadcast_shapes(jnp.shape(a), jnp.shape(b)), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()):
        """Draws of shape `sample_shape + batch_shape`: ratios of gamma draws."""
        top, bottom = (
            jr.loggamma(k, x, self.shape(sample_shape)) for k, x in zip(jr.split(key), (self.a, self.b), strict=True)
        )
        return jnp.exp(top - bottom)

    @validate_sample
    def log_prob(self, value):
        """Log density at `value`, in nats."""
        log_s = jnp.log(value)
        return (self.a - 1) * log_s - (self.a + self.b) * jax.nn.softplus(log_s) - betaln(self.a, self.b)

    def cdf(self, value):
        """The incomplete beta function at s / (1 + s)."""
        return betainc(self.a, self.b, jax.nn.sigmoid(jnp.log(value)))

    @property
    def mean(self):
        """A / (b - 1), infinite for b at most 1."""
        exists = self.b > 1
        return jnp.where(exists, self.a / (jnp.where(exists, self.b, 2.0) - 1), jnp.inf)

    @property
    def variance(self):
        """A (a + b - 1) / ((b - 2) (b - 1)^2), infinite for b at most 2."""
        exists = self.b > 2
        b = jnp.where(exists, self.b, 3.0)
        return jnp.where(exists, self.a * (self.a + b - 1) / ((b - 2) * (b - 1) ** 2), jnp.inf)


class Atoms(dist.Distribution):
    """A law on finitely many positive values: s is `values[i]` with probability proportional to `exp(log_weights[i])`.

    - `values`: `(..., S)`, positive, in any order; leading axes are the batch.
    - `log_weights`: `(..., S)`, in nats, with any constant added; `-inf` is no weight. Kept normalised. Left out, all
      atoms have the same.

    It is meant to be summed over. Its support is declared as the positive numbers, and `log_prob` is the log of the
    probability of a value, `-inf` off the atoms.
    """

    arg_constraints = {  # noqa: RUF012
        "values": constraints.independent(constraints.positive, 1),
        "log_weights": constraints.independent(constraints.less_than_eq(1e-6), 1),
    }
    support = constraints.positive  # pyright: ignore[reportAssignmentType]

    def __init__(self, values: ArrayLike, log_weights: ArrayLike | None = None, *, validate_args: bool | None = None):
        values = jnp.asarray(values, float)
        log_weights = jnp.zeros(values.shape) if log_weights is None else jnp.asarray(log_weights, float)
        if not values.ndim or not log_weights.ndim or not values.shape[-1] == log_weights.shape[-1] > 0:
            raise ValueError(
                "`values` and `log_weights` must have a last axis of the same length, one entry for each atom; got "
                f"shapes {values.shape} and {log_weights.shape}."
            )
        self.values, self.log_weights = jnp.broadcast_arrays(values, jax.nn.log_softmax(log_weights))
        super().__init__(self.values.shape[:-1], validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()):
        """Draws of shape `sample_shape + batch_shape`."""
        index = jr.categorical(key, self.log_weights, shape=self.shape(sample_shape))
        values = jnp.broadcast_to(self.values, (*index.shape, self.values.shape[-1]))
        return jnp.take_along_axis(values, index[..., None], -1)[..., 0]

    @validate_sample
    def log_prob(self, value):
        """Log probability of `value`: `-inf` unless it is one of the atoms to the last digit."""
        equal = jnp.asarray(value)[..., None] == self.values
        return logsumexp(jnp.where(equal, self.log_weights, -jnp.inf), axis=-1)

    def cdf(self, value):
        """Probability of `value` and of all below it."""
        return jnp.sum(jnp.exp(self.log_weights) * (self.values <= jnp.asarray(value)[..., None]), axis=-1)

    def icdf(self, q):
        """The smallest atom whose `cdf` is at least `q`, up to rounding of the sum."""
        order = jnp.argsort(self.values, axis=-1)
        values = jnp.take_along_axis(self.values, order, -1)
        total = jnp.cumsum(jnp.exp(jnp.take_along_axis(self.log_weights, order, -1)), axis=-1)
        enough = total >= jnp.asarray(q)[..., None] * (1 - 1e-12)
        last = jnp.arange(values.shape[-1]) == values.shape[-1] - 1
        return jnp.min(jnp.where(enough | last, values, jnp.inf), axis=-1)

    @property
    def mean(self):
        """Weighted mean of the atoms."""
        return jnp.sum(jnp.exp(self.log_weights) * self.values, axis=-1)

    @property
    def variance(self):
        """Weighted variance of the atoms."""
        return jnp.sum(jnp.exp(self.log_weights) * (self.values - self.mean[..., None]) ** 2, axis=-1)
