"""What a server of completions can do, found out by asking it small questions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ._choices import UNTOLD, Reply

ASK = "Write down ten random words and ten random numbers, each on a line of its own."
TOKENS = 16  # of an answer to it
_WORDS = {
    "n": "several answers to one request (`n`), which differ",
    "extras": "the fields that vLLM adds to the interface",
    "stop": "stop strings",
    "stop_echo": "stop strings left in the text",
    "stop_told": "telling a stop string from the model's own end",
    "stop_token_ids": "stop tokens by number",
    "continuation": "going on in the middle of the last message",
    "log_probs": "log-probabilities of tokens",
    "draws": "other answers for other seeds, at a temperature above 0",
    "seed": "the same answer for the same seed",
}


@dataclass(frozen=True)
class Capabilities:
    """What a server can do; None for what nobody has found out.

    - `reachable`: it answers. `trouble`: what it said where it does not.
    - `models`: those that it lists.
    - `n`: several answers to one request, which differ.
    - `extras`: it takes the fields that vLLM adds to the interface; others refuse what they do not know.
    - `stop`: stop strings. `stop_echo`: it leaves them in the text. `stop_told`: it says which one it met, so that the
      model's own end can be told from the end of a step.
    - `stop_token_ids`: stop tokens, given by number.
    - `continuation`: an answer goes on in the middle of the last message: what steps by the chat endpoint live by.
    - `log_probs`: log-probabilities of tokens.
    - `draws`: other seeds give other answers. A server that goes by the model's generation config alone may not.
    - `seed`: the same seed gives the same answer.
    """

    reachable: bool | None = None
    trouble: str = ""
    models: tuple[str, ...] = ()
    n: bool | None = None
    extras: bool | None = None
    stop: bool | None = None
    stop_echo: bool | None = None
    stop_told: bool | None = None
    stop_token_ids: bool | None = None
    continuation: bool | None = None
    log_probs: bool | None = None
    draws: bool | None = None
    seed: bool | None = None

    @staticmethod
    def of_vllm() -> "Capabilities":
        """What vLLM documents, so that nothing need be asked."""
        return Capabilities(
            n=True, extras=True, stop=True, stop_echo=True, stop_told=True, stop_token_ids=True, continuation=True,
            log_probs=True, draws=True, seed=True,
        )  # fmt: skip

    def __str__(self):
        if self.reachable is False:
            return f"not reachable: {self.trouble}"
        said = {True: "yes", False: "no", None: "not found out"}
        lines = [f"{words}: {said[getattr(self, name)]}" for name, words in _WORDS.items()]
        return "\n".join([f"models: {', '.join(self.models) or 'not listed'}", *lines])

    def updated(self, found: "Capabilities") -> "Capabilities":
        """With what the other knows."""
        new = {each.name: getattr(found, each.name) for each in fields(found)}
        return replace(self, **{name: value for name, value in new.items() if value not in (None, "", ())})


Ask = Callable[..., Awaitable[Reply | None]]
"""`ask(answer="", **fields)`: the reply to `ASK` with the answer begun; None where the server refuses the fields."""


async def find_stops(ask: Ask) -> Capabilities:
    """How it treats stop strings: a piece of an answer, taken for a stop string, must cut that answer short."""
    whole = await ask()
    text = "" if whole is None else whole.choices[0].text
    middle = len(text) // 2
    stop = text[middle : middle + 3] or "."
    extras, reply = True, await ask(stop=[stop], include_stop_str_in_output=True)
    if reply is None:
        extras, reply = False, await ask(stop=[stop])
    if reply is None:
        return Capabilities(stop=False)
    if not text:
        return Capabilities(extras=extras)
    end, cut = text.index(stop), reply.choices[0]
    # A token may hold more than the stop string; what is behind it is thrown away later.
    echo, bare = cut.text.startswith(text[: end + 3]), cut.text == text[:end]
    if not (echo or bare) or len(cut.text) >= len(text):
        return Capabilities(extras=extras, stop=False if cut.text == text else None)
    told = isinstance(cut.told, str) and cut.told == stop
    return Capabilities(extras=extras, stop=True, stop_echo=echo, stop_told=told)


async def find_continuation(ask: Ask) -> Capabilities:
    """Whether it goes on in the middle of the last message.

    The prompt of an answer that goes on has no header of a new message, so fewer tokens; and a likeliest answer that is
    cut in two and continued is the same again.
    """
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    going_on = await ask("The words", max_tokens=1, **flags)
    anew = await ask("The words", max_tokens=1)
    if anew is None:
        return Capabilities(continuation=False)
    if going_on is None:  # some continue whatever message of the assistant is the last, and know no such flags
        flags = {}
    elif 0 < going_on.prompt_tokens < anew.prompt_tokens:
        return Capabilities(continuation=True)
    whole = await ask()
    text = "" if whole is None else whole.choices[0].text.rstrip()
    cut = text.rfind(" ", 0, len(text) // 2 + 1)
    if cut <= 0:
        return Capabilities()
    reply = await ask(text[:cut], **flags)
    rest, expected = "" if reply is None else reply.choices[0].text.strip(), text[cut:].strip()
    size = min(len(rest), len(expected), 12)
    return Capabilities(continuation=size > 0 and rest[:size] == expected[:size])


async def find_draws(ask: Ask) -> Capabilities:
    """Several answers at a time, seeds and log-probabilities."""
    first, again, other = [await ask(temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    seed = draws = None
    if first is not None and again is not None and other is not None:
        seed, draws = (first.choices[0].text == each.choices[0].text for each in (again, other))
        draws = not draws
    several = await ask(temperature=1.0, n=3)
    texts = [] if several is None else [choice.text for choice in several.choices]
    n = len(texts) == 3 and len(set(texts)) > 1  # one seed for all of them makes copies of one answer
    scored = await ask(log_probs=True, max_tokens=2)
    log_probs = scored is not None and scored.choices[0].pieces is not None
    return Capabilities(n=n, draws=draws, seed=seed, log_probs=log_probs)


async def find_stop_tokens(ask: Ask) -> Capabilities:
    """Whether a token of an answer, given as a stop token, cuts it short."""
    whole = await ask(return_token_ids=True)
    ids: Any = None if whole is None else whole.choices[0].token_ids
    if not ids or len(set(ids)) < 2:
        return Capabilities(stop_token_ids=False)
    stop = ids[len(ids) // 2]
    reply = await ask(stop_token_ids=[stop])
    if reply is None:
        return Capabilities(stop_token_ids=False)
    told = reply.choices[0].told
    return Capabilities(stop_token_ids=told == stop if told is not UNTOLD else reply.tokens <= ids.index(stop) + 1)


FIND = (find_stops, find_continuation, find_draws, find_stop_tokens)
