"""Choosing the answer: the best particle, one at random, or a vote."""

import abc
from collections.abc import Callable, Hashable

import equinox as eqx
import numpy as np

from ._population import Population, shares


class Selector(eqx.Module):
    """Chooses the particle whose answer is given. Finished particles of positive weight come first."""

    def __call__(
        self, population: Population, extract: Callable[[str], Hashable | None], rng: np.random.Generator
    ) -> int:
        """The index of the chosen particle."""
        alive = ~np.isneginf(population.log_weights)
        for mask in (alive & ~population.active, alive, np.ones(len(population), bool)):
            if mask.any():
                return int(self.among(np.flatnonzero(mask), population, extract, rng))
        raise ValueError("There is no particle to choose from.")

    @abc.abstractmethod
    def among(self, index: np.ndarray, population: Population, extract, rng) -> int:
        """One of the particles in `index`."""


class ArgMax(Selector):
    """The particle with the best last score: the published choice. By weight where nothing was scored."""

    def among(self, index, population, extract, rng):
        """The first of the best."""
        scores = np.where(np.isnan(population.scores), -np.inf, population.scores)[index]
        by = population.log_weights[index] if np.isneginf(scores).all() else scores
        return index[int(np.argmax(by))]


class Sample(Selector):
    """One particle at random, by weight: a draw from the target, as far as the particles stand for it."""

    def among(self, index, population, extract, rng):
        """Drawn by weight."""
        return rng.choice(index, p=_law(population, index))


class _Vote(Selector):
    def among(self, index, population, extract, rng):
        """The best particle of those with the winning answer; those without an answer have no vote."""
        weights = self._votes(population, index)
        totals: dict[Hashable, float] = {}
        answers = [extract(population.particles[i].text) for i in index]
        for answer, weight in zip(answers, weights, strict=True):
            if answer is not None:
                totals[answer] = totals.get(answer, 0.0) + float(weight)
        if not totals:
            return ArgMax().among(index, population, extract, rng)
        winner = max(totals, key=lambda answer: totals[answer])
        return ArgMax().among(
            np.array([i for i, answer in zip(index, answers, strict=True) if answer == winner]),
            population,
            extract,
            rng,
        )

    @abc.abstractmethod
    def _votes(self, population, index) -> np.ndarray: ...


class Majority(_Vote):
    """The answer that most particles give; of equals, the first met."""

    def _votes(self, population, index):
        return np.ones(len(index))


class WeightedVote(_Vote):
    """The answer with most weight.

    - `by`: "weight" of the particles, or "score": the sum of last scores on their own scale, as in weighted best-of-N.
    """

    by: str = "weight"

    def __check_init__(self):
        if self.by not in {"weight", "score"}:
            raise ValueError(f'`by` must be "weight" or "score"; got {self.by!r}.')

    def _votes(self, population, index):
        if self.by == "score":
            return np.nan_to_num(population.scores[index], nan=0.0)
        return _law(population, index)


def _law(population: Population, index: np.ndarray) -> np.ndarray:
    weights = shares(population.log_weights[index])
    return weights if weights.any() else np.full(len(index), 1 / len(index))
