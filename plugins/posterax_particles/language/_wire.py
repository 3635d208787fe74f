"""Requests to completions servers, as they go over the wire."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._capabilities import Capabilities
from ._ends import StepEnd
from ._prefix import Prefix

PATHS = {"chat": "/chat/completions", "completions": "/completions"}
_OURS = frozenset({"messages", "prompt", "model", "n", "stream", "stop", "max_tokens", "seed", "temperature", "top_p"})


@dataclass(frozen=True)
class Wire:
    """How an `OpenAIModel` asks; the fields are its arguments."""

    model: str
    endpoint: str = "chat"
    template: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
    temperature: float = 0.8
    top_p: float = 1.0
    seeded: bool = True
    log_probs: bool = False
    cut_here: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"`model` must be the model's name at the server; got {self.model!r}.")
        if self.endpoint not in PATHS:
            raise ValueError(f"`endpoint` must be one of {', '.join(map(repr, PATHS))}; got {self.endpoint!r}.")
        if not self.temperature >= 0:
            raise ValueError(f"`temperature` must be 0 or more; got {self.temperature!r}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must lie in (0, 1]; got {self.top_p!r}.")
        if taken := _OURS & set(self.extra):
            raise ValueError(
                f"`extra` must not have {', '.join(sorted(taken))}: the arguments, the step's end and the run set it."
            )

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return PATHS[self.endpoint]

    def continues(self, prefix: Prefix) -> bool:
        """Whether the answer must go on in the middle of a message."""
        return self.endpoint == "chat" and (prefix.text != "" or prefix.messages[-1].get("role") == "assistant")

    def body(
        self, prefix: Prefix, end: StepEnd, *, max_tokens: int, num: int, seed: int, known: Capabilities
    ) -> dict[str, Any]:
        """The request for `num` steps after a prefix, in the words of vLLM where the server is not known to refuse."""
        body = self._asked(prefix) | {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": max_tokens}
        if self.seeded:
            body["seed"] = seed
        if num > 1:
            body["n"] = num
        if self.sends_stops(end, known) and end.stops:
            body["stop"] = list(end.stops)
            if known.extras is not False:
                body["include_stop_str_in_output"] = True
        if end.token_ids:
            body["stop_token_ids"] = sorted(end.token_ids)
        if self.continues(prefix) and known.extras is not False:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self.log_probs:
            body |= self._scored()
        return body | dict(self.extra)

    def sends_stops(self, end: StepEnd, known: Capabilities) -> bool:
        """Whether the server is given what ends a step."""
        return bool(end.token_ids) or (bool(end.stops) and not self.cut_here and known.stop is not False)

    def question(self, ask: str, answer: str, *, log_probs: bool = False, **settings: Any) -> dict[str, Any]:
        """A question about the server: its likeliest answer, after these first words of it."""
        messages = ({"role": "user", "content": ask},)
        said = ({"role": "assistant", "content": answer},) if answer and self.endpoint == "chat" else ()
        body = self._asked(Prefix(messages + said)) | {"temperature": 0.0}
        if self.endpoint == "completions":
            body["prompt"] = self._prompt(messages) + answer
        return body | ({"seed": 0} if self.seeded else {}) | (self._scored() if log_probs else {}) | settings

    def _scored(self) -> dict[str, Any]:
        return {"logprobs": True} if self.endpoint == "chat" else {"logprobs": 1}

    def _asked(self, prefix: Prefix) -> dict[str, Any]:
        if self.endpoint == "chat":
            return {"model": self.model, "messages": messages(prefix)}
        return {"model": self.model, "prompt": self._prompt(prefix.messages) + prefix.text}

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        if self.template is not None:
            text = self.template(messages)
            if not isinstance(text, str):
                raise TypeError(f"`template` must give a text; got {text!r}.")
            return text
        only = messages[0]
        if len(messages) == 1 and only.get("role") == "user" and isinstance(only.get("content"), str):
            return only["content"]
        raise ValueError(
            '`endpoint="completions"` needs a `template`, from messages to a text, unless the prompt is one plain '
            f"text; got {len(messages)} messages ({', '.join(str(each.get('role')) for each in messages)}). "
            "A tokenizer's chat template with `add_generation_prompt=True` is one."
        )


def messages(prefix: Prefix) -> list[dict[str, Any]]:
    """The prompt's messages as they are, and the text so far as the beginning of the answer.

    Where the last message of the prompt is the assistant's, the text goes on there.
    """
    found = [dict(message) for message in prefix.messages]
    if prefix.text == "":
        return found
    last = found[-1]
    if last.get("role") != "assistant":
        return [*found, {"role": "assistant", "content": prefix.text}]
    content = last.get("content") or ""
    longer = content + prefix.text if isinstance(content, str) else [*content, {"type": "text", "text": prefix.text}]
    return [*found[:-1], {**last, "content": longer}]
