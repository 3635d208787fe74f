"""Posteriors of one number by quadrature: what an answer is to be compared with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class GridPosterior(NamedTuple):
    """A posterior on a grid of a number y, any number of problems in front.

    - `points`: `(g,)`, increasing, evenly spaced. `log_density`: `(..., g)`, in nats, of y, normalised.
    """

    points: Float[Array, " g"]
    log_density: Float[Array, "... g"]

    @property
    def mass(self) -> Float[Array, "... g"]:
        """What each point stands for; sums to 1."""
        return jnp.exp(self.log_density) * (self.points[1] - self.points[0])

    def log_prob(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log density at y, linear between points; one y for each problem."""
        step = self.points[1] - self.points[0]
        place = jnp.clip((y - self.points[0]) / step, 0.0, len(self.points) - 1.000001)
        low = place.astype(int)
        ends = [jnp.take_along_axis(self.log_density, (low + i)[..., None], -1)[..., 0] for i in (0, 1)]
        return ends[0] + (place - low) * (ends[1] - ends[0])

    def divergence(self, log_prob: Float[Array, "... g"]) -> Float[Array, "..."]:
        """KL(posterior || other), in nats, where `log_prob` is the other's log density at the points."""
        gap = jnp.where(self.mass > 0, self.log_density - log_prob, 0.0)
        return jnp.sum(self.mass * gap, -1)

    def cdf(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """P(Y <= y), one y for each problem."""
        return jnp.sum(jnp.where(self.points <= y[..., None], self.mass, 0.0), -1)


def grid_posterior(
    points: Float[Array, " g"], log_prior: Float[Array, "... g"], log_likelihood: Float[Array, "... g"]
) -> GridPosterior:
    """The posterior where prior and likelihood have these logarithms, up to constants, at evenly spaced points."""
    joint = log_prior + log_likelihood
    total = jax.nn.logsumexp(joint, -1, keepdims=True) + jnp.log(points[1] - points[0])
    return GridPosterior(points, joint - total)


def log_density_at(law: Any, points: Float[Array, " g"], to_latent: Callable[[Array], Array]) -> Float[Array, "... g"]:
    """Log density of y at points, for the law of a latent x = to_latent(y): with its Jacobian.

    - `law`: NumPyro's, with any batch shape.
    """
    x, slope = to_latent(points), jax.vmap(jax.grad(lambda y: to_latent(y)))(points)
    x = x.reshape(-1, *(1,) * len(law.batch_shape))
    return jnp.moveaxis(law.log_prob(x), 0, -1) + jnp.log(jnp.abs(slope))
