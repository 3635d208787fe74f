r"""Exact conditioning under tied noise, $y \mid s \sim N(0, s C)$ with $C = K + \epsilon I$: one Cholesky factor."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ._kernel import Kernel

State = dict[str, Array]
_JITTERS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6)


def factorise(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    """The lower Cholesky factor, and what had to be added to the diagonal for it, relative to the mean diagonal.

    First nothing is added, then 1e-14 to 1e-6 as needed; a matrix that needs more gives NaN.
    """
    size = jnp.mean(jnp.diagonal(matrix))
    jitters = jnp.asarray((0.0, *_JITTERS, jnp.nan), matrix.dtype)

    def factor(level):
        noisier = matrix + jitters[level] * size * jnp.eye(len(matrix), dtype=matrix.dtype)
        return jnp.tril(jax.lax.linalg.cholesky(noisier, symmetrize_input=False))

    def again(carry):
        level, lower = carry
        return (level < len(_JITTERS)) & ~jnp.isfinite(lower[-1, -1])

    level, lower = jax.lax.while_loop(again, lambda carry: (carry[0] + 1, factor(carry[0] + 1)), (0, factor(0)))
    return lower, jitters[level]


@jax.custom_vjp
def quad_and_logdet(c: Float[Array, "n n"], y: Float[Array, "n m"]) -> tuple[Array, Array, Array]:
    r"""$\mathrm{tr}(Y' C^{-1} Y)$, $\log |C|$, and the relative jitter that was needed.

    The gradient is taken by hand: $-C^{-1} Y Y' C^{-1}$ and $C^{-1}$, a third of what differentiating the factor costs.
    """
    return _quad_and_logdet(c, y)[0]


def _quad_and_logdet(c, y):
    lower, jitter = factorise(c)
    white = solve_triangular(lower, y, lower=True)
    return (jnp.sum(white**2), 2 * jnp.sum(jnp.log(jnp.diagonal(lower))), jitter), (lower, white)


def _backward(saved, cotangents):
    lower, white = saved
    on_quad, on_logdet, _ = cotangents
    weights = solve_triangular(lower, white, lower=True, trans=1)
    inverse = cho_solve((lower, True), jnp.eye(len(lower), dtype=lower.dtype))
    return on_logdet * inverse - on_quad * (weights @ weights.T), 2 * on_quad * weights


quad_and_logdet.defvjp(_quad_and_logdet, _backward)


def noisy(gram: Float[Array, "n n"], noise: Any) -> Float[Array, "n n"]:
    """`gram` with `noise` on its diagonal."""
    return gram + noise * jnp.eye(len(gram), dtype=gram.dtype)


def evidence_terms(kernel: Kernel, noise: Any, x: Array, y: Float[Array, "n m"]) -> tuple[Array, Array, Array]:
    """`quad_and_logdet` of the noisy Gram matrix."""
    return quad_and_logdet(noisy(kernel.nngp(x), noise), y)


def condition(kernel: Kernel, noise: Any, x: Array, y: Float[Array, "n m"]) -> State:
    """What predictions need: the factor, the weights $C^{-1} Y$, and the terms of the evidence."""
    lower, jitter = factorise(noisy(kernel.nngp(x), noise))
    white = solve_triangular(lower, y, lower=True)
    weights = solve_triangular(lower, white, lower=True, trans=1)
    return {
        "factor": lower,
        "weights": weights,
        "quad": jnp.sum(white**2),
        "logdet": 2 * jnp.sum(jnp.log(jnp.diagonal(lower))),
        "jitter": jitter,
    }


def predict(kernel: Kernel, state: State, x: Array, new: Array, *, joint: bool) -> tuple[Array, Array]:
    """Mean `(k, m)` and unit-scale covariance of the function at `new`: `(k, k)` if `joint`, else its diagonal."""
    cross = kernel.nngp(new, x)
    explained = solve_triangular(state["factor"], cross.T, lower=True)
    mean = cross @ state["weights"]
    if joint:
        return mean, kernel.nngp(new) - explained.T @ explained
    prior = kernel.diag(new)
    return mean, above_rounding(prior - jnp.sum(explained**2, axis=0), prior)


def above_rounding(variance: Array, prior: Array) -> Array:
    """Variances no smaller than rounding of those before the data: at data without noise they would be zero."""
    return jnp.maximum(variance, jnp.finfo(prior.dtype).eps * prior)


def leave_one_out(state: State, y: Float[Array, "n m"]) -> tuple[Array, Array, Array]:
    """Each row given all others: mean `(n, m)`, unit-scale variance `(n,)` of the row, and the others' quad `(n,)`.

    Source: Rasmussen and Williams (2006), eq. 5.12; the quadratic form loses its row's share.
    """
    inverse = cho_solve((state["factor"], True), jnp.eye(len(y), dtype=y.dtype))
    precision = jnp.diagonal(inverse)
    mean = y - state["weights"] / precision[:, None]
    quad = state["quad"] - jnp.sum(state["weights"] ** 2, axis=1) / precision
    return mean, 1 / precision, jnp.maximum(quad, 0)
