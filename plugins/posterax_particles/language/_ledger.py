"""The ledger: what a run may spend, what it has spent, and the moment when it must stop."""

import time
from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Budget:
    """What a run may spend; None for no limit. A run stops at the first limit that it reaches.

    - `tokens`: tokens that the language model writes, look-ahead and abandoned particles included. Never exceeded.
    - `reward_calls`: texts scored. Never exceeded.
    - `seconds`: of the clock, from the start of the run. What is under way then is given up.
    - `particles`: the most at a time; a method that asks for more is refused before it begins.
    """

    tokens: int | None = None
    reward_calls: int | None = None
    seconds: float | None = None
    particles: int | None = None

    def __post_init__(self):
        for each in fields(self):
            limit = getattr(self, each.name)
            if limit is not None and not limit > 0:
                raise ValueError(f"`{each.name}` must be positive, or None for no limit; got {limit!r}.")


@dataclass
class Spend:
    """What has been spent.

    - `tokens`: written by the language model, thrown away ones included. `prompt_tokens`: read by it, as it counts.
    - `requests`: to the language model. `reward_requests`: to the reward. `reward_calls`: texts that it has scored.
    - `seconds`: of the clock. `particles`: the most at a time. `retries`: requests that had to be repeated.
    """

    tokens: int = 0
    prompt_tokens: int = 0
    requests: int = 0
    reward_calls: int = 0
    reward_requests: int = 0
    retries: int = 0
    particles: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class Exhausted(Exception):
    """A limit has been reached; `.limit` names it."""

    def __init__(self, limit: str):
        super().__init__(limit)
        self.limit = limit


@dataclass
class Ledger:
    """Keeps the accounts of one run. Models and rewards write into it: `ledger.wrote(...)`, `ledger.scored(...)`.

    - `budget`: the limits.
    - `spent`: until now.
    """

    budget: Budget = Budget()
    spent: Spend = field(default_factory=Spend)
    began: float = field(default_factory=time.monotonic)

    def wrote(self, *, requests: int, tokens: int, prompt_tokens: int = 0) -> None:
        """The model has answered."""
        self.spent.requests += requests
        self.spent.tokens += tokens
        self.spent.prompt_tokens += prompt_tokens

    def scored(self, *, requests: int, texts: int) -> None:
        """The reward has answered."""
        self.spent.reward_requests += requests
        self.spent.reward_calls += texts

    def retried(self) -> None:
        """A request had to be repeated."""
        self.spent.retries += 1

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None for no deadline."""
        if self.budget.seconds is None:
            return None
        return max(0.0, self.budget.seconds - (time.monotonic() - self.began))

    def tokens_each(self, num: int, wanted: int) -> int:
        """How many tokens each of `num` particles may write next, at most `wanted`; raises `Exhausted` for none."""
        if self.budget.tokens is None or num == 0:
            return wanted
        each = (self.budget.tokens - self.spent.tokens) // num
        if each < 1:
            raise Exhausted("tokens")
        return min(each, wanted)

    def check(self, *, scores: int = 0) -> None:
        """Raises `Exhausted` where a limit stands in the way of scoring so many texts, or time is up."""
        calls = self.budget.reward_calls
        if calls is not None and self.spent.reward_calls + scores > calls:
            raise Exhausted("reward_calls")
        if self.seconds_left == 0.0:
            raise Exhausted("seconds")

    def closed(self) -> Spend:
        """What has been spent, with the time until now."""
        self.spent.seconds = time.monotonic() - self.began
        return self.spent
