"""What can be done to mixtures of normals in closed form: parts, conditions, moments, maps, and their bijection."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from ._mixture import Components, components_of, is_scalar, mixture_of

_BISECTIONS = 60


def marginal(law: Any, index: int | tuple[int, ...] | list[int]) -> dist.MixtureSameFamily:
    """The law of some coordinates of a mixture of normals.

    - `index`: which; one number gives a mixture on the line, a list one of vectors in that order.
    """
    parts = components_of(law)
    chosen = _indices(index, parts.size, "index")
    found = _with_covariance(parts.log_weights, parts.mean[..., chosen], _block(parts.covariance, chosen, chosen))
    return mixture_of(found, scalar=isinstance(index, int))


def conditional(law: Any, index: int | tuple[int, ...] | list[int], values: ArrayLike) -> dist.MixtureSameFamily:
    """The law of the other coordinates, in their order, where those of `index` are `values`.

    - `values`: `(..., len(index))`, or `(...)` where `index` is one number. One coordinate left is a law on the line.

    Bishop (2006), section 2.3.1, component by component; weights are multiplied by the density of `values`.
    """
    parts = components_of(law)
    given = _indices(index, parts.size, "index")
    rest = [i for i in range(parts.size) if i not in given]
    if not rest:
        raise ValueError(f"`index` names all {parts.size} coordinates; nothing is left to be told.")
    values = jnp.asarray(values)[..., None] if isinstance(index, int) else jnp.asarray(values)
    observe, noise = jnp.eye(parts.size)[jnp.asarray(given)], jnp.zeros((len(given), len(given)))
    log_weights, mean, covariance = _updated(parts, observe, noise, values)
    found = _with_covariance(log_weights, mean[..., rest], _block(covariance, rest, rest))
    return mixture_of(found, scalar=len(rest) == 1)


def linear_update(
    parts: Components, observe: Float[Array, "m n"], noise: Float[Array, "m m"], seen: Float[Array, "... m"]
) -> Components:
    """The posterior of x ~ `parts` given `seen` = H x + N(0, R), in closed form: Kalman's update of each component.

    - `observe`: H. `noise`: R, a covariance.
    """
    return _with_covariance(*_updated(parts, observe, noise, seen))


def _updated(parts: Components, observe: Array, noise: Array, seen: Array) -> tuple[Array, Array, Array]:
    """Log weights, means and covariances after `seen`."""
    mean, covariance = parts.mean, parts.covariance
    across = covariance @ observe.T  # (..., K, n, m)
    off = seen[..., None, :] - mean @ observe.T
    log_weights, mean, half, tril = absorbed(parts, off, across, observe @ across + noise)
    # Joseph's form stays positive definite where the noise is small.
    gain = jnp.swapaxes(solve_triangular(tril, half, lower=True, trans=1), -1, -2)
    rest = jnp.eye(parts.size) - gain @ observe
    covariance = rest @ covariance @ _t(rest) + gain @ noise @ _t(gain)
    return log_weights, mean, covariance


def absorbed(parts: Components, off: Array, across: Array, spread: Array) -> tuple[Array, Array, Array, Array]:
    """Log weights and means of components after data that are jointly normal with each of them.

    - `off`: `(..., K, m)`, data less their means. `across`: `(..., K, n, m)`, covariances of state and data. `spread`:
      `(..., K, m, m)`, of the data.

    With them the root L of `spread` and $L^{-1}$ `across`', whose square is what covariances lose.
    """
    tril = jnp.linalg.cholesky(spread)
    white = solve_triangular(tril, off[..., None], lower=True)[..., 0]
    log_likelihood = -0.5 * jnp.sum(white**2, -1) - jnp.sum(jnp.log(_diagonal(tril)), -1)
    half = solve_triangular(tril, _t(across), lower=True)  # (..., K, m, n)
    mean = parts.mean + jnp.einsum("...ij,...i->...j", half, white)
    return jax.nn.log_softmax(parts.log_weights + log_likelihood), mean, half, tril


def push_forward(law: Any, matrix: ArrayLike, shift: ArrayLike = 0.0, noise: ArrayLike | None = None) -> Any:
    """The law of A x + b + N(0, Q), in closed form.

    - `matrix`: A `(m, n)`. `shift`: b `(m,)`. `noise`: Q `(m, m)`, a covariance, possibly singular; None for none.

    Raises `ValueError` where the result has no density: A of lower rank than m, without noise in these directions.
    """
    matrix = jnp.asarray(matrix)
    found = push_components(components_of(law), matrix, jnp.asarray(shift), noise)
    if not isinstance(found.mean, Tracer) and not np.isfinite(np.asarray(found.scale_tril)).all():
        raise ValueError(
            "The result has no density: `matrix` maps into fewer dimensions than it has rows, and `noise` does not "
            "fill the others. Give a `noise` that is positive definite there."
        )
    return mixture_of(found, scalar=is_scalar(law) and len(matrix) == 1)


def push_components(parts: Components, matrix: Array, shift: ArrayLike, noise: ArrayLike | None) -> Components:
    """As `push_forward`, of components."""
    if matrix.ndim != 2 or matrix.shape[1] != parts.size:
        raise ValueError(f"`matrix` must have shape (m, {parts.size}); got {matrix.shape}.")
    mean = parts.mean @ matrix.T + shift
    covariance = matrix @ parts.covariance @ matrix.T + (0.0 if noise is None else jnp.asarray(noise))
    return _with_covariance(parts.log_weights, mean, covariance)


def moments(law: Any) -> tuple[Float[Array, "... n"], Float[Array, "... n n"]]:
    """Mean and covariance of a mixture of normals; numbers for one on the line."""
    parts = components_of(law)
    mean, covariance = mixture_moments(parts)
    return (mean[..., 0], covariance[..., 0, 0]) if is_scalar(law) else (mean, covariance)


def mixture_moments(parts: Components) -> tuple[Array, Array]:
    """Mean `(..., n)` and covariance `(..., n, n)` of all components together."""
    weights = jnp.exp(parts.log_weights)
    mean = jnp.einsum("...k,...ki->...i", weights, parts.mean)
    off = parts.mean - mean[..., None, :]
    spread = parts.covariance + off[..., :, None] * off[..., None, :]
    return mean, jnp.einsum("...k,...kij->...ij", weights, spread)


def moment_match(law: Any) -> dist.Distribution:
    """The normal with the same mean and covariance: of all normals, the one nearest in KL(law || normal)."""
    mean, covariance = moments(law)
    if is_scalar(law):
        return dist.Normal(mean, jnp.sqrt(covariance))
    return dist.MultivariateNormal(mean, covariance_matrix=covariance)


def cdf(law: Any, value: ArrayLike) -> Array:
    """P(x <= value) of a mixture of normals on the line."""
    return _on_line(law).cdf(jnp.asarray(value))


def quantile(law: Any, q: ArrayLike) -> Array:
    """Quantiles of a mixture of normals on the line: `(*q, ...)`, by bisection between those of its components.

    - `q`: probabilities in (0, 1), of any shape.
    """
    law = _on_line(law)
    parts = components_of(law)
    q = jnp.asarray(q, float)
    q = q.reshape(q.shape + (1,) * len(law.batch_shape))
    mean, sd = parts.mean[..., 0], parts.scale_tril[..., 0, 0]
    each = mean + sd * ndtri(q)[..., None]
    live = parts.live  # a component without weight bounds nothing
    low = jnp.min(jnp.where(live, each, jnp.inf), -1)
    high = jnp.max(jnp.where(live, each, -jnp.inf), -1)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        below = law.cdf(middle) < q
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return 0.5 * (low + high)


def log_cholesky(factor: Float[Array, "... n n"]) -> Float[Array, "... p"]:
    """A lower triangular matrix of positive diagonal as p = n (n + 1) / 2 real numbers.

    First the logarithms of the diagonal, then what is below it, row by row.
    """
    rows, columns = jnp.tril_indices(factor.shape[-1], -1)
    return jnp.concatenate([jnp.log(_diagonal(factor)), factor[..., rows, columns]], -1)


def from_log_cholesky(numbers: Float[Array, "... p"], size: int) -> Float[Array, "... n n"]:
    """The inverse of `log_cholesky`, for matrices of `size` rows."""
    rows, columns = jnp.tril_indices(size, -1)
    diagonal = jnp.exp(numbers[..., :size])[..., :, None] * jnp.eye(size)
    return diagonal.at[..., rows, columns].set(numbers[..., size:])


def _with_covariance(log_weights: Array, mean: Array, covariance: Array) -> Components:
    return Components(log_weights, mean, jnp.linalg.cholesky(0.5 * (covariance + _t(covariance))))


def _on_line(law: Any) -> Any:
    if is_scalar(law):
        return law
    parts = components_of(law)
    if parts.size != 1:
        raise ValueError(
            f"`law` has {parts.size} coordinates; this needs one. `marginal(law, i)` gives that of coordinate i."
        )
    return mixture_of(parts, scalar=True)


def _indices(index: int | tuple[int, ...] | list[int], size: int, name: str) -> list[int]:
    chosen = [index] if isinstance(index, int) else list(index)
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= i < size for i in chosen):
        raise ValueError(f"`{name}` must name different coordinates from 0 to {size - 1}; got {index!r}.")
    return chosen


def _block(matrix: Array, rows: list[int], columns: list[int]) -> Array:
    return matrix[..., jnp.asarray(rows)[:, None], jnp.asarray(columns)]


def _t(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, -1, -2)


def _diagonal(matrix: Array) -> Array:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)
