"""Tempered sequential Monte Carlo: from prior to posterior in as many steps as it takes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from posterax import PopulationSampler, Sampler, Target
from posterax._whitened import whitened
from posterax.weights import AbstractResampler, Systematic, effective_sample_size, log_mean, normalise

from ._random_walk import RandomWalk
from ._schedules import inverse_temperature_of


class TemperedState(eqx.Module):
    """An equally weighted population of the tempered target.

    - `positions`: unconstrained, leading axis n.
    - `log_likelihood`: at the positions, `(n,)`.
    - `inverse_temperature`: from 0, the prior, to 1, the posterior.
    - `log_evidence`: log of the integral of prior times tempered likelihood, in nats.
    """

    positions: PyTree[Array]
    log_likelihood: Float[Array, " n"]
    inverse_temperature: Float[Array, ""]
    log_evidence: Float[Array, ""]


class TemperedSMC(PopulationSampler):
    r"""Moves draws of the prior to the posterior through targets prior $\times$ likelihood$^\beta$.

    $\beta$ grows from 0 to 1 by steps as large as the effective sample size allows; after each, particles are resampled
    and moved by a sampler that leaves the tempered target as it is. Gives the evidence, and finds modes that chains
    would not leave. The target must know its prior (`Target.from_numpyro`, or `log_prior=` with `sample_prior=`).

    The particles' mean and covariance make the space in which they are moved: there the tempered target has about
    mean 0 and covariance 1, so that one step size serves all temperatures.

    - `num_particles`: n.
    - `moves`: a sampler without warm-up, run in that space; a random walk by default. For gradients:
      `HMC(num_warmup=0, step_size=0.3, trajectory_length=1.5)`.
    - `num_moves`: its steps at each temperature.
    - `ess_share`: effective sample size that a step of $\beta$ must leave, as a share of n.
    - `inverse_temperatures`: a fixed ascending ladder that ends with 1, instead of that rule.
    - `resampler`: a scheme of `posterax.weights`.

    Statistics, one entry a temperature: `inverse_temperature`, `ess` before resampling, `log_evidence`,
    `acceptance_rate` of the moves, `distinct` (share of particles with a position of their own after the moves).

    The evidence is consistent; that temperatures and moves are chosen by the particles themselves biases it by order
    1 / n.

    Source: Del Moral, Doucet and Jasra (2006), doi:10.1111/j.1467-9868.2006.00553.x; temperatures by Jasra et al.
    (2011), doi:10.1111/j.1467-9469.2010.00723.x.
    """

    num_particles: int = 1000
    moves: Sampler | None = None
    num_moves: int = 10
    ess_share: float = 0.5
    inverse_temperatures: Float[Array, " steps"] | None = None
    resampler: AbstractResampler = Systematic()

    def __check_init__(self):
        if isinstance(self.num_particles, bool) or not isinstance(self.num_particles, int) or self.num_particles < 2:
            raise ValueError(f"`num_particles` must be an integer, 2 or more; got {self.num_particles!r}.")
        if not 0 < self.ess_share < 1:
            raise ValueError(f"`ess_share` must lie between 0 and 1; got {self.ess_share!r}.")
        if self.moves is not None and (not isinstance(self.moves, Sampler) or self.moves.num_warmup):
            raise ValueError(
                f"`moves` must be a Sampler without warm-up (`num_warmup=0`), as its target changes at each step; got "
                f"{self.moves!r}. The space it runs in is scaled by the particles, so a fixed step size will do."
            )
        if self.num_moves < 1:
            raise ValueError(f"`num_moves` must be at least 1; got {self.num_moves!r}.")
        ladder = self.inverse_temperatures
        if ladder is not None and isinstance(ladder, (list, tuple, np.ndarray)):
            ladder = np.asarray(ladder, float)
            if ladder.ndim != 1 or not len(ladder) or ladder[0] <= 0 or (np.diff(ladder) <= 0).any() or ladder[-1] != 1:
                raise ValueError(f"`inverse_temperatures` must ascend from above 0 to 1; got {ladder}.")

    def init(self, target, *, key):
        """Draws of the prior."""
        if not isinstance(target, Target):
            raise TypeError(f"TemperedSMC samples a Target; got {type(target).__name__}.")
        positions = jax.vmap(lambda k: target.sample_prior(key=k))(jr.split(key, self.num_particles))
        log_likelihood = jax.vmap(lambda u: likelihood(target, u))(positions)
        zero = jnp.zeros((), log_likelihood.dtype)
        return TemperedState(positions, log_likelihood, zero, zero)

    def step(self, target, state, *, key):
        """The next temperature: reweight, resample, move."""
        key_resample, key_move = jr.split(key)
        rest = 1 - state.inverse_temperature
        increment = self._increment(state, rest)
        log_weights = jnp.where(jnp.isneginf(state.log_likelihood), -jnp.inf, increment * state.log_likelihood)
        # The last step takes all the rest, whatever rounding makes of the sum.
        beta = jnp.where(increment >= rest, 1.0, state.inverse_temperature + increment).astype(increment.dtype)
        log_evidence = state.log_evidence + log_mean(log_weights)
        ancestors = self.resampler(log_weights, key=key_resample)
        ancestors = jnp.where(ancestors < 0, jnp.arange(ancestors.size, dtype=ancestors.dtype), ancestors)
        resampled = jax.tree.map(lambda leaf: leaf[ancestors], state.positions)
        space = whitened(target, beta, state.positions, normalise(log_weights))
        moved, rates = self._moved(space, resampled, key_move)
        distinct = _distinct(jax.vmap(lambda u: ravel_pytree(u)[0])(moved))
        log_likelihood = jax.vmap(lambda u: likelihood(target, u))(moved)
        told = {
            "inverse_temperature": beta,
            "ess": effective_sample_size(log_weights),
            "log_evidence": log_evidence,
            "acceptance_rate": rates,
            "distinct": distinct,
        }
        return TemperedState(moved, log_likelihood, beta, log_evidence), told

    def done(self, state):
        """At the posterior."""
        return state.inverse_temperature >= 1

    def population(self, state):
        """Equally weighted draws of the posterior; no weight where the likelihood is zero."""
        log_weights = jnp.where(jnp.isneginf(state.log_likelihood), -jnp.inf, jnp.zeros_like(state.log_likelihood))
        return state.positions, log_weights, state.log_evidence

    def _increment(self, state, rest):
        if self.inverse_temperatures is None:
            share = inverse_temperature_of(rest * state.log_likelihood, self.ess_share * self.num_particles)
            # Where even the smallest step fails (few particles inside the support), take a small one all the same.
            return rest * jnp.maximum(share, 1e-6)
        ladder = jnp.asarray(self.inverse_temperatures, rest.dtype)
        return ladder[jnp.searchsorted(ladder, state.inverse_temperature, side="right")] - state.inverse_temperature

    def _moved(self, space, positions, key) -> tuple[PyTree[Array], Array]:
        sampler: Any = RandomWalk(num_warmup=0) if self.moves is None else self.moves

        def one(u, key):
            key_init, key_steps = jr.split(key)
            start = space.inward(u)
            state = sampler.init(space.target, start, key=key_init)

            def step(state, key):
                state, info = sampler.step(space.target, state, key=key)
                return state, getattr(info, "acceptance_rate", jnp.nan)

            state, rates = jax.lax.scan(step, state, jr.split(key_steps, self.num_moves))
            return space.outward(sampler.position(state)), jnp.mean(rates)

        moved, rates = jax.vmap(one)(positions, jr.split(key, self.num_particles))
        return moved, jnp.mean(rates)


def likelihood(target: Target, u: PyTree[Array]) -> Float[Array, ""]:
    """The log-likelihood at u; NaN, in it or in the prior, counts as zero probability."""
    terms = target.density.terms(u)
    log_prior = target.log_prior(u) if terms.log_prior is None else terms.log_prior  # it says that there is none
    possible = jnp.isfinite(jnp.asarray(log_prior)) & ~jnp.isnan(terms.log_likelihood)
    return jnp.where(possible, terms.log_likelihood, -jnp.inf).astype(jnp.result_type(float))


def _distinct(flat: Float[Array, "n d"]) -> Float[Array, ""]:
    """The share of rows whose first entry no other row has."""
    first = jnp.sort(flat[:, 0])
    return (1 + jnp.sum(jnp.diff(first) != 0)) / first.size
