"""What is believed of the shared scale s, and what the variational bound needs to know of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

Scalar = Float[Array, ""]

_GRID = 2048


class InverseGammaScale(eqx.Module):
    """q(s) = InverseGamma(a, b) beside its prior InverseGamma(alpha, beta): b and beta are scales, in units of s.

    - `log_shape`, `log_rate`: log a and log b, free.
    - `prior_shape`, `prior_rate`: alpha and beta, fixed.
    """

    log_shape: Scalar
    log_rate: Scalar
    prior_shape: Scalar
    prior_rate: Scalar

    @classmethod
    def at_prior(cls, prior: Any) -> "InverseGammaScale":
        """Q equal to the prior, a NumPyro InverseGamma."""
        shape, rate = (jnp.asarray(value, float) for value in (prior.concentration, prior.rate))
        return cls(jnp.log(shape), jnp.log(rate), shape, rate)

    @property
    def shape(self) -> Scalar:
        """The shape a."""
        return jnp.exp(self.log_shape)

    @property
    def level(self) -> Scalar:
        """One over the mean of 1/s, b/a: the factor of a Student-t's scale matrix."""
        return jnp.exp(self.log_rate - self.log_shape)

    @property
    def df(self) -> Scalar:
        """Degrees of freedom of the process."""
        return 2 * self.shape

    @property
    def mean_log(self) -> Scalar:
        """Mean of log s."""
        return self.log_rate - digamma(self.shape)

    def divergence(self) -> Scalar:
        """KL(q || prior) of the scale alone, in nats."""
        a, alpha, beta = self.shape, self.prior_shape, self.prior_rate
        return (
            alpha * (self.log_rate - jnp.log(beta))
            + gammaln(alpha)
            - gammaln(a)
            + (a - alpha) * digamma(a)
            + (beta - jnp.exp(self.log_rate)) / self.level
        )

    def sample_log(self, key: PRNGKeyArray, num: int) -> Float[Array, " num"]:
        """Draws of log s, one from each of `num` strata of equal probability, differentiable in a and b.

        By the distribution function on a grid: good to 1e-4 of a standard deviation.
        """
        # The density of t = log s less its mode is exp(-a (t + exp(-t) - 1)), below e^-30 at the ends of the grid.
        a = jax.lax.stop_gradient(self.shape)
        ends = -jnp.minimum(jnp.sqrt(60 / a), jnp.log1p(120 / a) + 1), jnp.sqrt(60 / a) + 30 / a
        grid = jax.lax.stop_gradient(self.log_rate - self.log_shape) + jnp.linspace(*ends, _GRID)
        offset = grid - (self.log_rate - self.log_shape)
        density = jnp.exp(-self.shape * (offset + jnp.expm1(-offset)))
        below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(density[1:] + density[:-1])])
        probability = (jnp.arange(num) + jr.uniform(key, (num,))) / num
        return jnp.interp(probability * below[-1], below, grid)

    def law(self) -> dist.Distribution:
        """The distribution of s."""
        return dist.InverseGamma(self.shape, jnp.exp(self.log_rate))


class PointScale(eqx.Module):
    """A scale of one value, learnt by the bound: the Gaussian process with a readout variance of its own."""

    log_value: Scalar

    @classmethod
    def at_prior(cls, prior: Any) -> "PointScale":
        """The value of a NumPyro Delta, to begin with."""
        return cls(jnp.log(jnp.asarray(prior.v, float)))

    @property
    def level(self) -> Scalar:
        """One over the mean of 1/s: the value itself."""
        return jnp.exp(self.log_value)

    @property
    def df(self) -> Scalar:
        """Degrees of freedom of the process: infinite."""
        return jnp.full_like(self.log_value, jnp.inf)

    @property
    def mean_log(self) -> Scalar:
        """Mean of log s."""
        return self.log_value

    def divergence(self) -> Scalar:
        """Zero: the value is a parameter of the model, and has no prior."""
        return jnp.zeros_like(self.log_value)

    def sample_log(self, key: PRNGKeyArray, num: int) -> Float[Array, " num"]:
        """The same value `num` times."""
        del key
        return jnp.broadcast_to(self.log_value, (num,))

    def law(self) -> dist.Distribution:
        """The distribution of s."""
        return dist.Delta(self.level)


Scale = InverseGammaScale | PointScale


def scale_at_prior(prior: Any) -> Scale:
    """q(s) to begin with. Raises `TypeError` for other priors than InverseGamma and Delta, else as `check_numbers`."""
    kinds = {dist.InverseGamma: InverseGammaScale, dist.Delta: PointScale}
    if type(prior) not in kinds:
        raise TypeError(
            "`scale_prior` of the variational method must be a numpyro InverseGamma (a Student-t process) or Delta (a "
            f"Gaussian process whose readout variance is learnt); got {type(prior).__name__}. Other priors have no "
            "conjugate q(s); method='labels' takes any."
        )
    check_numbers(prior)
    return kinds[type(prior)].at_prior(prior)


def check_numbers(prior: dist.InverseGamma | dist.Delta) -> None:
    """Raises `ValueError` for a prior of more than one number, or whose parameters are not positive and finite."""
    shape = prior.batch_shape + prior.event_shape
    if shape:
        raise ValueError(
            "`scale_prior` must be the law of one number, which all inputs and classes share; got a "
            f"{type(prior).__name__} of shape {shape}."
        )
    names = ("v",) if isinstance(prior, dist.Delta) else ("concentration", "rate")
    values = {name: float(getattr(prior, name)) for name in names}
    if not all(0 < value < np.inf for value in values.values()):
        raise ValueError(f"The parameters of `scale_prior` must be positive and finite; got {values}.")
