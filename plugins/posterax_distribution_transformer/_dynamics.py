"""How a state moves between data, and how data that are no network's bear on it: exactly or by sigma points."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._algebra import absorbed, push_components
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
        points, weights = sigma_points(parts, self.spread)
        mean, _, covariance = _summed(_each(self.function, points), weights)
        return Components(parts.log_weights, mean, jnp.linalg.cholesky(covariance + self.noise))


class SigmaPointUpdate(eqx.Module):
    """The update by data z = h(x) + noise, each component by the unscented transform: for `filter_mixture`.

    With one component it is the unscented Kalman filter's, with more a Gaussian-sum filter's; where h is linear and
    the noise normal it is exact.

    - `function`: h, of one state `(n,)`, gives the mean of z, `(m,)`.
    - `noise`: R `(m, m)`, a covariance; or a function of one state that gives it: its mean over the points is taken.
    - `spread`: as of `SigmaPoints`.

    Source: Julier and Uhlmann (1997); for mixtures Alspach and Sorenson (1972).
    """

    function: Callable[[Array], Array]
    noise: Float[Array, "m m"] | Callable[[Array], Array]
    spread: float | None = None

    def __call__(self, parts: Components, seen: Float[Array, " m"]) -> Components:
        """The law of x given z, of that before."""
        points, weights = sigma_points(parts, self.spread)
        mean, off, covariance = _summed(_each(self.function, points), weights)
        if callable(self.noise):
            covariance = covariance + jnp.einsum("p,...pij->...ij", weights, _each(self.noise, points))
        else:
            covariance = covariance + self.noise
        across = jnp.einsum("p,...pi,...pj->...ij", weights, points - parts.mean[..., None, :], off)
        log_weights, mean, half, _ = absorbed(parts, seen - mean, across, covariance)
        return Components(log_weights, mean, jnp.linalg.cholesky(parts.covariance - jnp.swapaxes(half, -1, -2) @ half))


def sigma_points(parts: Components, spread: float | None) -> tuple[Array, Array]:
    """Points `(..., K, 2 n + 1, n)` of each component, and their weights: see `SigmaPoints`."""
    size = parts.size
    kappa = max(3.0 - size, 0.0) if spread is None else spread
    steps = jnp.sqrt(size + kappa) * jnp.swapaxes(parts.scale_tril, -1, -2)  # (..., K, n, n), rows are steps
    centre = parts.mean[..., None, :]
    points = jnp.concatenate([centre, centre + steps, centre - steps], -2)
    return points, jnp.full(2 * size + 1, 0.5 / (size + kappa)).at[0].set(kappa / (size + kappa))


def _each(function: Callable[[Array], Array], points: Array) -> Array:
    found = jax.vmap(function)(points.reshape(-1, points.shape[-1]))
    return found.reshape(*points.shape[:-1], *found.shape[1:])


def _summed(values: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Mean of the values at the points, what they are off it, and covariance."""
    mean = jnp.einsum("p,...pi->...i", weights, values)
    off = values - mean[..., None, :]
    return mean, off, jnp.einsum("p,...pi,...pj->...ij", weights, off, off)
