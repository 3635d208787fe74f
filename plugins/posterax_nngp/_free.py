r"""Conditioning with noise that does not scale: $y \mid s \sim N(0, s K + \tau I)$, by one eigendecomposition.

With $K = U \Lambda U'$ every value of $s$ costs $O(n)$. There is no closed form: a discrete prior is summed over its
atoms, for any other it is quadrature in $\log s$. The gradient is an average over $s$, taken by hand: an
eigendecomposition has none where eigenvalues meet.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float
from numpyro.distributions import Delta, Distribution

from ._kernel import Kernel
from ._priors import Atoms
from ._scale import atoms
from ._scale_nodes import integrate
from ._scale_prior import log_density
from ._solve import State, above_rounding


def condition(kernel: Kernel, x: Array, y: Float[Array, "n m"]) -> State:
    """Eigenvalues and vectors of the Gram matrix, and the outputs in that basis."""
    return decompose(kernel.nngp(x), y)


def decompose(gram: Float[Array, "n n"], y: Float[Array, "n m"]) -> State:
    """As `condition`. Eigenvalues below zero are rounding: they become zero, and the worst is reported as `jitter`."""
    values, vectors = jnp.linalg.eigh(gram)
    size = jnp.maximum(jnp.max(jnp.abs(values)), jnp.finfo(gram.dtype).tiny)
    return {
        "values": jnp.maximum(values, 0),
        "vectors": vectors,
        "projected": vectors.T @ y,
        "jitter": jnp.maximum(-values[0] / size, 0),
    }


def log_evidence(
    prior: Distribution, kernel: Kernel, noise: Any, x: Array, y: Float[Array, "n m"]
) -> tuple[Array, Array]:
    """Log p(y), and the jitter. Its first derivatives are exact; second ones are not defined."""
    gram = kernel.nngp(x)
    fixed = jax.lax.stop_gradient
    state = decompose(fixed(gram), y)
    scales, log_terms = terms(prior, state, fixed(noise))
    total = logsumexp(log_terms)  # with its gradient in the prior
    scales, shares = fixed((scales, jnp.exp(log_terms - total)))
    # What follows has the value zero, and the gradient: averages over s of those of log N(y; 0, s K + noise I).
    variances = scales[:, None] * state["values"] + fixed(noise)  # (S, n)
    m, squares = y.shape[1], jnp.sum(state["projected"] ** 2, axis=1)
    on_diagonal = -0.5 * m * (shares * scales) @ (1 / variances)
    solved = state["projected"][None] / variances[..., None] * jnp.sqrt(0.5 * shares * scales)[:, None, None]
    flat = jnp.moveaxis(solved, 1, 0).reshape(len(y), -1)
    inner = flat @ flat.T + jnp.diag(on_diagonal)
    on_gram = state["vectors"] @ inner @ state["vectors"].T
    on_noise = shares @ jnp.sum(-0.5 * m / variances + 0.5 * squares / variances**2, axis=1)
    zero = jnp.sum(fixed(on_gram) * (gram - fixed(gram))) + fixed(on_noise) * (noise - fixed(noise))
    return total + zero, state["jitter"]


def terms(prior: Distribution, state: State, noise: Any) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Scales, and logs of what each adds to p(y): every atom of a discrete prior, else by quadrature (S = 768)."""

    def log_likelihood(scales):
        squares, m = jnp.sum(state["projected"] ** 2, axis=1), state["projected"].shape[1]
        variances = scales[..., None] * state["values"] + noise
        return -0.5 * jnp.sum(squares / variances + m * jnp.log(2 * np.pi * variances), axis=-1)

    if isinstance(prior, (Delta, Atoms)):
        scales, log_weights = atoms(prior)
        return scales, log_weights + log_likelihood(scales)
    log_h, *support = log_density(prior)
    log_f = lambda t: log_h(t) + log_likelihood(jnp.exp(t))  # noqa: E731
    nodes, log_weights = integrate(log_f, *support)
    return jnp.exp(nodes), log_weights + log_f(nodes)


def predict(
    kernel: Kernel, state: State, noise: Any, x: Array, new: Array, scales: Float[Array, " S"], *, joint: bool
) -> tuple[Array, Array]:
    """For each scale: mean `(S, k, m)`, and covariance of the function `(S, k, k)` if `joint`, else `(S, k)`."""
    cross = kernel.nngp(new, x) @ state["vectors"]  # (k, n)
    shrink = 1 / (state["values"] + noise / scales[:, None])  # (S, n)
    mean = jnp.einsum("kn,sn,nm->skm", cross, shrink, state["projected"])
    if joint:
        explained = jax.lax.map(lambda row: (cross * row) @ cross.T, shrink)
        return mean, scales[:, None, None] * (kernel.nngp(new) - explained)
    prior = kernel.diag(new)
    return mean, scales[:, None] * above_rounding(prior - shrink @ (cross**2).T, prior)


def leave_one_out(state: State, noise: Any, y: Array, scales: Array, log_weights: Array) -> tuple[Array, Array]:
    """Log density of each row given all others `(n,)`, and its mean `(n, m)`.

    Given s as in regression; the law of s given the others is that given all, divided by the row's own density.
    """
    m = y.shape[1]

    def given(scale):
        inverse = 1 / (scale * state["values"] + noise)
        precision = (state["vectors"] ** 2) @ inverse
        residual = state["vectors"] @ (inverse[:, None] * state["projected"]) / precision[:, None]
        log_density = 0.5 * m * jnp.log(precision / (2 * np.pi)) - 0.5 * precision * jnp.sum(residual**2, axis=1)
        return log_density, y - residual

    log_densities, means = jax.lax.map(given, scales)
    log_shares = log_weights[:, None] - log_densities
    total = logsumexp(log_shares, axis=0)
    return logsumexp(log_weights) - total, jnp.einsum("sn,snm->nm", jnp.exp(log_shares - total), means)
