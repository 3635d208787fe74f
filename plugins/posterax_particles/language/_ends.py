"""Where a step ends: at a string, after some tokens, at a token, where a pattern matches, or where you say so."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepEnd:
    """Says where one step ends and the next begins.

    Servers and decoders stop at `stops` and `token_ids` by themselves; what they then give is cut by `cut`.
    """

    @property
    def max_tokens(self) -> int:
        """No step is longer."""
        return getattr(self, "tokens", 1024)

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end a step."""
        return ()

    @property
    def token_ids(self) -> frozenset[int]:
        """Tokens that end a step; only for models that show their tokens."""
        return frozenset()

    @property
    def by_count(self) -> bool:
        """Whether a step that has used up its tokens is complete."""
        return False

    def cut(self, text: str) -> int | None:
        """How many characters of `text` the first step takes, its end included; None where it has not ended."""
        found = [text.index(stop) + len(stop) for stop in self.stops if stop in text]
        return min(found) if found else None


@dataclass(frozen=True)
class AtString(StepEnd):
    """A step ends with any of these strings, which belong to it: by default with an empty line.

    - `strings`: one or more.
    - `tokens`: the most that a step may take.
    """

    strings: tuple[str, ...] = ("\n\n",)
    tokens: int = 1024

    def __init__(self, *strings: str, tokens: int = 1024):
        object.__setattr__(self, "strings", strings or ("\n\n",))
        object.__setattr__(self, "tokens", _count(tokens))
        if not all(isinstance(string, str) and string for string in self.strings):
            raise ValueError(f"`strings` must be texts of at least one character; got {strings!r}.")

    @property
    def stops(self):
        """The strings."""
        return self.strings


@dataclass(frozen=True)
class AfterTokens(StepEnd):
    """A step is so many tokens."""

    tokens: int

    def __post_init__(self):
        _count(self.tokens)

    @property
    def by_count(self):
        """Always."""
        return True


@dataclass(frozen=True)
class AtToken(StepEnd):
    """A step ends with any of these tokens, given by their numbers; needs a model that shows its tokens.

    - `ids`: numbers of tokens.
    - `tokens`: the most that a step may take.
    """

    ids: frozenset[int]
    tokens: int = 1024

    def __init__(self, *ids: int, tokens: int = 1024):
        object.__setattr__(self, "ids", frozenset(ids))
        object.__setattr__(self, "tokens", _count(tokens))
        if not ids:
            raise ValueError("`ids` must name at least one token.")

    @property
    def token_ids(self):
        """The tokens."""
        return self.ids


@dataclass(frozen=True)
class AtMatch(StepEnd):
    """A step ends where a regular expression has first matched.

    A server cannot stop there: what it wrote behind the match is thrown away, and counted.

    - `pattern`: in the syntax of Python's `re`, found with `re.search`.
    - `tokens`: the most that a step may take.
    """

    pattern: str
    tokens: int = 1024

    def __post_init__(self):
        _count(self.tokens)
        re.compile(self.pattern)

    def cut(self, text):
        """The end of the first match."""
        found = re.search(self.pattern, text)
        return found.end() if found and found.end() > 0 else None


@dataclass(frozen=True)
class When(StepEnd):
    """A step ends with the first character at which `holds(text of the step)` is true.

    - `holds`: from the step's text so far to a truth value.
    - `tokens`: the most that a step may take; what a server wrote behind the end is thrown away, and counted.
    """

    holds: Callable[[str], bool]
    tokens: int = 1024

    def __post_init__(self):
        _count(self.tokens)

    def cut(self, text):
        """The shortest beginning for which it holds."""
        return next((size for size in range(1, len(text) + 1) if self.holds(text[:size])), None)


def _count(tokens: int) -> int:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"`tokens` must be an integer, 1 or more; got {tokens!r}.")
    return tokens
