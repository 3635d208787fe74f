"""The particle filter over steps of text: PF and ePF, with look-ahead, as a method on `Reasoning` problems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from posterax import Always, EssBelow
from posterax.weights import AbstractResampler, Systematic
from scipy.special import logsumexp

from .._look_ahead import LookAhead
from .._schedules import Schedule
from .._selection import select
from ._method import StepMethod, extended, seeds, spend_of_steps, weighed
from ._population import Population
from ._reasoning import Reasoning

FINISHED = ("compete", "absorb")


class StepFilter(StepMethod):
    r"""Particle filtering over steps of text; with a `schedule`, entropic particle filtering (ePF).

    Every step: draw ancestors by the weights, let the language model write one step after each, score the whole texts,
    weigh. The last population is not resampled, so the best particle cannot be lost before the answer is chosen.

    - `num_particles`: N.
    - `schedule`: flattens weights before early selections: `EssSchedule()` is the published ePF. None for the plain
      filter.
    - `correction`: "none", as published; "residual": survivors carry the weight that the flattened selection ignored,
      so that the target stays what it is.
    - `look_ahead`: a `LookAhead`: ancestors are drawn with an eye on the reward of texts one step further, which are
      then thrown away. A step costs 1 + `num` times as much.
    - `resampler`: a scheme of `posterax.weights`. Published: multinomial for PF, systematic for ePF.
    - `when`: `Always()`, as in all published code; or `EssBelow(0.5)`, where weights add up until then.
    - `finished`: "compete": finished particles are resampled with the others, and their last potential counts again at
      every step of the product target, as published. "absorb": they keep place and weight, and the others are resampled
      among themselves.
    - `num_steps`: T of the schedule's progress t / T; the problem's `max_steps` by default. Set it to the length that
      you expect: progress by a `max_steps` ten times too long keeps annealing for the whole answer.

    The trace has one row a step: `ess`, `entropy`, `temperature`, `resampled`, `unique_lineages` (first steps that
    still have descendants), `unique_texts`, `finished`, `log_evidence`, `tokens` and `reward_calls` until then.

    Source: Puri et al. (2025), arXiv:2502.01618 (PF); Giannone et al. (2025), arXiv:2510.05825 (ePF).
    """

    num_particles: int
    schedule: Schedule | None = None
    correction: str = "none"
    look_ahead: LookAhead | None = None
    resampler: AbstractResampler = Systematic()
    when: Always | EssBelow = Always()
    finished: str = "compete"
    num_steps: int | None = None

    def __check_init__(self):
        if isinstance(self.num_particles, bool) or not isinstance(self.num_particles, int) or self.num_particles < 1:
            raise ValueError(f"`num_particles` must be an integer, 1 or more; got {self.num_particles!r}.")
        if self.correction not in {"none", "residual"}:
            raise ValueError(f'`correction` must be "none" or "residual"; got {self.correction!r}.')
        if self.finished not in FINISHED:
            raise ValueError(f'`finished` must be "compete" or "absorb"; got {self.finished!r}.')
        if not isinstance(self.when, (Always, EssBelow)):
            raise TypeError(f"`when` must be Always() or EssBelow(share); got {self.when!r}.")

    @property
    def no_evidence(self) -> str | None:
        """Why there is no unbiased evidence; None where there is."""
        if self.schedule is not None and self.correction == "none":
            return 'Annealing without correction changes the target: `correction="residual"` gives an evidence.'
        if self.look_ahead is not None and not self.look_ahead.correct:
            return "The look-ahead is not divided out of the weights (`correct=False`): the evidence would be biased."
        if self.finished == "compete":
            return (
                "Finished particles compete: how often their last reward counts depends on the others. "
                '`finished="absorb"` gives an evidence.'
            )
        return None

    def evidence(self, state):
        """The log evidence, where it is unbiased."""
        return state.log_evidence if self.no_evidence is None else None

    def estimate(self, problem):
        """The most that a run can spend: no particle ends before `max_steps`, no step is short."""
        scouts = 0 if self.look_ahead is None else self.look_ahead.num
        return spend_of_steps(problem, self.num_particles, scouts)

    async def advance(self, problem, population, rng):
        """Select, write, score, weigh."""
        told = {"temperature": 1.0, "resampled": False}
        if population.time:
            population, told = await self._selected(problem, population, rng)
        absorbed = ~population.active & (self.finished == "absorb")
        population, failed = await extended(problem, population, rng)
        population = (await weighed(problem, population, failed, absorbed)).told(**told)
        if np.isneginf(population.log_weights).all():
            return population.stopped_by("no particle has weight")
        return population

    async def _selected(self, problem, population, rng):
        chosen = np.arange(len(population)) if self.finished == "compete" else np.flatnonzero(population.active)
        log_weights = population.log_weights[chosen]
        scores = None
        if self.look_ahead is not None:
            scores = await self._looked(problem, population, chosen, rng)
        progress = min(population.time / (self.num_steps or problem.max_steps), 1.0)
        ancestors, carried, resampled, temperature = jax.device_get(_selection(
            log_weights.astype(np.float32), None if scores is None else scores.astype(np.float32),
            np.float32(progress), rng.integers(2**31 - 1, dtype=np.int32),
            (self.schedule, self.when, self.resampler), self._corrected,
        ))  # fmt: skip
        told = {"temperature": float(temperature), "resampled": bool(resampled)}
        if not told["resampled"]:
            return population, told
        alike = not self._corrected or (self.schedule is None and scores is None)  # then to the last digit
        return population.selected(chosen, ancestors, None if alike else carried.astype(float)), told

    @property
    def _corrected(self) -> bool:
        annealed = self.schedule is None or self.correction == "residual"
        return annealed and (self.look_ahead is None or self.look_ahead.correct)

    async def _looked(self, problem: Reasoning, population: Population, chosen, rng) -> np.ndarray:
        """Log of what ancestors are drawn by: the mean potential of scouts one step ahead, and the weights."""
        look = self.look_ahead
        assert look is not None
        drawn = seeds(rng, len(population) * look.num)
        active = [i for i in chosen if not population.particles[i].finished]
        wanted = [(i, k) for k in range(look.num) for i in active]
        scouts = await problem.write(
            [population.particles[i] for i, _ in wanted], seeds=[drawn[i + k * len(population)] for i, k in wanted],
            ledger=population.ledger,
        )  # fmt: skip
        there = [scout for scout in scouts if scout is not None]
        judged = iter(await problem.judge(there, ledger=population.ledger, known=population.known))
        guesses = {i: [] for i in active}
        for (i, _), scout in zip(wanted, scouts, strict=True):
            values = None if scout is None else next(judged)
            before = population.log_potentials[i] if problem.target == "telescoping" else 0.0
            guesses[i].append(-np.inf if values is None else values[1] - before)
        stays = population.log_potentials if problem.target == "product" and self.finished == "compete" else None
        found = np.array([
            float(logsumexp(guesses[i]) - np.log(look.num)) if i in guesses else 0.0 if stays is None else stays[i]
            for i in chosen
        ])  # fmt: skip
        log_weights = population.log_weights[chosen]
        if look.mode == "replace":
            return np.where(np.isneginf(log_weights), -np.inf, found)
        return np.where(np.isneginf(log_weights), -np.inf, log_weights + look.power * found)


@eqx.filter_jit
def _selection(log_weights, scores, progress, seed, settings, corrected):
    schedule, when, resampler = settings
    judged = log_weights if scores is None else scores
    inverse = 1.0 if schedule is None else schedule.inverse_temperature(judged, progress)
    chosen = select(
        log_weights, key=jr.key(seed), scores=scores, inverse_temperature=inverse, when=when, resampler=resampler,
        corrected=corrected,
    )  # fmt: skip
    temperature = jnp.where(chosen.resampled, 1 / jnp.asarray(inverse), 1.0)
    return *jax.tree.map(jnp.asarray, chosen), temperature
