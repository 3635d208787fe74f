"""A target in the space where a weighted population of it has mean 0 and covariance 1."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._density import AbstractDensity, Terms
from ._target import Target
from .weights import weighted_mean


class _Whitened(AbstractDensity):
    """Prior times likelihood to a power, at u = mean + root z."""

    base: AbstractDensity
    inverse_temperature: Float[Array, ""]
    mean: Float[Array, " d"]
    root: Float[Array, "d d"]

    def outward(self, z: PyTree[Array]) -> PyTree[Array]:
        flat, unravel = ravel_pytree(z)
        return unravel(self.mean + self.root @ flat)

    def inward(self, u: PyTree[Array]) -> PyTree[Array]:
        flat, unravel = ravel_pytree(u)
        return unravel(jax.scipy.linalg.solve_triangular(self.root, flat - self.mean, lower=True))

    def terms(self, u) -> Terms:
        terms = self.base.terms(self.outward(u))
        likelihood = jnp.asarray(terms.log_likelihood)
        # Zero times minus infinity: what is impossible stays so.
        tempered = jnp.where(jnp.isneginf(likelihood), -jnp.inf, self.inverse_temperature * likelihood)
        jacobian = terms.log_jacobian + jnp.sum(jnp.log(jnp.diagonal(self.root)))
        return terms._replace(log_likelihood=tempered, log_jacobian=jacobian)

    def structure(self):
        return self.base.structure()

    def unconstrain(self, values):
        return self.inward(self.base.unconstrain(values))

    def example(self):
        return self.base.example()

    def sample_prior(self, key):
        return self.inward(self.base.sample_prior(key))

    def predictive(self, values, key):
        return self.base.predictive(values, key)

    def observations(self):
        return self.base.observations()


class Whitened(eqx.Module):
    """The target in that space, and the way in and out."""

    target: Target

    def inward(self, u: PyTree[Array]) -> PyTree[Array]:
        """The point of that space for an unconstrained position."""
        return self.target.density.inward(u)  # pyright: ignore[reportAttributeAccessIssue]

    def outward(self, z: PyTree[Array]) -> PyTree[Array]:
        """The unconstrained position of a point of that space."""
        return self.target.density.outward(z)  # pyright: ignore[reportAttributeAccessIssue]


def whitened(
    target: Target,
    inverse_temperature: Float[Array, ""],
    positions: PyTree[Array],
    log_weights: Float[Array, " n"],
) -> Whitened:
    """`target`, its likelihood tempered, in the space of a weighted population of it.

    Where the particles span no volume (fewer than dimensions, or all alike), what lacks is filled up from their scale.
    """
    flat = jax.vmap(lambda u: ravel_pytree(u)[0])(positions)
    mean = weighted_mean(flat, log_weights)
    off = jnp.exp(log_weights)[:, None] * (flat - mean)
    covariance = off.T @ (flat - mean)
    variance = jnp.diagonal(covariance)
    scale = jnp.maximum(jnp.mean(variance), 1e-12)
    sd = jnp.sqrt(jnp.where(variance > 1e-12 * scale, variance, scale))
    # Of correlations, so that what is filled up is little beside each coordinate's own scale.
    correlation = covariance / jnp.outer(sd, sd) + 1e-5 * jnp.eye(flat.shape[1], dtype=flat.dtype)
    root = sd[:, None] * jnp.linalg.cholesky(correlation)
    density = _Whitened(target.density, inverse_temperature, mean, root)
    return Whitened(eqx.tree_at(lambda t: t.density, target, density))
