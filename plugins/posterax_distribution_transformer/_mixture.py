"""Mixtures of normals: NumPyro's distributions, made of plain arrays and taken apart again."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Bool, Float

SUM_TOLERANCE = 1e-3  # float32 weights of many components
_NO_WEIGHT = -1e4  # the logarithm of what stands for no weight


class Components(NamedTuple):
    """What a mixture of normals is made of; any number of problems in front.

    - `log_weights`: `(..., K)`, normalised.
    - `mean`: `(..., K, n)`.
    - `scale_tril`: `(..., K, n, n)`, lower Cholesky factors of the covariances.
    """

    log_weights: Float[Array, "... K"]
    mean: Float[Array, "... K n"]
    scale_tril: Float[Array, "... K n n"]

    @property
    def covariance(self) -> Float[Array, "... K n n"]:
        """Of each component."""
        return self.scale_tril @ jnp.swapaxes(self.scale_tril, -1, -2)

    def log_prob(self, x: Float[Array, "*x n"]) -> Float[Array, "*x"]:
        """Log density of one problem's mixture at points `(..., n)`, in nats: NumPyro's, by one small inverse."""
        white = inverse_lower(self.scale_tril)
        z = jnp.einsum("kij,...kj->...ki", white, x[..., None, :] - self.mean)
        log_scale = jnp.sum(jnp.log(jnp.diagonal(white, axis1=-2, axis2=-1)), -1)
        each = self.log_weights - 0.5 * jnp.sum(z**2, -1) + log_scale
        return jax.nn.logsumexp(each, -1) - 0.5 * self.size * jnp.log(2 * jnp.pi)

    @property
    def live(self) -> Bool[Array, "... K"]:
        """Which components have weight."""
        return self.log_weights > 0.1 * _NO_WEIGHT

    @property
    def effective_num(self) -> Float[Array, "..."]:
        """exp(entropy of the weights): K where all are equal, 1 where one has all the weight."""
        return jnp.exp(-jnp.sum(jnp.exp(self.log_weights) * jnp.maximum(self.log_weights, -100.0), -1))

    @property
    def num(self) -> int:
        """K, how many there are."""
        return self.mean.shape[-2]

    @property
    def size(self) -> int:
        """n, coordinates of a value."""
        return self.mean.shape[-1]


def inverse_lower(matrix: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
    """The inverse of lower triangular matrices."""
    eye = jnp.broadcast_to(jnp.eye(matrix.shape[-1]), matrix.shape)
    return solve_triangular(matrix, eye, lower=True)


def gaussian_mixture(
    weights: ArrayLike,
    mean: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    scale_tril: ArrayLike | None = None,
) -> dist.MixtureSameFamily:
    """A mixture of K normals, on the line or in n dimensions, as NumPyro's `MixtureSameFamily`.

    - `weights`: `(..., K)`, not negative, summing to 1.
    - `mean`: `(..., K)` on the line, `(..., K, n)` in n dimensions.
    - One of `scale`: standard deviations, like `mean`; `covariance`: `(..., K, n, n)`; `scale_tril`: their lower
      Cholesky factors.

    Raises `ValueError` for weights that are negative or do not sum to 1, for a scale that is not positive, for a
    covariance that is not symmetric and positive definite (the component is named), and for what is not finite.
    """
    given = {"scale": scale, "covariance": covariance, "scale_tril": scale_tril}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"Give one of `scale`, `covariance` and `scale_tril`; got {', '.join(given) or 'none'}.")
    ((name, spread),) = given.items()
    weights, mean, spread = jnp.asarray(weights), jnp.asarray(mean), jnp.asarray(spread)
    if not any(isinstance(array, Tracer) for array in (weights, mean, spread)):
        _check(np.asarray(weights), np.asarray(mean), name, np.asarray(spread))
    if name == "covariance":
        spread = jnp.linalg.cholesky(spread)
    log_weights = jnp.log(weights)
    if name != "scale":
        return mixture_of(Components(log_weights, mean, spread))
    return _joined(log_weights, dist.Normal(mean, spread), scalar=mean.ndim == weights.ndim)


def _check(weights: np.ndarray, mean: np.ndarray, name: str, spread: np.ndarray) -> None:
    for what, values in (("weights", weights), ("mean", mean), (name, spread)):
        if not np.isfinite(values).all():
            raise ValueError(f"`{what}` must be finite; got {values}.")
    if weights.ndim < 1 or (weights < 0).any() or (np.abs(weights.sum(-1) - 1) > SUM_TOLERANCE).any():
        raise ValueError(f"`weights` must not be negative and must sum to 1; got {weights}, sum {weights.sum(-1)}.")
    num = weights.shape[-1]
    if mean.shape[: weights.ndim] != weights.shape or mean.ndim - weights.ndim > 1:
        raise ValueError(f"`mean` must have shape {weights.shape} or {(*weights.shape, 'n')}; got {mean.shape}.")
    expected = mean.shape if name == "scale" else (*mean.shape, mean.shape[-1])
    if spread.shape != expected or (name != "scale" and mean.ndim == weights.ndim):
        hint = " (on the line give `scale`)" if mean.ndim == weights.ndim and name != "scale" else ""
        raise ValueError(f"`{name}` must have shape {expected}; got {spread.shape}{hint}.")
    if name == "scale":
        good = (spread > 0).reshape(*weights.shape, -1).all(-1)
    elif name == "scale_tril":
        good = (np.diagonal(spread, axis1=-2, axis2=-1) > 0).all(-1) & (spread == np.tril(spread)).all((-2, -1))
    else:
        symmetric = np.abs(spread - np.swapaxes(spread, -1, -2)).max((-2, -1)) <= 1e-4 * np.abs(spread).max((-2, -1))
        good = symmetric & (np.linalg.eigvalsh(spread.astype(float))[..., 0] > 0)
    if not good.all():
        wanted = {"scale": "positive", "covariance": "symmetric and positive definite"}
        wanted = wanted.get(name, "lower triangular with a positive diagonal")
        place = np.argwhere(~good)[0]
        raise ValueError(f"`{name}` of component {place[-1]} of {num} is not {wanted}: {spread[tuple(place)]}.")


def mixture_of(components: Components, *, scalar: bool = False, diagonal: bool = False) -> dist.MixtureSameFamily:
    """NumPyro's mixture of these components.

    - `scalar`: values are numbers, of no shape (n = 1).
    - `diagonal`: the factors are known to be diagonal, and components are independent normals.
    """
    log_weights, mean, tril = components
    if scalar:
        return _joined(log_weights, dist.Normal(mean[..., 0], tril[..., 0, 0]), scalar=True)
    if diagonal:
        sd = jnp.diagonal(tril, axis1=-2, axis2=-1)
        return _joined(log_weights, dist.Normal(mean, sd), scalar=False)
    return _joined(log_weights, dist.MultivariateNormal(mean, scale_tril=tril), scalar=True)


def _joined(log_weights, normals, *, scalar: bool) -> dist.MixtureSameFamily:
    logits = jnp.maximum(log_weights, _NO_WEIGHT)  # NumPyro refuses infinite ones
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), normals if scalar else normals.to_event(1))


def components_of(law: Any) -> Components:
    """The components of a mixture of normals; a normal is a mixture of one.

    Raises `TypeError` for what is neither.
    """
    if isinstance(law, dist.MixtureSameFamily):
        mixing: Any = law.mixing_distribution
        given = vars(mixing).get("probs")  # as given: those that do not sum to 1 are not brought to it in silence
        log_weights = jax.nn.log_softmax(mixing.logits) if given is None else jnp.log(given)
        mean, tril = _normals(law.component_distribution)
        return Components(jnp.broadcast_to(log_weights, mean.shape[:-1]), mean, tril)
    mean, tril = _normals(law)
    return Components(jnp.zeros((*mean.shape[:-1], 1)), mean[..., None, :], tril[..., None, :, :])


def _normals(law: Any) -> tuple[Array, Array]:
    """Means `(..., n)` and lower Cholesky factors of normals."""
    family = type(law)  # NumPyro's attributes have types that say nothing
    if issubclass(family, dist.ExpandedDistribution):
        mean, tril = _normals(law.base_dist)
        shape = tuple(law.batch_shape)
        return jnp.broadcast_to(mean, (*shape, *mean.shape[-1:])), jnp.broadcast_to(tril, (*shape, *tril.shape[-2:]))
    if issubclass(family, dist.MultivariateNormal):
        shape = tuple(law.batch_shape)
        tril = law.scale_tril
        return jnp.broadcast_to(law.loc, (*shape, *law.event_shape)), jnp.broadcast_to(tril, (*shape, *tril.shape[-2:]))
    if issubclass(family, dist.Normal):
        mean, sd = jnp.broadcast_arrays(law.loc, law.scale)
        return mean[..., None], sd[..., None, None]
    if issubclass(family, dist.Independent) and isinstance(law.base_dist, dist.Normal) and law.event_dim == 1:
        inner: Any = law.base_dist
        mean, sd = jnp.broadcast_arrays(inner.loc, inner.scale)
        return mean, sd[..., None] * jnp.eye(sd.shape[-1])
    raise TypeError(f"Expected a normal or a mixture of normals; got {describe(law)}. `gaussian_mixture` makes one.")


def is_mixture(law: Any) -> bool:
    """Whether it is a normal or a mixture of normals."""
    try:
        jax.eval_shape(components_of, law)
    except TypeError:
        return False
    return True


def is_scalar(law: Any) -> bool:
    """Whether its values are numbers rather than vectors."""
    return tuple(law.event_shape) == ()


def describe(law: Any) -> str:
    """In words, for messages."""
    if isinstance(law, dist.MixtureSameFamily):
        return f"a mixture of {type(law.component_distribution).__name__}"
    return type(law).__name__
