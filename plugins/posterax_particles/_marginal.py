"""Particle marginal Metropolis-Hastings: parameters by a random walk on the filter's unbiased likelihood."""

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import EssBelow, Sampler

from ._conditional import check_particles, conditional_run
from ._draw import index_by_weight
from ._filter import ParticleFilter
from ._gibbs import log_prior_of, values_of
from ._posterior import require_state_space
from ._run import run_filter
from ._walk import Walk, settled, walk_from


class ParticleMarginalState(eqx.Module):
    """Parameters (unconstrained), a path drawn with them, and the estimates that the next move is judged by."""

    parameters: dict[str, Array]
    states: Array
    log_prior: Float[Array, ""]
    log_evidence: Float[Array, ""]
    walk: Walk


class ParticleMarginalInfo(NamedTuple):
    """What one step tells."""

    acceptance_rate: Float[Array, ""]  # the probability with which the step was accepted
    log_evidence: Float[Array, ""]  # the estimate that the chain stands on, in nats


class ParticleMarginal(Sampler):
    """Metropolis on the parameters of a state-space model, the states integrated out by a particle filter.

    Samples targets made by `state_space_target` with parameters. The posterior is exact whatever the number of
    particles; with too few, the chain sticks where the likelihood was overestimated. Choose them so that the log
    evidence has a standard deviation of about 1.

    - `filter`: a `ParticleFilter` of at least 2 particles; one that resamples below half the effective sample size by
      default. A chain that starts from a draw of the posterior (`Move`) is exact from the first step on for
      `ParticleFilter(n, Multinomial())`; for other filters it soon is.
    - `num_warmup`: steps in which the random walk learns its covariance and scale.
    - `scale`: of its first steps, in unconstrained space; or, after a warm-up, the covariance that it has learned.

    Source: Andrieu, Doucet and Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x, section 4.4; number of
    particles by Pitt et al. (2012), doi:10.1016/j.jeconom.2012.06.004.
    """

    filter: ParticleFilter = ParticleFilter(200, when=EssBelow(0.5), paths=True, moments=False)
    num_warmup: int = 1000
    scale: float | Float[Array, "d d"] = 0.3

    def __check_init__(self):
        if not isinstance(self.filter, ParticleFilter) or self.filter.no_evidence is not None:
            raise ValueError(
                "`filter` must be a ParticleFilter with an unbiased evidence, or the posterior would be wrong; got "
                f"{self.filter!r}."
            )
        check_particles(self.filter.num_particles)

    def init(self, target, position, *, key):
        """Parameters and path of `position`, and the likelihood by a filter that the path is part of."""
        density = require_state_space(target, "ParticleMarginal")
        parameters = {name: leaf for name, leaf in position.items() if name != "states"}
        if not parameters:
            raise TypeError(
                "ParticleMarginal needs a target with parameters: `model` of `state_space_target` must be a NumPyro "
                "model that samples them. For states alone: ParticleGibbs, or a ParticleFilter with `paths=True`."
            )
        model, states = density.feynman_kac(values_of(density, parameters)), position["states"]
        # The estimate that belongs to this path is one that the path has taken part in.
        _, log_evidence = conditional_run(model, states, self.filter.num_particles, key=key, ancestor_sampling=False)
        log_evidence = log_evidence.astype(jnp.result_type(float))
        flat, _ = ravel_pytree(parameters)
        walk = walk_from(flat, self.scale)
        log_prior = log_prior_of(density, parameters)
        return ParticleMarginalState(parameters, states, log_prior, log_evidence, walk)

    def step(self, target, state, *, key):
        """One proposal, with a filter of its own."""
        density = require_state_space(target, "ParticleMarginal")
        key_step, key_run, key_accept = jr.split(key, 3)
        flat, unravel = ravel_pytree(state.parameters)
        parameters = unravel(state.walk.propose(flat, key=key_step))
        states, log_evidence = self._run(density, parameters, key_run)
        log_prior = log_prior_of(density, parameters)
        log_ratio = log_prior + log_evidence - state.log_prior - state.log_evidence
        acceptance = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
        accepted = jr.uniform(key_accept, dtype=flat.dtype) < acceptance
        proposed = ParticleMarginalState(parameters, states, log_prior, log_evidence, state.walk)
        new = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), proposed, state)
        if self.num_warmup:
            learned = state.walk.learned(ravel_pytree(new.parameters)[0], acceptance)
            learning = state.walk.count < self.num_warmup
            walk = jax.tree.map(lambda a, b: jnp.where(learning, a, b), learned, state.walk)
            new = eqx.tree_at(lambda s: s.walk, new, walk)
        return new, ParticleMarginalInfo(acceptance, new.log_evidence)

    def position(self, state):
        """Parameters and states."""
        return {**state.parameters, "states": state.states}

    def frozen(self, states) -> Self:
        """The random walk fixed at what the chains have learned."""
        if self.num_warmup == 0:
            return self
        return type(self)(filter=self.filter, num_warmup=0, scale=jnp.asarray(settled(states.walk)))

    def _run(self, density, parameters, key):
        model = density.feynman_kac(values_of(density, parameters))
        sampler = eqx.tree_at(lambda f: (f.paths, f.moments), self.filter, (True, False))
        states, log_evidence = drawn_path(sampler, model, key=key)
        dtype = jnp.result_type(float)
        return states.astype(dtype), log_evidence.astype(dtype)


def drawn_path(sampler: ParticleFilter, model, *, key: PRNGKeyArray) -> tuple[Array, Float[Array, ""]]:
    """A path drawn from a filter's last population, and the log evidence."""
    key_run, key_pick = jr.split(key)
    found = run_filter(sampler, model, key=key_run)
    paths, log_weights, _ = sampler.population(found.state)
    path = paths["states"][index_by_weight(log_weights, key=key_pick)]
    return path, found.state.log_evidence
