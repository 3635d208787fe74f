"""What all methods on language models share: how they are driven, by `sample` and by `solve`."""

import abc
import asyncio
from dataclasses import replace
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
from posterax import PopulationSampler

from ._ledger import Budget, Exhausted, Ledger, Spend
from ._loop import run
from ._population import Population, figures
from ._reasoning import Reasoning


class StepMethod(PopulationSampler):
    """A method that makes answers of a `Reasoning` problem, step by step.

    `solve(method, problem, key=key)` gives answers, texts, traces and accounts; `sample(method, problem, key=key)` the
    scores and lengths of independent runs as draws for ArviZ. Authors write `begin` and `advance`.
    """

    host: ClassVar[bool] = True
    num_particles: Any

    async def begin(self, problem: Reasoning, ledger: Ledger, rng: np.random.Generator) -> Population:
        """The population before the first step."""
        del rng
        return Population.of([problem.start] * self.num_particles, ledger)

    @abc.abstractmethod
    async def advance(self, problem: Reasoning, population: Population, rng: np.random.Generator) -> Population:
        """The population one step on, with one more row of `trace`. Random numbers come from `rng` alone."""

    def over(self, population: Population) -> bool:
        """Whether the population is final."""
        return bool(population.stopped) or not population.active.any()

    @abc.abstractmethod
    def estimate(self, problem: Reasoning) -> Spend:
        """The most that a run can spend."""

    async def stepped(self, problem: Reasoning, population: Population, rng: np.random.Generator) -> Population:
        """`advance` within the budget: where a limit is reached, the population as it was, with the reason."""
        ledger = population.ledger
        try:
            ledger.check()
            return await asyncio.wait_for(self.advance(problem, population, rng), ledger.seconds_left)
        except Exhausted as limit:
            return population.stopped_by(limit.limit)
        except TimeoutError:
            if ledger.seconds_left == 0.0:
                return population.stopped_by("seconds")
            raise

    # What `posterax.sample` drives

    def init(self, target, *, key):
        """The population before the first step."""
        if not isinstance(target, Reasoning):
            raise TypeError(f"{type(self).__name__} works on a Reasoning problem; got {type(target).__name__}.")
        return run(self.begin(target, Ledger(Budget()), generator(key)))

    def step(self, target, state, *, key):
        """One step of all particles."""
        state = run(self.stepped(target, state, generator(key)))
        return state, {name: np.asarray(value) for name, value in state.trace[-1].items()}

    def done(self, state):
        """All answers are complete."""
        return self.over(state)

    def population(self, state):
        """Score, number of steps and number of tokens of each particle."""
        return figures(state.particles, state.scores), state.log_weights, self.evidence(state)

    def evidence(self, state: Population) -> float | None:
        """The log evidence, where these settings estimate it without bias."""
        del state
        return None


def words(key: Any) -> list[int]:
    """A JAX key as numbers."""
    return np.asarray(jr.key_data(key)).ravel().tolist()


def generator(key: Any) -> np.random.Generator:
    """NumPy's generator, seeded by a JAX key: what goes on in Python draws from it."""
    return np.random.default_rng(words(key))


def seeds(rng: np.random.Generator, num: int) -> list[int]:
    """Seeds for a language model."""
    return rng.integers(2**31 - 1, size=num).tolist()


async def extended(
    problem: Reasoning, population: Population, rng: np.random.Generator, *, end: Any = None
) -> tuple[Population, np.ndarray]:
    """All active particles with one more step each; and which of them could not be continued.

    Seeds are drawn for all particles, so that one's text does not depend on which others are finished.
    """
    drawn = seeds(rng, len(population))
    active = np.flatnonzero(population.active)
    written = await problem.write(
        [population.particles[i] for i in active], seeds=[drawn[i] for i in active], ledger=population.ledger, end=end
    )
    particles, failed = list(population.particles), np.zeros(len(population), bool)
    for i, prefix in zip(active, written, strict=True):
        failed[i] = prefix is None
        particles[i] = particles[i].ended() if prefix is None else prefix
    return replace(population, particles=tuple(particles)), failed


async def scored(
    problem: Reasoning, population: Population, failed: np.ndarray
) -> tuple[Population, np.ndarray, np.ndarray]:
    """The population with the scores of its particles; which have none; and their log potentials of before."""
    before = population.log_potentials
    asked = np.flatnonzero(~failed)
    found = await problem.judge(
        [population.particles[i] for i in asked], ledger=population.ledger, known=population.known
    )
    scores, log_potentials, failed = population.scores.copy(), before.copy(), failed.copy()
    for i, values in zip(asked, found, strict=True):
        if values is None:
            failed[i] = True
        else:
            scores[i], log_potentials[i] = values
    return replace(population, scores=scores, log_potentials=log_potentials), failed, before


async def weighed(problem: Reasoning, population: Population, failed: np.ndarray, absorbed: np.ndarray) -> Population:
    """The population scored, and weighed by the target's factors of one more step.

    - `failed`: particles that could not be continued: their factor is 0, or 1 where such are to be frozen.
    - `absorbed`: particles that had been finished before and keep their weight.
    """
    population, failed, before = await scored(problem, population, failed)
    factors = population.log_potentials - (before if problem.target == "telescoping" else 0.0)
    of_failed = -np.inf if problem.on_failure == "drop" else 0.0
    return population.weighed(np.where(failed, of_failed, np.where(absorbed, 0.0, factors)))


def spend_of_steps(problem: Reasoning, num_particles: int, scouts: int = 0) -> Spend:
    """The most that can be spent where every step of every particle is written and scored.

    - `scouts`: further texts of one step for each particle and selection.
    """
    written = num_particles * (problem.max_steps + scouts * (problem.max_steps - 1))
    return Spend(
        tokens=written * problem.end.max_tokens, requests=written, reward_calls=written,
        reward_requests=written, particles=num_particles,
    )  # fmt: skip
