"""What a server of completions has written, and what a step makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._ends import StepEnd
from ._prefix import Step

UNTOLD = object()  # the server does not say what stopped it; None says that it was the model's own end
_NAMED = frozenset({"stop", "content_filter", "length", "tool_calls", "function_call"})


@dataclass(frozen=True)
class Written:
    """One choice of a reply, of either endpoint.

    - `finish`: the server's `finish_reason`.
    - `told`: the stop string or token that it names (vLLM's `stop_reason`, SGLang's `matched_stop`), None for the
      model's own end, `UNTOLD` where it does not say.
    - `pieces`: tokens and their log-probabilities in nats, where it gives them.
    - `tokens`: how many there are, with those that are to be thrown away.
    """

    text: str
    finish: str | None
    told: Any = UNTOLD
    pieces: tuple[tuple[str, float], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    tool_calls: tuple = ()
    tokens: int = 0

    @property
    def known_finish(self) -> bool:
        """Whether `finish` is one of those that the interface names."""
        return self.finish in _NAMED


@dataclass(frozen=True)
class Reply:
    """All choices of a reply, in order, and what they cost.

    - `estimated`: the server does not count tokens; they were taken for 4 characters each.
    """

    choices: tuple[Written, ...]
    tokens: int
    prompt_tokens: int
    estimated: bool


def fault(reply: Any) -> str | None:
    """What makes a reply useless; None for nothing."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not isinstance(choices, Sequence) or not choices:
        return "a reply without choices"
    if not all(isinstance(each, Mapping) and ("text" in each or "message" in each) for each in choices):
        return "a reply whose choices have neither `text` nor `message`"
    try:
        read(reply)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        return f"a reply of another form ({type(error).__name__}: {error})"
    return None


def read(reply: Mapping[str, Any]) -> Reply:
    """The choices of a reply that has no fault."""
    found = [_choice(each) for each in sorted(reply["choices"], key=lambda each: each.get("index") or 0)]
    usage = reply.get("usage") or {}
    total = usage.get("completion_tokens")
    counted, estimated = [len(each.token_ids or each.pieces or ()) for each in found], False
    if not all(counted):
        estimated = total is None
        counted = [-(-len(each.text) // 4) for each in found] if total is None else _shares(int(total), len(found))
    choices = tuple(Written(**{**vars(each), "tokens": n}) for each, n in zip(found, counted, strict=True))
    return Reply(choices, sum(counted) if total is None else total, usage.get("prompt_tokens") or 0, estimated)


def ambiguous(written: Written, end: StepEnd, *, sent: bool, echoes: bool | None) -> bool:
    """Whether nobody can say if the model ended its answer or the step ended.

    - `sent`: the server was given what ends a step.
    - `echoes`: it leaves stop strings in the text; None for unknown.
    """
    return (
        written.finish == "stop" and sent and not written.tool_calls and written.told is UNTOLD and echoes is not True
        and end.cut(written.text) is None
    )  # fmt: skip


def step(written: Written, end: StepEnd, *, full: bool, sent: bool, echoes: bool | None, doubt: str) -> Step:
    """The step that a choice amounts to: cut where the step ends, and with the reason why it ended.

    - `full`: the server was allowed all the tokens that a step may take.
    - `sent`, `echoes`: as in `ambiguous`.
    - `doubt`: the ending where it is ambiguous. For "step" the stop string is put back; an empty text is a "stop" in
      either case, as a model that had ended and was asked to go on ends again at once.
    """
    text, told = written.text, written.told
    if written.tool_calls or written.finish in {"tool_calls", "function_call"}:
        return _made(written, len(text), "tool")
    size = end.cut(text)
    if size is not None and size < len(text):
        return _made(written, size, "step")
    if written.finish == "content_filter":
        return _made(written, len(text), "stop")
    if written.finish != "stop":
        done = size is not None or (end.by_count and full)
        return _made(written, len(text), "step" if done else "length")
    if isinstance(told, str) and told in end.stops:
        return _made(written, len(text), "step", "" if size is not None else told)
    if isinstance(told, int) and told in end.token_ids:
        return _made(written, len(text), "step")
    if ambiguous(written, end, sent=sent, echoes=echoes):
        going_on = doubt == "step" and text != ""
        return _made(written, len(text), "step" if going_on else "stop", end.stops[0] if going_on and end.stops else "")
    echoed = sent and told is UNTOLD and size is not None
    return _made(written, len(text), "step" if echoed else "stop")


def _made(written: Written, size: int, ending: str, put_back: str = "") -> Step:
    pieces, kept = written.pieces, written.tokens
    if pieces is not None:
        starts = [0]
        for text, _ in pieces:
            starts.append(starts[-1] + len(text))
        kept = sum(start < size for start in starts[:-1]) if size < len(written.text) else len(pieces)
    ids = written.token_ids
    return Step(
        written.text[:size] + put_back,
        ending,
        tokens=kept,
        token_ids=ids[:kept] if ids is not None and (pieces is not None or size == len(written.text)) else None,
        log_prob=None if pieces is None else float(sum(log_prob for _, log_prob in pieces[:kept])),
        tool_calls=written.tool_calls,
    )


def _choice(choice: Mapping[str, Any]) -> Written:
    message = choice.get("message")
    content = choice.get("text") if message is None else message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    calls = [] if message is None else message.get("tool_calls") or []
    if message is not None and message.get("function_call"):
        calls = [{"type": "function", "function": message["function_call"]}]
    told = next((choice[name] for name in ("stop_reason", "matched_stop") if name in choice), UNTOLD)
    ids = choice.get("token_ids")
    return Written(
        text=content or "",
        finish=choice.get("finish_reason"),
        told=told,
        pieces=_pieces(choice.get("logprobs")),
        token_ids=None if ids is None else tuple(ids),
        tool_calls=tuple(calls),
    )


def _pieces(log_probs: Any) -> tuple[tuple[str, float], ...] | None:
    if not isinstance(log_probs, Mapping):
        return None
    if log_probs.get("content"):
        found = [(each.get("token"), each.get("logprob")) for each in log_probs["content"]]
    elif log_probs.get("tokens"):
        found = list(zip(log_probs["tokens"], log_probs.get("token_logprobs") or (), strict=False))
    else:
        return None
    return tuple(found) if all(value is not None for pair in found for value in pair) else None


def _shares(total: int, num: int) -> list[int]:
    return [total // num + (i < total % num) for i in range(num)]
