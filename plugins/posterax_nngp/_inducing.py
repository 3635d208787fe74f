r"""Sparse conditioning by inducing points, tied noise: memory $O(n M)$, time $O(n M^2)$, any number of rows.

Given $s$ this is the variational bound of Titsias (2009). Under tied noise its trace term has no $s$ in it, so that
integrating over $s$ stays exact, whatever the prior: $\log p(y) \ge \log \int N(y; 0, s (Q + \epsilon I)) dH(s)
- m\,\mathrm{tr}(K - Q) / 2\epsilon$ with $Q = K_{XZ} K_{ZZ}^{-1} K_{ZX}$.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ._kernel import Kernel
from ._solve import State, above_rounding, factorise

_ROWS = 4096


def evidence_terms(
    kernel: Kernel, noise: Any, x: Array, y: Float[Array, "n m"], inducing: Array
) -> tuple[Array, Array, Array, Array]:
    """The quadratic form and log determinant of Q + noise, the trace penalty in nats, and the jitter."""
    state = condition(kernel, noise, x, y, inducing)
    return state["quad"], state["logdet"], state["penalty"], state["jitter"]


def condition(kernel: Kernel, noise: Any, x: Array, y: Float[Array, "n m"], inducing: Array) -> State:
    """What predictions and the bound need. Rows are treated some thousands at a time."""
    n, m = y.shape
    lower, jitter = _factor(kernel.nngp(inducing))
    blocks = -(-n // _ROWS)
    padding = blocks * _ROWS - n
    rows = jnp.arange(blocks * _ROWS).reshape(blocks, _ROWS) if padding or blocks > 1 else jnp.arange(n)[None]

    @jax.checkpoint
    def one(index):
        real = (index < n)[:, None]
        at = jnp.minimum(index, n - 1)
        white = solve_triangular(lower, kernel.nngp(inducing, x[at]), lower=True) * real.T
        target = y[at] * real
        residual = jnp.sum(jnp.where(real[:, 0], kernel.diag(x[at]), 0)) - jnp.sum(white**2)
        return white @ white.T, white @ target, residual, jnp.sum(target**2)

    def add(total, index):
        return jax.tree.map(jnp.add, total, one(index)), None

    dim, dtype = len(inducing), y.dtype
    zero = jnp.zeros((dim, dim), dtype), jnp.zeros((dim, m), dtype), jnp.zeros((), dtype), jnp.zeros((), dtype)
    (square, cross, residual, total), _ = jax.lax.scan(add, zero, rows)
    inner, jitter_inner = _factor(jnp.eye(dim, dtype=dtype) + square / noise)
    projected = solve_triangular(inner, cross, lower=True) / noise
    return {
        "inducing": inducing,
        "factor": lower,
        "inner": inner,
        "projected": projected,
        "quad": total / noise - jnp.sum(projected**2),
        "logdet": n * jnp.log(noise) + 2 * jnp.sum(jnp.log(jnp.diagonal(inner))),
        "penalty": 0.5 * m * jnp.maximum(residual, 0) / noise,
        "jitter": jnp.maximum(jitter, jitter_inner),
    }


def predict(kernel: Kernel, state: State, new: Array, *, joint: bool) -> tuple[Array, Array]:
    """Mean `(k, m)` and unit-scale covariance of the function at `new`: `(k, k)` if `joint`, else its diagonal."""
    prior = solve_triangular(state["factor"], kernel.nngp(state["inducing"], new), lower=True)
    posterior = solve_triangular(state["inner"], prior, lower=True)
    mean = posterior.T @ state["projected"]
    if joint:
        return mean, kernel.nngp(new) - prior.T @ prior + posterior.T @ posterior
    before = kernel.diag(new)
    variance = before - jnp.sum(prior**2, axis=0) + jnp.sum(posterior**2, axis=0)
    return mean, above_rounding(variance, before)


def _factor(matrix: Array) -> tuple[Array, Array]:
    # JAX differentiates through a loop only forwards: the search for the jitter takes no part in the gradient.
    _, jitter = factorise(jax.lax.stop_gradient(matrix))
    size = jnp.mean(jnp.diagonal(jax.lax.stop_gradient(matrix)))
    return jnp.linalg.cholesky(matrix + jitter * size * jnp.eye(len(matrix), dtype=matrix.dtype)), jitter
