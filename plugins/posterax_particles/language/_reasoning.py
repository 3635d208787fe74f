"""Reasoning: a prompt, a model that continues it step by step, and a reward that says how good that looks."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._ends import AtString, StepEnd
from ._ledger import Ledger
from ._model import LanguageModel
from ._prefix import Prefix, Step, as_messages
from ._reward import Reward, RewardError, checked, log_potential

TARGETS = ("product", "telescoping")
FAILURES = ("drop", "freeze", "raise")


@dataclass(frozen=True, eq=False)
class Reasoning:
    r"""A language model seen as a state-space model: what the methods of this package take for a target.

    A state is the text so far, $x_{1:t}$ after t steps; the model p moves it on; the reward r of the whole text gives
    its potential $\psi_t$. Two targets, of paths of T steps:

    - "product", the published one: $p(x_{1:T}) \prod_t \psi_t$. Early rewards count again at every later step.
    - "telescoping": $p(x_{1:T}) \psi_T$. A step is weighed by $\psi_t / \psi_{t-1}$, so that only the last reward
      counts in the end: right where a reward already foretells the outcome.

    Fields:

    - `prompt`: a text, or messages in the manner of chat servers, which are kept whole.
    - `model`: a `LanguageModel`.
    - `reward`: a `Reward`; None for methods that do without.
    - `end`: where a step ends: `AtString()`, `AfterTokens(64)`, `AtToken(13)`, `AtMatch(r"\.\s")`, `When(...)`.
    - `max_steps`: an answer has no more steps than these.
    - `target`: "product" or "telescoping".
    - `potential`: "odds", $\psi = r / (1 - r)$, as published; "prob", $\psi = r$; or a function from r to $\log \psi$.
    - `stop`: a text that ends the answer with the step that has it, such as `"\\boxed"`; or a function of the text that
      says whether it is complete.
    - `extract`: the answer in a text, something that can be compared, for votes; None where there is none.
    - `on_failure`: where a step or a reward could not be had even after all retries: "drop" the particle (no weight),
      "freeze" it as it was, or "raise".

    Source: Puri et al. (2025), arXiv:2502.01618, for the product of odds; Zhao et al. (2024), arXiv:2404.17546, for
    twisted targets.
    """

    prompt: str | Sequence[Mapping[str, Any]]
    model: LanguageModel
    reward: Reward | None = None
    end: StepEnd = field(default_factory=AtString)
    max_steps: int = 40
    target: str = "product"
    potential: str | Callable[[float], float] = "odds"
    stop: str | Callable[[str], bool] | None = None
    extract: Callable[[str], Hashable | None] = str.strip
    on_failure: str = "drop"

    def __post_init__(self):
        as_messages(self.prompt)
        for name, kind, hint in (
            ("model", LanguageModel, "CallableModel(function) makes one of a function"),
            ("end", StepEnd, "for a text that ends steps: AtString(text)"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"`{name}` must be a {kind.__name__}; got {getattr(self, name)!r}. {hint}.")
        if self.reward is not None and not isinstance(self.reward, Reward):
            raise TypeError(
                f"`reward` must be a Reward; got {self.reward!r}. CallableReward(function) makes one of a function."
            )
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"`max_steps` must be an integer, 1 or more; got {self.max_steps!r}.")
        _one_of("target", self.target, TARGETS)
        if not callable(self.potential):
            _one_of("potential", self.potential, ("odds", "prob"))
        _one_of("on_failure", self.on_failure, FAILURES)

    @property
    def start(self) -> Prefix:
        """The prompt with nothing after it."""
        return Prefix(as_messages(self.prompt))

    def complete(self, prefix: Prefix) -> bool:
        """Whether nothing more is to be written after this."""
        if prefix.finished or len(prefix) >= self.max_steps:
            return True
        if self.stop is None:
            return False
        return self.stop(prefix.text) if callable(self.stop) else self.stop in prefix.text

    async def write(
        self, prefixes: Sequence[Prefix], *, seeds: Sequence[int], ledger: Ledger, end: StepEnd | None = None
    ) -> list[Prefix | None]:
        """Each prefix with one more step; None where none could be had. Raises `Exhausted` by the ledger."""
        end = self.end if end is None else end
        if not prefixes:
            return []
        ledger.check()
        each = ledger.tokens_each(len(prefixes), end.max_tokens)
        steps = await self.model.propose(prefixes, end=end, max_tokens=each, seeds=seeds, ledger=ledger)
        if len(steps) != len(prefixes):
            raise ValueError(f"{type(self.model).__name__} gave {len(steps)} steps for {len(prefixes)} prefixes.")
        return [self._followed(prefix, step) for prefix, step in zip(prefixes, steps, strict=True)]

    def _followed(self, prefix: Prefix, step: Step) -> Prefix | None:
        if step.ending == "failed":
            if self.on_failure == "raise":
                raise RuntimeError(f"{type(self.model).__name__} could not continue {prefix.text[-80:]!r}.")
            return None
        longer = prefix.followed(step)
        return longer.ended() if self.complete(longer) else longer

    async def judge(
        self, prefixes: Sequence[Prefix], *, ledger: Ledger, known: dict[tuple, float]
    ) -> list[tuple[float, float] | None]:
        """Score and log potential of each prefix; None where it could not be had.

        - `known`: scores by the prefixes' keys, which are not asked for again; grows by the new ones.
        """
        if self.reward is None:
            raise ValueError("`reward` is None, and this method weighs particles by one: give the problem a reward.")
        new = {prefix.key: prefix for prefix in prefixes if prefix.key not in known}
        if new:
            ledger.check(scores=len(new))
            scores = await self.reward.score(list(new.values()), ledger=ledger)
            if len(scores) != len(new):
                raise RewardError(f"{type(self.reward).__name__} gave {len(scores)} scores for {len(new)} texts.")
            for (key, prefix), score in zip(new.items(), scores, strict=True):
                if score is not None:
                    known[key] = checked(float(score), self.reward, prefix)
                elif self.on_failure == "raise":
                    raise RewardError(f"{type(self.reward).__name__} could not score {prefix.text[-80:]!r}.")
        scale = self.reward.scale
        found = [known.get(prefix.key) for prefix in prefixes]
        return [None if score is None else (score, log_potential(score, scale, self.potential)) for score in found]


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
