"""The particle filters: populations that move through time, are weighted and selected."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PyTree
from posterax import Always, EssBelow, PopulationSampler
from posterax.weights import (
    AbstractResampler,
    Systematic,
    effective_sample_size,
    entropy,
    log_mean,
    weighted_mean,
    weighted_sd,
)

from ._feynman_kac import require_model
from ._history import History, begun, genealogies, written
from ._look_ahead import LookAhead, combined
from ._schedules import EssSchedule, Schedule
from ._selection import select


class FilterState(eqx.Module):
    """A weighted population at time t.

    - `t`, `last`: the time, from 0, and the last time.
    - `particles`: a PyTree of arrays with leading axis n.
    - `log_weights`: of the particles; their mean weight is 1.
    - `log_evidence`: log of the estimated integral of what has been seen until now, in nats.
    - `history`: all populations until now, where paths are kept.
    """

    t: Int[Array, ""]
    last: Int[Array, ""]
    particles: PyTree[Array]
    log_weights: Float[Array, " n"]
    log_evidence: Float[Array, ""]
    history: History | None


class _Filter(PopulationSampler):
    """What particle filters share; they differ in how weights are flattened before selection."""

    num_particles: eqx.AbstractVar[int]
    resampler: eqx.AbstractVar[AbstractResampler]
    when: eqx.AbstractVar[Always | EssBelow]
    look_ahead: eqx.AbstractVar[LookAhead | None]
    paths: eqx.AbstractVar[bool]
    moments: eqx.AbstractVar[bool]
    lockstep: ClassVar[bool] = True

    def __check_init__(self):
        if isinstance(self.num_particles, bool) or not isinstance(self.num_particles, int) or self.num_particles < 1:
            raise ValueError(f"`num_particles` must be an integer, 1 or more; got {self.num_particles!r}.")
        if not isinstance(self.when, (Always, EssBelow)):
            raise TypeError(f"`when` must be Always() or EssBelow(share); got {self.when!r}.")
        if not isinstance(self.resampler, AbstractResampler):
            raise TypeError(
                f"`resampler` must be a scheme of posterax.weights, such as Systematic(); got {self.resampler!r}."
            )

    def init(self, target, *, key):
        """The weighted population at time 0."""
        model = require_model(target, type(self).__name__)
        particles = model.starts(self.num_particles, key=key)
        log_weights = jnp.zeros(self.num_particles)
        log_weights, log_evidence = weighed(log_weights, jax.vmap(model.log_start)(particles), jnp.zeros(()))
        history = begun(model.num_steps, particles, log_weights) if self.paths else None
        zero, last = jnp.zeros((), int), jnp.asarray(model.num_steps - 1)
        return FilterState(zero, last, particles, log_weights, log_evidence, history)

    def step(self, target, state, *, key):
        """Select, move and weigh."""
        key_select, key_move = jr.split(key)
        t = state.t + 1
        ancestors, log_weights, told = self._select(target, state, key_select)
        before = jax.tree.map(lambda leaf: leaf.at[ancestors].get(mode="promise_in_bounds"), state.particles)
        particles = target.moves(t, before, key=key_move)
        potential = jax.vmap(lambda old, new: target.log_potential(t, old, new))(before, particles)
        log_weights, log_evidence = weighed(log_weights, potential, state.log_evidence)
        history = state.history
        if history is not None:
            history = written(history, t, particles, log_weights, ancestors)
        new = FilterState(t, state.last, particles, log_weights, log_evidence, history)
        return new, {**told, **self._figures(new)}

    def first_info(self, state):
        """The same figures of the population at time 0, before any step."""
        told = {"resampled": jnp.zeros((), bool), "temperature": jnp.ones_like(state.log_evidence)}
        return {**told, "moves": jnp.asarray(self.num_particles), **self._figures(state)}

    def done(self, state):
        """After the last time."""
        return state.t >= state.last

    def population(self, state):
        """Particles of the last time, or whole paths `(n, time, ...)`, see `paths`; named "states" unless a dict."""
        particles = state.particles if state.history is None else genealogies(state.history)
        return named(particles), state.log_weights, state.log_evidence if self.no_evidence is None else None

    def _select(self, model, state, key) -> tuple[Array, Array, dict[str, Array]]:
        """Ancestors of the next particles, the weights they carry, and what is worth telling."""
        key_draw, key_look = jr.split(key)
        scores, num_moves = None, self.num_particles
        if self.look_ahead is not None:
            scores = self.look_ahead.scores(model, state.t, state.particles, state.log_weights, key=key_look)
            num_moves *= 1 + self.look_ahead.num
        elif jax.eval_shape(lambda: jax.vmap(lambda x: model.log_ahead(state.t, x))(state.particles)) is not None:
            scores = combined(state.log_weights, jax.vmap(lambda x: model.log_ahead(state.t, x))(state.particles))
        inverse = self._inverse_temperature(state.log_weights if scores is None else scores, state.t, state.last)
        chosen = select(
            state.log_weights, scores=scores, inverse_temperature=inverse, when=self.when, resampler=self.resampler,
            corrected=self.no_evidence is None, key=key_draw,
        )  # fmt: skip
        temperature = jnp.where(chosen.resampled, 1 / inverse, 1.0).astype(state.log_evidence.dtype)
        told = {"resampled": chosen.resampled, "temperature": temperature, "moves": jnp.asarray(num_moves)}
        return chosen.ancestors, chosen.log_weights, told

    def _figures(self, state) -> dict[str, Any]:
        found = {
            "ess": effective_sample_size(state.log_weights),
            "entropy": entropy(state.log_weights),
            "log_evidence": state.log_evidence,
        }
        if self.moments:
            for what, of in (("mean", weighted_mean), ("sd", weighted_sd)):
                values = named(of(state.particles, state.log_weights))
                found |= {f"{name}_{what}": value for name, value in values.items()}
        return found

    @abc.abstractmethod
    def _inverse_temperature(self, scores, t, last) -> Array | float: ...


_UNDIVIDED = "The look-ahead is not divided out of the weights (`correct=False`), so the evidence would be biased."


class ParticleFilter(_Filter):
    """The particle filter, sequential importance resampling, for any `FeynmanKac` model.

    `sample(ParticleFilter(1000), Bootstrap(model, observed), key=key)` gives weighted draws of the last state, or of
    whole paths, with an unbiased estimate of the evidence (the likelihood of the observations). Statistics have one
    entry for each time: `ess`, `entropy` (of the weights, over log n), `log_evidence` up to there in nats, `resampled`
    and `temperature` of the selection before, `moves` (particles moved, scouts included), and the filtering moments
    `states_mean`, `states_sd`.

    - `num_particles`: n.
    - `resampler`: a scheme of `posterax.weights`.
    - `when`: resample `Always()`, or `EssBelow(0.5)`: only where the effective sample size is below half of n; weights
      add up until then.
    - `look_ahead`: a `LookAhead`, or None. A model with a `log_ahead` of its own makes this the auxiliary filter.
    - `paths`: keep all particles and their ancestors; draws are then paths, `(n, time, ...)`, by genealogy.
    - `moments`: tell filtering means and standard deviations.

    Where all weights vanish, the log evidence is `-inf` and `sample` says that no particle has weight.

    Source: Gordon, Salmond and Smith (1993), doi:10.1049/ip-f-2.1993.0015; Chopin and Papaspiliopoulos (2020),
    *An Introduction to Sequential Monte Carlo*, algorithm 10.1.
    """

    num_particles: int
    resampler: AbstractResampler = Systematic()
    when: Always | EssBelow = Always()
    look_ahead: LookAhead | None = None
    paths: bool = False
    moments: bool = True

    @property
    def no_evidence(self) -> str | None:
        """Why there is no unbiased evidence; None where there is."""
        return _UNDIVIDED if self.look_ahead is not None and not self.look_ahead.correct else None

    def _inverse_temperature(self, scores, t, last):
        return 1.0


class EntropicParticleFilter(_Filter):
    """The particle filter with entropic annealing (ePF): weights are flattened before early selections.

    Ancestors are drawn by weights to the power of an inverse temperature, so that one particle that looks good early
    does not take over. As published nothing corrects for that: the particles then stand for another law than the
    model's, the bias is greatest where the temperature is high, and evidence is refused.

    - `num_particles`, `resampler`, `when`, `look_ahead`, `paths`, `moments`, statistics: as in `ParticleFilter`.
    - `schedule`: how much is flattened when: `EssSchedule` (the published default), `EntropySchedule`, `BaseSchedule`,
      or `TargetEssSchedule`.
    - `correction`: "none" as published, or "residual": each survivor carries the weight that its selection has ignored,
      which keeps target and evidence unbiased.
    - `num_steps`: T of the schedule's progress t / T; the model's number of times by default.

    Source: Giannone et al. (2025), arXiv:2510.05825, with constants from its authors' code.
    """

    num_particles: int
    schedule: Schedule = EssSchedule()
    correction: str = "none"
    num_steps: int | None = None
    resampler: AbstractResampler = Systematic()
    when: Always | EssBelow = Always()
    look_ahead: LookAhead | None = None
    paths: bool = False
    moments: bool = True

    def __check_init__(self):
        if self.correction not in {"none", "residual"}:
            raise ValueError(f'`correction` must be "none" or "residual"; got {self.correction!r}.')
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1; got {self.num_steps!r}.")

    @property
    def no_evidence(self) -> str | None:
        """Why there is no unbiased evidence; None where there is."""
        if self.correction == "none":
            return (
                "Entropic annealing without correction draws ancestors by flattened weights and does not make up for "
                'it: the evidence would be biased. `correction="residual"` gives one.'
            )
        return _UNDIVIDED if self.look_ahead is not None and not self.look_ahead.correct else None

    def _inverse_temperature(self, scores, t, last):
        progress = (t + 1) / (last + 1 if self.num_steps is None else self.num_steps)
        return self.schedule.inverse_temperature(scores, jnp.minimum(progress, 1.0).astype(scores.dtype))


def weighed(log_weights, log_potential, log_evidence):
    """Log-weights with a potential added and their mean set back to one, and the evidence that has taken it up."""
    log_weights = jnp.where(jnp.isneginf(log_weights), -jnp.inf, log_weights + log_potential).astype(log_weights.dtype)
    mean = log_mean(log_weights)
    return log_weights - jnp.where(jnp.isfinite(mean), mean, 0), log_evidence + mean


def named(particles: PyTree) -> dict[str, Any]:
    """Particles as a dict: as they are, or under the name "states"."""
    return particles if isinstance(particles, dict) else {"states": particles}
