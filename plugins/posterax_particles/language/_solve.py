"""solve(): one problem, one method, one budget; answer, particles, trace and accounts."""

import os
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray
from posterax import Draws, PosteraxWarning, check_key

from ._choose import ArgMax, Selector
from ._ledger import Budget, Ledger, Spend
from ._loop import run
from ._method import StepMethod, words
from ._population import Population, figures
from ._prefix import Prefix
from ._reasoning import Reasoning
from ._resume import resumed

_NO_BUDGET = Budget()
_ARGMAX = ArgMax()


@dataclass(frozen=True)
class Solution:
    """What came out of a run.

    - `answer`: of the chosen text, by the problem's `extract`. `text`: all that was written. `index`: which particle.
    - `particles`: the final texts. `log_weights`, `scores`: theirs, `(n,)`.
    - `log_evidence`: in nats, or None; then `no_evidence` says why.
    - `trace`: figures by name, `(steps,)` each. `ancestors`: `(n,)` for each selection.
    - `spent`: the accounts. `estimate`: the most that was to be expected.
    - `stopped`: "complete", or the limit that ended the run: "tokens", "reward_calls", "seconds"; or what else did.
    """

    answer: Hashable | None
    text: str
    index: int
    particles: tuple[Prefix, ...]
    log_weights: np.ndarray
    scores: np.ndarray
    log_evidence: float | None
    no_evidence: str | None
    trace: dict[str, np.ndarray]
    ancestors: tuple[np.ndarray, ...]
    spent: Spend
    estimate: Spend
    stopped: str

    def draws(self) -> Draws:
        """Scores and lengths of the particles as weighted draws, and the trace as their statistics."""
        return Draws(
            values={name: value[None] for name, value in figures(self.particles, self.scores).items()},
            stats={name: value[None] for name, value in self.trace.items()},
            log_weights=self.log_weights[None],
            log_evidence=None if self.log_evidence is None else np.array([self.log_evidence]),
            no_evidence=self.no_evidence or "",
        )

    def to_datatree(self, *, key: PRNGKeyArray) -> Any:
        """As ArviZ reads it: see `Draws.to_datatree`. The trace is in `sample_stats`."""
        return self.draws().to_datatree(key=key)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON; texts included."""
        return {
            "answer": self.answer if isinstance(self.answer, (str, int, float, type(None))) else repr(self.answer),
            "index": self.index,
            "particles": [
                {"steps": [step.text for step in particle.steps], "endings": [step.ending for step in particle.steps]}
                for particle in self.particles
            ],
            "log_weights": [None if np.isneginf(value) else float(value) for value in self.log_weights],
            "scores": [None if np.isnan(value) else float(value) for value in self.scores],
            "log_evidence": self.log_evidence,
            "trace": {name: np.asarray(values).tolist() for name, values in self.trace.items()},
            "ancestors": [row.tolist() for row in self.ancestors],
            "spent": self.spent.as_dict(),
            "stopped": self.stopped,
        }


def solve(
    method: StepMethod,
    problem: Reasoning,
    *,
    key: PRNGKeyArray,
    budget: Budget = _NO_BUDGET,
    choose: Selector = _ARGMAX,
    checkpoint: str | os.PathLike | None = None,
) -> Solution:
    """Runs a method on a problem until all answers are complete or a limit of the budget is reached.

    It works in notebooks too: what is asynchronous runs on a thread of its own.

    - `method`: `StepFilter(8)`, `StepGibbs(8)`, `BestOfN(8)`, `SelfConsistency(8)`, `BeamSearch(8)`.
    - `key`: a JAX random key; from it come the seeds for the language model and all choices.
    - `budget`: limits, see `Budget`. A run that has reached one gives what it has found until then.
    - `choose`: `ArgMax()`, `Sample()`, `Majority()` or `WeightedVote()`: whose answer is given.
    - `checkpoint`: a file to which every reply is added as soon as it has come. After a kill the same call takes from
      it what was answered before, asks again only for what was under way, and ends as if nothing had happened.

    Raises `ValueError` for a method that asks for more particles than the budget allows, and for a budget that does not
    reach for one token of each particle, `CheckpointError` for a file of another run; what models and rewards raise
    passes through.
    """
    if not isinstance(method, StepMethod):
        raise TypeError(f"`method` must be a StepMethod, such as StepFilter(8); got {method!r}.")
    if not isinstance(choose, Selector):
        raise TypeError(f"`choose` must be a Selector, such as ArgMax(); got {choose!r}.")
    key = check_key(key, "solve")
    if checkpoint is not None:
        problem = resumed(problem, method, words(key), checkpoint)
    return run(_solved(method, problem, key, budget, choose))


async def _solved(method, problem, key, budget, choose) -> Solution:
    estimate = method.estimate(problem)
    _affordable(estimate, budget)
    ledger = Ledger(budget)
    seed, step = words(key), 0
    population = await method.begin(problem, ledger, np.random.default_rng([*seed, step]))
    while not method.over(population):
        step += 1
        population = await method.stepped(problem, population, np.random.default_rng([*seed, step]))
    return _solution(method, problem, population, estimate, choose, np.random.default_rng([*seed, 2**32]))


def _affordable(estimate: Spend, budget: Budget) -> None:
    if budget.particles is not None and estimate.particles > budget.particles:
        raise ValueError(
            f"`budget` allows {budget.particles} particles; the method has {estimate.particles}. Lower the method's."
        )
    if budget.tokens is not None and budget.tokens < estimate.particles:
        raise ValueError(
            f"`budget` allows {budget.tokens} tokens, less than one for each of {estimate.particles} particles. Raise "
            "it, or take fewer particles."
        )


def _solution(method, problem, population: Population, estimate, choose, rng) -> Solution:
    index = choose(population, problem.extract, rng)
    chosen = population.particles[index]
    stopped = population.stopped or "complete"
    if stopped == "no particle has weight":
        warnings.warn(
            "No particle has weight: every reward or model call failed, or all potentials are zero. The answer is that "
            "of an arbitrary particle.", PosteraxWarning, stacklevel=4,
        )  # fmt: skip
    evidence = method.evidence(population) if stopped == "complete" else None
    names = population.trace[0] if population.trace else ()
    return Solution(
        answer=problem.extract(chosen.text),
        text=chosen.text,
        index=index,
        particles=population.particles,
        log_weights=population.log_weights,
        scores=population.scores,
        log_evidence=evidence,
        no_evidence=None if evidence is not None else _no_evidence(method, stopped),
        trace={name: np.array([row[name] for row in population.trace]) for name in names},
        ancestors=population.ancestors,
        spent=population.ledger.closed(),
        estimate=estimate,
        stopped=stopped,
    )


def _no_evidence(method: StepMethod, stopped: str) -> str:
    if stopped != "complete":
        return f"The run ended early: {stopped}."
    return method.no_evidence or f"{type(method).__name__} gives no unbiased estimate of the evidence."
