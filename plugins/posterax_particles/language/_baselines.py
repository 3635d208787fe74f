"""What every particle method must be compared with: best-of-N, votes without rewards, and beam search."""

from dataclasses import dataclass, replace

import numpy as np

from ._ends import StepEnd
from ._ledger import Spend
from ._method import StepMethod, extended, scored, spend_of_steps
from ._population import Population
from ._reasoning import Reasoning


@dataclass(frozen=True)
class _Whole(StepEnd):
    """No end but that of the answer."""

    tokens: int


class _Samples(StepMethod):
    """Independent answers, each written in one go."""

    num_particles: int

    async def advance(self, problem, population, rng):
        """Writes all answers, and scores them where that is wanted."""
        whole = _Whole(problem.end.max_tokens * problem.max_steps)
        population, failed = await extended(problem, population, rng, end=whole)
        population = replace(population, particles=tuple(particle.ended() for particle in population.particles))
        population = await self._judged(problem, population, failed)
        return population.told()

    async def _judged(self, problem: Reasoning, population: Population, failed: np.ndarray) -> Population:
        return population.weighed(np.where(failed, -np.inf, 0.0))

    def estimate(self, problem):
        """The most that a run can spend."""
        num = self.num_particles
        return Spend(tokens=num * problem.max_steps * problem.end.max_tokens, requests=num, particles=num)


class SelfConsistency(_Samples):
    """N independent answers; the one that most agree on, by `choose=Majority()`. Needs no reward.

    - `num_particles`: N.

    Source: Wang et al. (2023), arXiv:2203.11171.
    """

    num_particles: int


class BestOfN(_Samples):
    """N independent answers, scored when they are complete; the best, or the weighted vote, is chosen.

    With `choose=ArgMax()` it is best-of-N, with `choose=WeightedVote(by="score")` weighted best-of-N.
    Weights stay equal.

    - `num_particles`: N.

    Source: Cobbe et al. (2021), arXiv:2110.14168; weighted: Li et al. (2023), arXiv:2206.02336.
    """

    num_particles: int

    async def _judged(self, problem, population, failed):
        population, failed, _ = await scored(problem, population, failed)
        return population.weighed(np.where(failed, -np.inf, 0.0))

    def estimate(self, problem):
        """The most that a run can spend."""
        return replace(super().estimate(problem), reward_calls=self.num_particles, reward_requests=self.num_particles)


class BeamSearch(StepMethod):
    """The best `width` texts go on at each step, each in `num_particles / width` ways.

    - `num_particles`: texts written at each step, a multiple of `width`.
    - `width`: how many survive.

    Source: Snell et al. (2024), arXiv:2408.03314.
    """

    num_particles: int
    width: int = 4

    def __check_init__(self):
        if not 1 <= self.width <= self.num_particles or self.num_particles % self.width:
            raise ValueError(
                f"`num_particles` must be a multiple of `width`; got {self.num_particles} and {self.width}."
            )

    async def advance(self, problem, population, rng):
        """Keep the best, branch, write, score."""
        if population.time:
            best = np.argsort(-population.log_potentials, kind="stable")[: self.width]
            population = population.taken(np.repeat(best, self.num_particles // self.width))
        population, failed = await extended(problem, population, rng)
        population, failed, _ = await scored(problem, population, failed)
        dead = failed & (problem.on_failure == "drop")
        log_potentials = np.where(dead, -np.inf, population.log_potentials)
        population = replace(population, log_potentials=log_potentials, log_weights=np.where(dead, -np.inf, 0.0))
        return population.told().stopped_by("no particle has weight" if dead.all() else "")

    def estimate(self, problem):
        """The most that a run can spend."""
        return spend_of_steps(problem, self.num_particles)
