"""Reward: how good a prefix looks. And potentials: what a filter makes of that."""

import abc
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from posterax import PosteraxError

from ._ledger import Ledger
from ._loop import run
from ._prefix import Prefix

SCALES = ("probability", "logit", "log")
_CLIP = 1e-7  # of probabilities, as in its_hub: logits within 16.1


class RewardError(PosteraxError, ValueError):
    """A reward that is not a number, or lies outside the range that its `scale` declares."""


class Reward(abc.ABC):
    """Scores prefixes. Components of kind `reward` are subclasses.

    - `scale`: "probability": in [0, 1], that the answer will be accepted. "logit": of that, any real number. "log": the
      log potential itself, any real number or minus infinity.
    """

    scale: str = "probability"

    @abc.abstractmethod
    async def score(self, prefixes: Sequence[Prefix], *, ledger: Ledger) -> list[float]:
        """The score of each whole prefix, in their order; `ledger.scored(requests=, texts=)` is called for it.

        A prefix whose score could not be had after all gets `None` in its place.
        """

    async def aclose(self) -> None:
        """Lets go of connections; the reward can be used again."""
        return

    def close(self) -> None:
        """`aclose` for scripts and notebooks."""
        run(self.aclose())


class CallableReward(Reward):
    """A Python function as a reward.

    - `function`: `function(prefix)` gives the score; it may be `async`. With `batched`, `function(prefixes)` gives a
      list of them.
    - `scale`: as in `Reward`.
    """

    def __init__(self, function: Callable[[Any], Any], *, scale: str = "probability", batched: bool = False):
        if not callable(function):
            raise TypeError(f"`function` must be callable; got {function!r}.")
        if scale not in SCALES:
            raise ValueError(f"`scale` must be one of {', '.join(SCALES)}; got {scale!r}.")
        self.function, self.scale, self.batched = function, scale, batched

    async def score(self, prefixes, *, ledger):
        """The function's values."""
        if self.batched:
            found = await _awaited(self.function(list(prefixes)))
            ledger.scored(requests=1, texts=len(prefixes))
            if len(found) != len(prefixes):
                raise RewardError(f"The reward gave {len(found)} scores for {len(prefixes)} texts.")
            return [None if value is None else float(value) for value in found]
        found = [await _awaited(self.function(prefix)) for prefix in prefixes]
        ledger.scored(requests=len(prefixes), texts=len(prefixes))
        return [None if value is None else float(value) for value in found]


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def checked(score: float, reward: Reward, prefix: Prefix) -> float:
    """The score, where it is one on the scale of its reward."""
    low, high = (0.0, 1.0) if reward.scale == "probability" else (-math.inf, math.inf)
    if math.isnan(score) or not low <= score <= high or score == math.inf:
        declared = "a number in [0, 1]" if reward.scale == "probability" else "a number below infinity"
        raise RewardError(
            f"{type(reward).__name__} gave {score!r} where `scale={reward.scale!r}` declares {declared}, for the text "
            f"{prefix.text[-80:]!r}. Declare another scale, or mend the reward."
        )
    return score


def log_potential(score: float, scale: str, potential: str | Callable[[float], float]) -> float:
    r"""Log of what a filter weighs a prefix by, $\log \psi$, in nats.

    - `potential`: "odds", $r / (1 - r)$ as published; "prob", r; or a function from the probability r to the log
      potential. On the scale "log" the score is taken as it is.

    Probabilities are kept within 1e-7 of 0 and 1, so that the odds stay finite; with "prob", a zero is a zero.
    """
    if scale == "log":
        return score
    if callable(potential):
        return float(potential(score if scale == "probability" else 1 / (1 + math.exp(-score))))
    if potential == "prob":
        if scale == "probability":
            return math.log(score) if score > 0 else -math.inf
        return -math.log1p(math.exp(-score)) if score > -700 else score
    if scale == "probability":
        score = min(max(score, _CLIP), 1 - _CLIP)
        return math.log(score) - math.log1p(-score)
    bound = math.log1p(-_CLIP) - math.log(_CLIP)
    return min(max(score, -bound), bound)
