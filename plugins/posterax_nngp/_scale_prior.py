"""A prior of the scale s, as a density of t = log s; and what makes a NumPyro distribution one."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from posterax._precision import precision

from ._priors import Atoms, GeneralizedInverseGaussian
from ._scale_law import log_total, tail_index
from ._scale_nodes import End, Log

_ROUNDING = 1e-14


def log_density(prior: dist.Distribution) -> tuple[Log, End, End]:
    """The log density of t = log s, and the ends of the support in t.

    The density is `-inf` outside the support, whatever `prior.log_prob` says there.
    """
    prior = widen(prior)
    low, high = ends(prior)
    if isinstance(prior, GeneralizedInverseGaussian):
        constant, kernel = prior.log_normaliser, prior.log_kernel
        return lambda t: kernel(t) - constant, -np.inf, np.inf

    if isinstance(low, float) and isinstance(high, float) and (low, high) == (0, np.inf):
        return lambda t: jnp.asarray(prior.log_prob(jnp.exp(t))) + t, -np.inf, np.inf
    smallest, largest = low * (1 + _ROUNDING / 10), high * (1 - _ROUNDING / 10)

    def log_h(t):
        s = jnp.exp(t)
        inside = (s >= low * (1 - _ROUNDING)) & (s <= high * (1 + _ROUNDING))
        return jnp.where(inside, prior.log_prob(jnp.clip(s, smallest, largest)) + t, -jnp.inf)

    return log_h, _log(low), _log(high)


def likelihood(quad, count) -> tuple[Log, Array]:
    r"""Log of $s^{-\mathrm{count}/2} e^{-\mathrm{quad}/(2 s)}$ in two parts: a function of t = log s, and a constant.

    The function is about 0 at its maximum, so that a `count` of 1e5, with a constant of a million, costs no digits.
    """
    quad, count = jnp.asarray(quad, float), jnp.asarray(count, float)
    centre = jax.lax.stop_gradient(jnp.log(jnp.maximum(quad, 1e-300) / jnp.maximum(count, 1)))
    rest = quad - count * jnp.exp(centre)  # rounding, unless quad or count is 0; it carries the gradient in quad

    def log_l(t):
        x = t - centre
        return -count / 2 * (x + jnp.expm1(-x)) - rest / 2 * jnp.exp(-t)

    return log_l, -count / 2 * (1 + centre)


def ends(prior: dist.Distribution) -> tuple[End, End]:
    """The smallest and largest value of the prior's support; the numbers 0 and infinity where it has no others."""
    low = getattr(prior.support, "lower_bound", None)
    high = getattr(prior.support, "upper_bound", None)
    if low is None:
        raise ValueError(
            "The prior of the scale must be a law on positive values; got "
            f"{name(prior)} with support {prior.support}. Take for instance dist.InverseGamma(2, 2), a truncated or "
            "folded distribution, or dist.TransformedDistribution(..., dist.transforms.ExpTransform())."
        )
    high = np.inf if high is None else high
    return _end(low), _end(high)


def _end(value) -> End:
    return value if isinstance(value, float) else jnp.asarray(value, float)


def check_prior(prior) -> None:
    """Say what is wrong with a prior of the scale before it is used. NumPyro's or any other distribution on s > 0.

    Raises `TypeError` where it is no NumPyro distribution. Raises `ValueError` where it is not scalar, has values that
    are not positive, is discrete (but not `Atoms`), or does not integrate to one by the quadrature that the posterior
    is made of: an improper prior, one with jumps, or one with a peak that is too narrow to be found.
    """
    if not isinstance(prior, dist.Distribution):
        raise TypeError(
            "The prior of the scale must be a NumPyro distribution, such as dist.InverseGamma(2, 2); got "
            f"{type(prior).__name__}."
        )
    if prior.batch_shape or prior.event_shape:
        raise ValueError(
            "The prior of the scale must be the law of one number, which all inputs and outputs share; got "
            f"{name(prior)} with batch shape {prior.batch_shape} and event shape {prior.event_shape}."
        )
    with precision(64):
        if isinstance(prior, (dist.Delta, Atoms)):
            values = jnp.asarray(prior.v if isinstance(prior, dist.Delta) else prior.values)
            if not jnp.all((values > 0) & (values < jnp.inf)):
                raise ValueError(f"The prior of the scale must have positive finite values; got {values}.")
            return
        if prior.is_discrete:
            raise ValueError(f"A discrete prior of the scale must be given as Atoms(values); got {name(prior)}.")
        if isinstance(prior, dist.InverseGamma):  # in closed form everywhere, and proper
            if not (0 < prior.concentration < jnp.inf and 0 < prior.rate < jnp.inf):
                raise ValueError(
                    "The prior of the scale must have a positive finite concentration and rate; got "
                    f"InverseGamma({prior.concentration}, {prior.rate})."
                )
            return
        low, _ = ends(prior)
        if not low >= 0:
            raise ValueError(f"The prior of the scale must be a law on positive values; {name(prior)} reaches {low}.")
        mass = float(jnp.exp(_log_mass(prior)))
    if not abs(mass - 1) < 1e-6:
        raise ValueError(
            "The prior of the scale must have a density that quadrature in log s integrates to 1; that of "
            f"{name(prior)} gives {mass:.7g}. Take a proper prior; for a mixture of very narrow peaks, Atoms."
        )


def mean_is_infinite(prior: dist.Distribution) -> bool:
    """Whether the prior's mean is infinite, so that the outputs of the network have no prior variance.

    From the prior's own `mean` where it has one, else from how its density falls at large s.
    """
    with precision(64):
        prior = jax.tree.map(jnp.asarray, prior)  # Python numbers would raise ZeroDivisionError in some means
        try:
            mean = prior.mean
        except NotImplementedError:
            log_h, _, high = log_density(prior)
            return bool(tail_index(log_h, high) <= 1)
        return not bool(jnp.isfinite(mean))


def name(prior) -> str:
    """The name of its class."""
    return type(prior).__name__


def widen(prior: dist.Distribution) -> dist.Distribution:
    """The prior with its floating parameters in the widest precision that is switched on."""

    def one(leaf):
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.result_type(float)) if floating else leaf

    return jax.tree.map(one, prior)


@jax.jit
def _log_mass(prior):
    return log_total(*log_density(prior))


def _log(x):
    """Log, without a NaN in the gradient at 0 and infinity."""
    regular = (x > 0) & (x < jnp.inf)
    return jnp.where(regular, jnp.log(jnp.where(regular, x, 1)), jnp.where(x > 0, jnp.inf, -jnp.inf))
