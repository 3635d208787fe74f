"""The random walk that learns its steps: shared by every Metropolis kernel here."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

_ACCEPT = 0.234  # Roberts, Gelman and Gilks (1997): optimal acceptance of a random walk in many dimensions


class Walk(eqx.Module):
    """Normal steps with a covariance and a scale that a warm-up learns.

    - `mean`, `covariance`: of the positions so far, `(d,)` and `(d, d)`.
    - `log_scale`: of the steps, relative to 2.38 / sqrt(d) times the covariance's root.
    - `count`: positions learned from.

    Source: Haario, Saksman and Tamminen (2001), doi:10.2307/3318737; scale as in Andrieu and Thoms (2008),
    doi:10.1007/s11222-008-9110-y, algorithm 4.
    """

    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]
    log_scale: Float[Array, ""]
    count: Int[Array, ""]

    def propose(self, position: Float[Array, " d"], *, key: PRNGKeyArray) -> Float[Array, " d"]:
        """A symmetric step from `position`."""
        size = position.size
        root = jnp.linalg.cholesky(self.covariance + 1e-8 * jnp.eye(size, dtype=position.dtype))
        noise = jr.normal(key, (size,), position.dtype)
        return position + jnp.exp(self.log_scale) * 2.38 / np.sqrt(size) * root @ noise

    def learned(self, position: Float[Array, " d"], acceptance: Float[Array, ""]) -> "Walk":
        """After one more step that ended at `position`, accepted with this probability."""
        count = self.count + 1
        rate = 1.0 / (count + 10.0)
        off = position - self.mean
        return Walk(
            self.mean + rate * off,
            self.covariance + rate * (jnp.outer(off, off) - self.covariance),
            self.log_scale + (acceptance - _ACCEPT) / jnp.sqrt(count.astype(position.dtype)),
            count,
        )


def walk_from(position: Float[Array, " d"], scale: Any) -> Walk:
    """A walk that knows nothing yet: steps of size `scale` in every direction, or with `scale` as covariance (d, d)."""
    dtype = position.dtype
    covariance = scale if np.ndim(scale) == 2 else scale**2 * jnp.eye(position.size)
    return Walk(position, jnp.asarray(covariance, dtype), jnp.zeros((), dtype), jnp.zeros((), int))


def settled(walks: Walk) -> np.ndarray:
    """The covariance to step with once several chains, stacked, have learned: their mean, each at its own scale."""
    scales = np.exp(2 * np.asarray(walks.log_scale))
    return np.mean(np.asarray(walks.covariance) * scales[:, None, None], axis=0)
