"""Bearing and range of a target in the plane: two sensors, clutter, and motion to filter."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._meta_prior import MixtureMetaPrior
from ._problem import InferenceProblem


class BearingRange(eqx.Module):
    r"""A position in the plane, seen by a sensor of bearings and a rangefinder with outliers, both at the origin.

    The bearing atan2(x, y) has normal noise, wrapped, and is given as its sine and cosine. The range r has three parts:
    0.7 N(r, (0.1 (r + 1))^2), 0.2 Exp(1), 0.1 U(0, 20), clipped to [0, 20]. The target moves by
    $x' = m + 0.95 (x - m) + N(0, Q)$, Q = step_sd^2 I, about m = (1, 1).

    - `num_components`: of the priors trained on.
    - `bearing_sd`: in radians. `step_sd`: of a step.

    Source: Whittle et al. (2025), arXiv:2502.02463, section 4.3.1, reduced from four to two dimensions: positions
    without velocities.
    """

    num_components: int = 4
    bearing_sd: float = 0.1
    step_sd: float = 0.3
    shares: tuple[float, float, float] = (0.7, 0.2, 0.1)
    furthest: float = 20.0

    def meta_prior(self) -> MixtureMetaPrior:
        """Of positions: means N(0, I + 11'), precisions Wishart(3, 4 I)."""
        mean_covariance = jnp.eye(2) + jnp.ones((2, 2))
        return MixtureMetaPrior(
            self.num_components, 2, mean_covariance=mean_covariance, precision_scale=4.0, least_precision=1e-2
        )

    def simulate(self, latent: Float[Array, " 2"], *, key: PRNGKeyArray) -> dict[str, Array]:
        """Sources "bearing" `(2,)`, sine and cosine, and "range", a number."""
        key_bearing, key_part, key_range = jr.split(key, 3)
        bearing = jnp.arctan2(latent[0], latent[1]) + self.bearing_sd * jr.normal(key_bearing)
        r = jnp.linalg.norm(latent)
        part, u = jr.uniform(key_part), jr.uniform(key_range)
        near = r + 0.1 * (r + 1) * jax.scipy.special.ndtri(jnp.clip(u, 1e-7, 1 - 1e-7))
        early, anywhere = -jnp.log1p(-u), self.furthest * u
        first, second, _ = self.shares
        seen = jnp.where(part < first, near, jnp.where(part < first + second, early, anywhere))
        return {"bearing": jnp.stack([jnp.sin(bearing), jnp.cos(bearing)]), "range": jnp.clip(seen, 0, self.furthest)}

    def problem(self) -> InferenceProblem:
        """To be learned."""
        return InferenceProblem(self.meta_prior(), self.simulate)

    def log_likelihood(self, latent: Float[Array, "... 2"], observed: dict[str, Array]) -> Float[Array, "..."]:
        """Of both sensors, in nats, at positions `(..., 2)`; a sensor may be missing.

        Clipped ranges have a probability, others a density.
        """
        total = jnp.zeros(jnp.shape(latent)[:-1])
        if "bearing" in observed:
            seen = jnp.arctan2(observed["bearing"][..., 0], observed["bearing"][..., 1])
            off = seen - jnp.arctan2(latent[..., 0], latent[..., 1])
            turns = off[..., None] + 2 * jnp.pi * jnp.arange(-1, 2)
            total = total + jax.nn.logsumexp(-0.5 * (turns / self.bearing_sd) ** 2, -1)
            total = total - jnp.log(self.bearing_sd) - 0.5 * jnp.log(2 * jnp.pi)
        if "range" in observed:
            z, r = observed["range"], jnp.linalg.norm(latent, axis=-1)
            sd = 0.1 * (r + 1)
            first, second, third = self.shares
            inside = first * jnp.exp(-0.5 * ((z - r) / sd) ** 2) / (sd * jnp.sqrt(2 * jnp.pi))
            inside = inside + second * jnp.exp(-z) + third / self.furthest
            below = first * jax.scipy.special.ndtr(-r / sd)
            above = first * jax.scipy.special.ndtr((r - self.furthest) / sd) + second * jnp.exp(-self.furthest)
            total = total + jnp.log(jnp.where(z <= 0, below, jnp.where(z >= self.furthest, above, inside)))
        return total

    def expected(self, latent: Float[Array, " 2"]) -> tuple[Float[Array, " 3"], Float[Array, "3 3"]]:
        """Mean and covariance of (sine, cosine, range) at a position, but for clipping: for Kalman filters."""
        b, r, decay = jnp.arctan2(latent[0], latent[1]), jnp.linalg.norm(latent), self.bearing_sd**2
        first, second, third = self.shares
        mean_range = first * r + second + third * self.furthest / 2
        square_range = first * (r**2 + (0.1 * (r + 1)) ** 2) + 2 * second + third * self.furthest**2 / 3
        mean = jnp.exp(-decay / 2) * jnp.stack([jnp.sin(b), jnp.cos(b)])
        twice = jnp.exp(-2 * decay)
        square = 0.5 * jnp.array([
            [1 - twice * jnp.cos(2 * b), twice * jnp.sin(2 * b)], [twice * jnp.sin(2 * b), 1 + twice * jnp.cos(2 * b)]
        ])  # fmt: skip
        covariance = jnp.zeros((3, 3)).at[:2, :2].set(square - jnp.outer(mean, mean))
        return jnp.append(mean, mean_range), covariance.at[2, 2].set(square_range - mean_range**2)

    @property
    def centre(self) -> Array:
        """m, which motion returns to."""
        return jnp.ones(2)

    def dynamics(self) -> tuple[Array, Array, Array]:
        """A, b and Q of x' = A x + b + N(0, Q)."""
        matrix = 0.95 * jnp.eye(2)
        return matrix, self.centre - matrix @ self.centre, self.step_sd**2 * jnp.eye(2)

    def track(self, num_steps: int, *, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        """A path `(steps, 2)` from N(m, I), and data of each step."""
        matrix, shift, noise = self.dynamics()

        def step(x, key):
            key_move, key_see = jr.split(key)
            data = self.simulate(x, key=key_see)
            return matrix @ x + shift + jnp.linalg.cholesky(noise) @ jr.normal(key_move, (2,)), (x, data)

        key_first, key_steps = jr.split(key)
        first = self.centre + jr.normal(key_first, (2,))
        return jax.lax.scan(step, first, jr.split(key_steps, num_steps))[1]
