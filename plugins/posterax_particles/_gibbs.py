"""Particle Gibbs: states given parameters by conditional filters, parameters given states by Metropolis."""

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from posterax import Sampler

from ._conditional import check_particles, conditional_sweep
from ._posterior import StateSpaceDensity, require_state_space
from ._random_walk import RandomWalk, RandomWalkState
from ._walk import Walk, settled, walk_from


class ParticleGibbsState(eqx.Module):
    """Parameters (unconstrained) and states, and what the moves of the parameters have learned."""

    parameters: dict[str, Array]
    states: Array
    walk: Walk


class ParticleGibbsInfo(NamedTuple):
    """What one sweep tells."""

    renewed: Float[Array, ""]  # share of the states that are not those of the sweep before
    acceptance_rate: Float[Array, ""]  # of the moves of the parameters; 1 where there are none


class ParticleGibbs(Sampler):
    """Sweeps over states and parameters of a state-space model, each exact given the other.

    Samples targets made by `state_space_target`. The parameters move by a random walk that learns in the warm-up, or by
    a sampler of the user's choice.

    - `num_particles`: of the conditional filter, at least 2; about as many as there are times, or some tens with
      ancestor sampling.
    - `num_warmup`: sweeps in which the random walk learns; 0 where `moves` does without.
    - `ancestor_sampling`: give the reference a new past at each time: with few particles, early states hardly move
      without it.
    - `moves`: any sampler without warm-up, run on the parameters with the states held fixed; None for the random walk.
    - `num_moves`: its steps in each sweep.
    - `scale`: of the random walk's first steps; or, after a warm-up, the covariance that it has learned.

    Source: Andrieu, Doucet and Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x; Lindsten, Jordan and Schon
    (2014), http://jmlr.org/papers/v15/lindsten14a.html.
    """

    num_particles: int = 50
    num_warmup: int = 500
    ancestor_sampling: bool = True
    moves: Sampler | None = None
    num_moves: int = 5
    scale: float | Float[Array, "d d"] = 1.0

    def __check_init__(self):
        check_particles(self.num_particles)
        if self.moves is not None and self.moves.num_warmup:
            raise ValueError(
                f"`moves` must not adapt, as its target changes with every sweep; {type(self.moves).__name__} has "
                f"num_warmup={self.moves.num_warmup}. Freeze it: `num_warmup=0` and settings of your choice."
            )
        if self.num_moves < 1:
            raise ValueError(f"`num_moves` must be at least 1; got {self.num_moves!r}.")

    def init(self, target, position, *, key):
        """The sweep starts from the path and parameters of `position`."""
        del key
        require_state_space(target, "ParticleGibbs")
        parameters = {name: leaf for name, leaf in position.items() if name != "states"}
        walk = walk_from(ravel_pytree(parameters)[0], self.scale)
        return ParticleGibbsState(parameters, position["states"], walk)

    def step(self, target, state, *, key):
        """One sweep."""
        density = require_state_space(target, "ParticleGibbs")
        key_states, key_moves = jr.split(key)
        model = density.feynman_kac(values_of(density, state.parameters))
        states = conditional_sweep(
            model, state.states, self.num_particles, key=key_states, ancestor_sampling=self.ancestor_sampling
        )
        renewed = jnp.mean(states != state.states)
        if not state.parameters:
            return ParticleGibbsState({}, states, state.walk), ParticleGibbsInfo(renewed, jnp.ones_like(renewed))
        given = _Given(target, states)
        key_init, key_steps = jr.split(key_moves)
        sampler = RandomWalk(num_warmup=self.num_warmup * self.num_moves) if self.moves is None else self.moves
        if self.moves is None:
            inner = RandomWalkState(state.parameters, given.log_density(state.parameters), state.walk)
        else:
            inner = sampler.init(given, state.parameters, key=key_init)

        def move(inner, key):
            inner, info = sampler.step(given, inner, key=key)
            return inner, getattr(info, "acceptance_rate", jnp.nan)

        inner, rates = jax.lax.scan(move, inner, jr.split(key_steps, self.num_moves))
        walk = state.walk if self.moves is not None else inner.walk
        return ParticleGibbsState(sampler.position(inner), states, walk), ParticleGibbsInfo(renewed, jnp.mean(rates))

    def position(self, state):
        """Parameters and states."""
        return {**state.parameters, "states": state.states}

    def frozen(self, states) -> Self:
        """The random walk fixed at what the chains have learned."""
        if self.num_warmup == 0:
            return self
        new = eqx.tree_at(lambda s: s.num_warmup, self, 0)
        if self.moves is not None or not states.parameters:
            return new
        return eqx.tree_at(lambda s: s.scale, new, jnp.asarray(settled(states.walk)))


class _Given(eqx.Module):
    """The target of the parameters alone, with the states held fixed."""

    whole: PyTree
    states: Array

    def log_density(self, u):
        """Log density of the parameters, up to a constant."""
        return self.whole.log_density({**u, "states": self.states})


def values_of(density: StateSpaceDensity, parameters: dict[str, Array]) -> dict[str, Array]:
    """Constrained values of unconstrained parameters."""
    prior = density.parameters()
    return {} if prior is None else prior.terms(parameters).values


def log_prior_of(density: StateSpaceDensity, parameters: dict[str, Array]) -> Float[Array, ""]:
    """Log prior density of unconstrained parameters."""
    terms = density.parameters().terms(parameters)  # pyright: ignore[reportOptionalMemberAccess]
    return jnp.asarray(terms.log_joint + terms.log_jacobian)
