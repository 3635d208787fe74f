"""A few nodes in place of many: the Gauss rule of a discrete law."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def compress(
    nodes: Float[Array, " S"], log_weights: Float[Array, " S"], num: int
) -> tuple[Float[Array, " num"], Float[Array, " num"]]:
    """`num` nodes and log-weights with the same first 2 num - 1 moments; as they are where there are no more.

    By the Lanczos process with full orthogonalisation. Source: Gautschi (2004), Orthogonal polynomials, section 2.2.
    """
    if len(nodes) <= num:
        return nodes, log_weights
    weights = jnp.exp(log_weights - jax.nn.logsumexp(log_weights))
    centre = weights @ nodes
    width = jnp.sqrt(weights @ (nodes - centre) ** 2)
    scaled = (nodes - centre) / jnp.where(width > 0, width, 1)
    basis = jnp.zeros((num, len(nodes)), nodes.dtype).at[0].set(jnp.sqrt(weights))

    def step(j, carry):
        basis, alpha, beta = carry
        product = scaled * basis[j]
        alpha = alpha.at[j].set(product @ basis[j])
        for _ in range(2):
            product = product - (basis @ product) @ basis
        size = jnp.linalg.norm(product)
        alive = size > 1e-13
        following = jnp.where(alive, product / jnp.where(alive, size, 1), 0)
        basis = basis.at[j + 1].set(following, mode="drop")
        return basis, alpha, beta.at[j].set(jnp.where(alive, size, 0))

    zero = jnp.zeros(num, nodes.dtype)
    _, alpha, beta = jax.lax.fori_loop(0, num, step, (basis, zero, zero))
    values, vectors = jnp.linalg.eigh(jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1))
    shares = vectors[0] ** 2
    return centre + width * values, jnp.log(jnp.maximum(shares, jnp.finfo(shares.dtype).tiny))


def compressed_scales(rule: tuple[Array, Array], num: int) -> tuple[Float[Array, " num"], Float[Array, " num"]]:
    """`compress` in the logarithms of scales; `rule`: scales and log-weights, as `atoms` gives them."""
    scales, log_weights = rule
    nodes, log_weights = compress(jnp.log(scales), log_weights, num)
    return jnp.exp(nodes), log_weights
