"""Correct samplers, each written out so that one line can be spoilt: see mutants.toml."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from posterax import PopulationSampler, Sampler
from posterax.weights import Systematic


class Point(eqx.Module):
    position: dict
    log_density: jax.Array
    log_scale: jax.Array
    steps: jax.Array


class Info(NamedTuple):
    acceptance_rate: jax.Array
    lp: jax.Array


def finite(log_ratio):
    return jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)


class RandomWalk(Sampler):
    """Random-walk Metropolis that learns its scale during warm-up."""

    num_warmup: int = 200
    log_scale: jax.Array | float = -0.5

    def init(self, target, position, *, key):
        log_scale = jnp.asarray(self.log_scale, jnp.result_type(float))
        return Point(position, target.log_density(position), log_scale, jnp.asarray(0))

    def step(self, target, state, *, key):
        key_move, key_accept = jr.split(key)
        x, unravel = ravel_pytree(state.position)
        noise = jr.normal(key_move, x.shape, x.dtype)
        proposal = unravel(x + jnp.exp(state.log_scale) * noise)
        log_density = target.log_density(proposal)
        log_ratio = finite(log_density - state.log_density)
        rate = jnp.minimum(1.0, jnp.exp(log_ratio))
        accept = jr.uniform(key_accept, dtype=x.dtype) < rate
        adapting = state.steps < self.num_warmup
        log_scale = jnp.where(adapting, state.log_scale + 0.1 * (rate - 0.3), state.log_scale)
        position = jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposal, state.position)
        log_density = jnp.where(accept, log_density, state.log_density)
        return Point(position, log_density, log_scale, state.steps + 1), Info(rate, log_density)

    def position(self, state):
        return state.position

    def log_density(self, state):
        return state.log_density

    def frozen(self, states):
        return RandomWalk(num_warmup=0, log_scale=jnp.mean(states.log_scale))


class Dilation(Sampler):
    """Random walk and random dilations, x to x exp(e), in turn; the dilation's Jacobian is exp(dim e)."""

    num_warmup: int = 0
    scale: float = 0.5

    def init(self, target, position, *, key):
        return Point(position, target.log_density(position), jnp.zeros(()), jnp.asarray(0))

    def step(self, target, state, *, key):
        key_which, key_walk, key_dilate, key_accept = jr.split(key, 4)
        x, unravel = ravel_pytree(state.position)
        walk = x + self.scale * jr.normal(key_walk, x.shape, x.dtype)
        stretch = self.scale * jr.normal(key_dilate, dtype=x.dtype)
        dilates = jr.bernoulli(key_which)
        proposal = unravel(jnp.where(dilates, x * jnp.exp(stretch), walk))
        jacobian = jnp.where(dilates, x.size * stretch, 0.0)
        log_density = target.log_density(proposal)
        log_ratio = finite(log_density - state.log_density + jacobian)
        accept = jnp.log(jr.uniform(key_accept, dtype=x.dtype)) < log_ratio
        position = jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposal, state.position)
        log_density = jnp.where(accept, log_density, state.log_density)
        return Point(position, log_density, state.log_scale, state.steps), None

    def position(self, state):
        return state.position

    def log_density(self, state):
        return state.log_density


class Langevin(Sampler):
    """The Metropolis-adjusted Langevin algorithm."""

    num_warmup: int = 0
    size: float = 0.35

    def init(self, target, position, *, key):
        return position

    def step(self, target, state, *, key):
        key_noise, key_accept = jr.split(key)
        x, unravel = ravel_pytree(state)
        value_and_grad = jax.value_and_grad(lambda x: target.log_density(unravel(x)))
        here, slope = value_and_grad(x)
        y = x + 0.5 * self.size**2 * slope + self.size * jr.normal(key_noise, x.shape, x.dtype)
        there, slope_there = value_and_grad(y)
        forth = -0.5 * jnp.sum((y - x - 0.5 * self.size**2 * slope) ** 2) / self.size**2
        back = -0.5 * jnp.sum((x - y - 0.5 * self.size**2 * slope_there) ** 2) / self.size**2
        log_ratio = finite(there - here + back - forth)
        accept = jnp.log(jr.uniform(key_accept, dtype=x.dtype)) < log_ratio
        return unravel(jnp.where(accept, y, x)), Info(
            jnp.minimum(1.0, jnp.exp(log_ratio)), jnp.where(accept, there, here)
        )

    def position(self, state):
        return state


def flat_like(target):
    """Zeros like a flattened position, and the way back."""
    return ravel_pytree(jax.tree.map(jnp.zeros_like, target.density.example()))


class Cloud(eqx.Module):
    positions: dict
    log_weights: jax.Array
    log_evidence: jax.Array
    level: jax.Array


class Tempered(PopulationSampler):
    """Sequential Monte Carlo from a wide normal to the target over fixed temperatures, with random-walk moves."""

    num_particles: int = 256
    num_levels: int = 8
    num_moves: int = 8
    spread: float = 1.5
    scale: float = 0.5

    def init(self, target, *, key):
        like, unravel = flat_like(target)
        x = self.spread * jr.normal(key, (self.num_particles, like.size), like.dtype)
        zero = jnp.zeros((), like.dtype)
        return Cloud(jax.vmap(unravel)(x), jnp.zeros(self.num_particles, like.dtype), zero, jnp.asarray(0))

    def step(self, target, state, *, key):
        key_choose, key_move = jr.split(key)
        before, after = state.level / self.num_levels, (state.level + 1) / self.num_levels
        _, unravel = flat_like(target)
        x = jax.vmap(lambda position: ravel_pytree(position)[0])(state.positions)

        def log_ratio(x):
            base = -0.5 * jnp.sum((x / self.spread) ** 2) - x.size * jnp.log(self.spread * jnp.sqrt(2 * jnp.pi))
            value = target.log_density(unravel(x))
            return jnp.where(jnp.isnan(value), -jnp.inf, value) - base

        increment = (after - before) * jax.vmap(log_ratio)(x)
        log_evidence = state.log_evidence + jax.nn.logsumexp(increment) - jnp.log(self.num_particles)
        chosen = Systematic()(increment, key=key_choose, num=self.num_particles)
        chosen = jnp.where(chosen < 0, 0, chosen)

        def tempered(x):
            return -0.5 * jnp.sum((x / self.spread) ** 2) + after * log_ratio(x)

        def move(x, key):
            def once(i, x):
                key_walk, key_accept = jr.split(jr.fold_in(key, i))
                y = x + self.scale * jr.normal(key_walk, x.shape, x.dtype)
                accept = jnp.log(jr.uniform(key_accept, dtype=x.dtype)) < finite(tempered(y) - tempered(x))
                return jnp.where(accept, y, x)

            return jax.lax.fori_loop(0, self.num_moves, once, x)

        x = jax.vmap(move)(x[chosen], jr.split(key_move, self.num_particles))
        log_weights = jnp.zeros_like(increment)
        return Cloud(jax.vmap(unravel)(x), log_weights, log_evidence, state.level + 1), None

    def done(self, state):
        return state.level >= self.num_levels

    def population(self, state):
        return state.positions, state.log_weights, state.log_evidence


class Importance(PopulationSampler):
    """Importance sampling from a wide normal."""

    num_particles: int = 2000
    spread: float = 1.2

    def init(self, target, *, key):
        like, unravel = flat_like(target)
        x = self.spread * jr.normal(key, (self.num_particles, like.size), like.dtype)
        proposed = jnp.sum(jax.scipy.stats.norm.logpdf(x, scale=self.spread), axis=1)
        log_density = jax.vmap(lambda x: target.log_density(unravel(x)))(x)
        log_weights = jnp.where(jnp.isnan(log_density), -jnp.inf, log_density) - proposed
        log_evidence = jax.nn.logsumexp(log_weights) - jnp.log(self.num_particles)
        return Cloud(jax.vmap(unravel)(x), log_weights, log_evidence, jnp.asarray(0))

    def step(self, target, state, *, key):
        return Cloud(state.positions, state.log_weights, state.log_evidence, state.level + 1), None

    def done(self, state):
        return state.level >= 1

    def population(self, state):
        return state.positions, state.log_weights, state.log_evidence
