"""Particle Gibbs over steps of text: filters that keep a reference answer alive, again and again."""

from dataclasses import replace

import numpy as np
from posterax import Always
from posterax.weights import Multinomial

from ._filter import StepFilter
from ._method import StepMethod, extended, weighed
from ._population import Population, shares
from ._prefix import Prefix


class StepGibbs(StepMethod):
    """Particle Gibbs: after a first filter, each iteration draws a reference and filters with it among the particles.

    The kernel of conditional sequential Monte Carlo leaves the target as it is with two particles or more. All answers
    of all iterations are kept as particles of the result, those of the first one as well.

    - `num_particles`: N of each iteration, the reference included; 2 or more.
    - `num_iterations`: J; N x J texts in all.
    - `burn`: how many first iterations get no weight in the result.

    Selection is multinomial, at every step, and finished particles are absorbed: the conditional filter is exact then.

    Source: Andrieu, Doucet and Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x, section 2.4.3; for language
    models Puri et al. (2025), arXiv:2502.01618.
    """

    num_particles: int
    num_iterations: int = 4
    burn: int = 0

    def __check_init__(self):
        if self.num_particles < 2:
            raise ValueError(
                f"`num_particles` must be 2 or more, since one is the reference; got {self.num_particles}."
            )
        if self.num_iterations < 1 or not 0 <= self.burn < self.num_iterations:
            raise ValueError(
                f"`burn` must be at least 0 and below `num_iterations`; got {self.burn} and {self.num_iterations}."
            )

    async def advance(self, problem, population, rng):
        """One whole iteration."""
        done = population.time
        kept = () if done == 0 else population.particles
        reference = None if done == 0 else _drawn(population, self.num_particles, rng)
        sweep = await self.sweep(problem, reference, population, rng)
        rows = {"temperature": 1.0, "resampled": True}
        joined = replace(
            sweep,
            particles=(*kept, *sweep.particles),
            log_weights=_joined(population, sweep, done, self.burn),
            scores=np.concatenate([population.scores[: len(kept)], sweep.scores]),
            log_potentials=np.concatenate([population.log_potentials[: len(kept)], sweep.log_potentials]),
            lineage=np.concatenate([population.lineage[: len(kept)], sweep.lineage + len(kept)]),
            ancestors=(),
            trace=population.trace,
        ).told(**rows, iteration=done)
        if sweep.stopped:
            return joined.stopped_by(sweep.stopped)
        return joined.stopped_by("all iterations are done" if done + 1 == self.num_iterations else "")

    async def sweep(
        self, problem, reference: Prefix | None, population: Population, rng: np.random.Generator
    ) -> Population:
        """A filter of `num_particles`, the first of which is the reference where there is one."""
        ledger, known = population.ledger, population.known
        inner = replace(Population.of([problem.start] * self.num_particles, ledger), known=known)
        method = StepFilter(self.num_particles, resampler=Multinomial(), when=Always(), finished="absorb")
        while inner.active.any() and not inner.stopped:
            if reference is None:
                inner = await method.advance(problem, inner, rng)
                continue
            inner = await _conditional(problem, inner, reference, rng)
        return inner

    def over(self, population):
        """After all iterations."""
        return bool(population.stopped)

    def estimate(self, problem):
        """The most that a run can spend."""
        num, later = self.num_particles, self.num_iterations - 1
        return StepFilter(num + later * (num - 1)).estimate(problem)


async def _conditional(problem, population: Population, reference: Prefix, rng) -> Population:
    """One step of the conditional filter: particle 0 is the reference, cut to the time."""
    time = population.time
    if time:
        active = np.flatnonzero(population.active)
        drawn = rng.choice(len(active), size=len(active), p=shares(population.log_weights[active]))
        drawn[active == 0] = 0
        population = population.selected(active, drawn)
    absorbed = ~population.active
    first, *others = population.particles
    free = replace(population, particles=(first.ended(), *others))
    free, failed = await extended(problem, free, rng)
    kept = reference.cut(time + 1)
    population = replace(free, particles=(kept, *free.particles[1:]))
    population = await weighed(problem, population, failed, absorbed)
    return population.told(temperature=1.0, resampled=time > 0)


def _drawn(population: Population, num: int, rng: np.random.Generator) -> Prefix:
    """A path of the last iteration, drawn by weight."""
    return population.particles[-num:][rng.choice(num, p=shares(population.log_weights[-num:]))]


def _joined(population: Population, sweep: Population, done: int, burn: int) -> np.ndarray:
    """Weights of all iterations: each counts the same, those of the burn-in nothing."""
    if done == 0:
        return sweep.log_weights
    before = np.full(len(population), -np.inf) if done == burn else population.log_weights
    return np.concatenate([before, sweep.log_weights])
