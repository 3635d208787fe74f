"""How a state moves between data: mixtures of normals pushed through it, exactly or by sigma points."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._algebra import push_components
from ._mixture import Components


class Dynamics(eqx.Module):
    """x' = f(x) + N(0, Q)."""

    @abc.abstractmethod
    def push(self, parts: Components) -> Components:
        """The law of x', of that of x; weights stay."""


class LinearDynamics(Dynamics):
    """x' = A x + b + N(0, Q): exact.

    - `matrix`: A `(n, n)`. `noise`: Q `(n, n)`, a covariance. `shift`: b `(n,)`.
    """

    matrix: Float[Array, "n n"]
    noise: Float[Array, "n n"]
    shift: Float[Array, " n"] | float = 0.0

    def push(self, parts):
        """Component by component."""
        return push_components(parts, jnp.asarray(self.matrix), jnp.asarray(self.shift), self.noise)


class SigmaPoints(Dynamics):
    """x' = f(x) + N(0, Q), each component by the unscented transform: means and covariances right to second order.

    - `function`: f, of one state `(n,)`.
    - `noise`: Q `(n, n)`, a covariance.
    - `spread`: points lie at sqrt(n + spread) standard deviations; 3 - n by default, at least 0.

    Source: Julier and Uhlmann (1997).
    """

    function: Callable[[Array], Array]
    noise: Float[Array, "n n"]
    spread: float | None = None

    def push(self, parts):
        """Component by component."""
        size = parts.size
        kappa = max(3.0 - size, 0.0) if self.spread is None else self.spread
        steps = jnp.sqrt(size + kappa) * jnp.swapaxes(parts.scale_tril, -1, -2)  # (..., K, n, n), rows are steps
        centre = parts.mean[..., None, :]
        points = jnp.concatenate([centre, centre + steps, centre - steps], -2)
        moved = jax.vmap(self.function)(points.reshape(-1, size)).reshape(points.shape)
        weights = jnp.full(2 * size + 1, 0.5 / (size + kappa)).at[0].set(kappa / (size + kappa))
        mean = jnp.einsum("p,...pi->...i", weights, moved)
        off = moved - mean[..., None, :]
        covariance = jnp.einsum("p,...pi,...pj->...ij", weights, off, off) + self.noise
        return Components(parts.log_weights, mean, jnp.linalg.cholesky(covariance))
