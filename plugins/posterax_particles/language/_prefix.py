"""What a particle is made of: a prompt, kept whole, and the steps that a language model has written after it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

ENDINGS = ("step", "stop", "tool", "length", "failed")


@dataclass(frozen=True)
class Step:
    """A piece of text that a language model has written in one go.

    - `text`: with whatever ended it, so that texts of steps joined are the text that the model wrote.
    - `ending`: "step": the end of a step was reached. "stop": the model ended its answer. "tool": it calls a tool.
      "length": cut where no more tokens were allowed; the next step goes on in the middle. "failed": nothing came.
    - `tokens`: tokens generated, as far as anybody counts them.
    - `token_ids`, `log_prob`: the tokens and the sum of their log-probabilities in nats, where the model tells.
    - `tool_calls`: as the model gave them.
    """

    text: str
    ending: str = "step"
    tokens: int = 0
    token_ids: tuple[int, ...] | None = None
    log_prob: float | None = None
    tool_calls: tuple = ()

    def __post_init__(self):
        if self.ending not in ENDINGS:
            raise ValueError(f"`ending` must be one of {', '.join(ENDINGS)}; got {self.ending!r}.")


@dataclass(frozen=True)
class Prefix:
    """A prompt and what has been written after it: one particle.

    - `messages`: the prompt, as messages in the manner of chat servers, untouched.
    - `steps`: what the model has written.
    - `finished`: nothing more is to be written.
    """

    messages: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...] = ()
    finished: bool = False
    key: tuple = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self):
        object.__setattr__(self, "key", (self.text, self.finished))

    @property
    def text(self) -> str:
        """All that the model has written."""
        return "".join(step.text for step in self.steps)

    @property
    def prompt(self) -> str:
        """The text of the prompt, where it is one plain text; else its messages, one below the other."""
        if len(self.messages) == 1:
            return _content(self.messages[0])
        return "\n".join(f"{message.get('role', 'user')}: {_content(message)}" for message in self.messages)

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return sum(step.tokens for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def followed(self, step: Step, *, finished: bool = False) -> "Prefix":
        """With one more step."""
        return Prefix(self.messages, (*self.steps, step), finished or step.ending in {"stop", "tool"})

    def cut(self, num_steps: int) -> "Prefix":
        """Only the first steps, to be continued."""
        return self if num_steps >= len(self) else Prefix(self.messages, self.steps[:num_steps])

    def ended(self) -> "Prefix":
        """The same, finished."""
        return replace(self, finished=True)


def as_messages(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """A text as one message of the user; messages as they are."""
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("`prompt` is empty. Give a text, or messages such as [{'role': 'user', 'content': ...}].")
        return ({"role": "user", "content": prompt},)
    messages = tuple(prompt)
    if not messages or not all(isinstance(message, Mapping) for message in messages):
        raise TypeError(f"`prompt` must be a text or a list of messages (dicts with role and content); got {prompt!r}.")
    return messages


def spelt(content: Any) -> str:
    """Messages as one string: the same for equal contents, wherever they lie in memory."""
    return json.dumps(content, sort_keys=True, default=repr)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
