"""Random-walk Metropolis: the sampler that needs nothing but the density."""

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from posterax import Sampler

from ._walk import Walk, settled, walk_from


class RandomWalkState(eqx.Module):
    """Where the chain is, and what it has learned."""

    position: PyTree[Array]
    log_density: Float[Array, ""]
    walk: Walk


class RandomWalkInfo(NamedTuple):
    """What one step tells, under ArviZ's names."""

    lp: Float[Array, ""]  # log density of unconstrained space, up to a constant
    acceptance_rate: Float[Array, ""]  # the probability with which the step was accepted


class RandomWalk(Sampler):
    """Metropolis with normal steps whose covariance and scale the warm-up learns.

    - `num_warmup`: steps that learn. With 0, steps have standard deviations 2.38 `scale` / sqrt(d), as suits a target
      of that many dimensions whose coordinates have standard deviation `scale`.
    - `scale`: a number, or a matrix (d, d): the covariance to step with, of the position flattened in the order of
      `jax.flatten_util.ravel_pytree`.

    Source: Metropolis et al. (1953), doi:10.1063/1.1699114; Haario, Saksman and Tamminen (2001), doi:10.2307/3318737.
    """

    num_warmup: int = 1000
    scale: float | Float[Array, "d d"] = 1.0

    def __check_init__(self):
        if not isinstance(self.num_warmup, int) or self.num_warmup < 0:
            raise ValueError(f"`num_warmup` must be an integer, 0 or more; got {self.num_warmup!r}.")
        if isinstance(self.scale, Tracer) or np.ndim(self.scale) == 2:
            return
        if np.ndim(self.scale) != 0 or not 0 < float(self.scale) < np.inf:
            raise ValueError(f"`scale` must be positive and finite, or a covariance (d, d); got {self.scale!r}.")

    def init(self, target, position, *, key):
        """The chain at `position`."""
        del key
        flat, _ = ravel_pytree(position)
        return RandomWalkState(position, target.log_density(position), walk_from(flat, self.scale))

    def step(self, target, state, *, key):
        """One proposal, accepted or not."""
        key_step, key_accept = jr.split(key)
        flat, unravel = ravel_pytree(state.position)
        proposed = state.walk.propose(flat, key=key_step)
        log_density = target.log_density(unravel(proposed))
        log_ratio = jnp.where(jnp.isnan(log_density), -jnp.inf, log_density - state.log_density)
        acceptance = jnp.exp(jnp.minimum(log_ratio, 0.0))
        accepted = jr.uniform(key_accept, dtype=flat.dtype) < acceptance
        flat = jnp.where(accepted, proposed, flat)
        log_density = jnp.where(accepted, log_density, state.log_density)
        walk = state.walk
        if self.num_warmup:
            learning = walk.count < self.num_warmup
            walk = jax.tree.map(lambda new, old: jnp.where(learning, new, old), walk.learned(flat, acceptance), walk)
        return RandomWalkState(unravel(flat), log_density, walk), RandomWalkInfo(log_density, acceptance)

    def position(self, state):
        """Where the chain is."""
        return state.position

    def log_density(self, state):
        """The target's log density there."""
        return state.log_density

    def frozen(self, states) -> Self:
        """Steps with the covariance that the chains have learned."""
        return type(self)(num_warmup=0, scale=jnp.asarray(settled(states.walk))) if self.num_warmup else self
