"""The particles of a run on a language model, and what is worth telling of them step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ._ledger import Ledger
from ._prefix import Prefix


@dataclass(frozen=True)
class Population:
    """Weighted prefixes after some steps.

    - `particles`: the prefixes.
    - `log_weights`: `(n,)`; mean weight 1.
    - `scores`, `log_potentials`: `(n,)`, of the whole prefixes; NaN and 0 before anything has been scored.
    - `log_evidence`: log of the mean weight until now, in nats.
    - `lineage`: `(n,)`, which particle of the first step each one stems from.
    - `ancestors`: at each selection, which particle each one continues.
    - `trace`: figures of each step.
    - `known`: scores by prefix, so that no text is scored twice.
    """

    particles: tuple[Prefix, ...]
    log_weights: np.ndarray
    scores: np.ndarray
    log_potentials: np.ndarray
    ledger: Ledger
    log_evidence: float = 0.0
    lineage: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    ancestors: tuple[np.ndarray, ...] = ()
    trace: tuple[dict[str, Any], ...] = ()
    known: dict[tuple, float] = field(default_factory=dict)
    stopped: str = ""

    @staticmethod
    def of(particles: Sequence[Prefix], ledger: Ledger) -> "Population":
        """Prefixes of equal weight that nobody has scored."""
        num = len(particles)
        ledger.spent.particles = max(ledger.spent.particles, num)
        nothing = np.zeros(num)
        return Population(tuple(particles), nothing, np.full(num, np.nan), nothing, ledger, lineage=np.arange(num))

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def active(self) -> np.ndarray:
        """Which particles are to be continued."""
        return np.array([not particle.finished for particle in self.particles])

    @property
    def time(self) -> int:
        """How many steps have been made."""
        return len(self.trace)

    def taken(self, ancestors: np.ndarray) -> "Population":
        """These particles in place of the others; weights as they were."""
        return replace(
            self,
            particles=tuple(self.particles[i] for i in ancestors),
            scores=self.scores[ancestors],
            log_potentials=self.log_potentials[ancestors],
            lineage=self.lineage[ancestors],
            ancestors=(*self.ancestors, np.asarray(ancestors)),
        )

    def selected(self, chosen: np.ndarray, ancestors: np.ndarray, carried: np.ndarray | None = None) -> "Population":
        """Those `chosen`, `(k,)`, continue their `ancestors`, `(k,)`, places among them; the others stay.

        - `carried`: `(k,)`, log weights of the survivors; by default each has the mean weight of those chosen.
        """
        everyone, log_weights = np.arange(len(self)), self.log_weights.copy()
        everyone[chosen] = chosen[ancestors]
        mean = logsumexp(log_weights[chosen]) - np.log(len(chosen))
        log_weights[chosen] = mean if carried is None else carried
        return replace(self.taken(everyone), log_weights=log_weights)

    def weighed(self, log_increments: np.ndarray) -> "Population":
        """Weights with these factors, brought back to a mean of 1."""
        dead = np.isneginf(self.log_weights) | np.isneginf(log_increments)
        log_weights = np.where(dead, -np.inf, self.log_weights + np.where(dead, 0.0, log_increments))
        mean = float(logsumexp(log_weights) - np.log(len(self))) if not dead.all() else -np.inf
        evidence = self.log_evidence + mean
        return replace(self, log_weights=log_weights - (mean if np.isfinite(mean) else 0.0), log_evidence=evidence)

    def told(self, **figures: Any) -> "Population":
        """With one more row of figures: those given, and those of the weights."""
        spent, weights = self.ledger.spent, shares(self.log_weights)
        row = {
            **figures,
            "ess": ess(weights),
            "entropy": entropy(weights),
            "log_evidence": self.log_evidence,
            "unique_lineages": len(np.unique(self.lineage[~np.isneginf(self.log_weights)])),
            "unique_texts": len({particle.key for particle in self.particles}),
            "finished": float(np.mean(~self.active)),
            "tokens": spent.tokens,
            "reward_calls": spent.reward_calls,
        }
        return replace(self, trace=(*self.trace, row))

    def stopped_by(self, why: str) -> "Population":
        """The same, final, with the reason."""
        return replace(self, stopped=why)


def figures(particles: Sequence[Prefix], scores: np.ndarray) -> dict[str, np.ndarray]:
    """Score, number of steps and number of tokens of each particle, as draws: `(n,)` each."""
    return {
        "score": np.asarray(scores, float),
        "num_steps": np.array([len(particle) for particle in particles], float),
        "num_tokens": np.array([particle.tokens for particle in particles], float),
    }


def shares(log_weights: np.ndarray) -> np.ndarray:
    """Weights that sum to 1; all zero where no particle has weight."""
    top = log_weights.max()
    if np.isneginf(top):
        return np.zeros(len(log_weights))
    weights = np.exp(log_weights - top)
    return weights / weights.sum()


def ess(weights: np.ndarray) -> float:
    """Effective sample size of weights that sum to 1."""
    return float(1 / np.sum(weights**2)) if weights.any() else 0.0


def entropy(weights: np.ndarray) -> float:
    """Entropy of weights that sum to 1, over that of equal ones."""
    some = weights[weights > 0]
    return float(-np.sum(some * np.log(some)) / np.log(len(weights))) if len(weights) > 1 else 0.0
