"""A decoder in this process as a language model: no server, every token reproducible."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import jax.random as jr
from posterax_models import Decoder

from ._ends import StepEnd
from ._generate import PrefixCache, generate
from ._model import LanguageModel
from ._prefix import Prefix, Step

_BLOCK = 32  # tokens written before it is looked whether a step has ended


class Vocabulary(Protocol):
    """What turns texts into tokens and back: `load_tokenizer(folder)`, `Characters(...)`, or one of your own."""

    eos_ids: tuple[int, ...]

    def encode(self, text: str, *, begin: bool = False) -> list[int]:
        """Tokens of a text; with `begin`, after what begins a whole text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without special ones."""
        ...


class Characters:
    """Each character is a token, numbered by its place in `alphabet`.

    - `end`: characters that end an answer, which then has no further text.
    """

    def __init__(self, alphabet: str, *, end: str = ""):
        self.alphabet = alphabet
        self.eos_ids = tuple(alphabet.index(symbol) for symbol in end)
        self._ids = {symbol: number for number, symbol in enumerate(alphabet)}

    def encode(self, text: str, *, begin: bool = False) -> list[int]:
        """Places in the alphabet; raises `ValueError` for a character that is not in it."""
        if strange := sorted(set(text) - set(self._ids)):
            raise ValueError(f"`text` has characters outside the alphabet {self.alphabet!r}: {strange}.")
        return [self._ids[symbol] for symbol in text]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters."""
        return "".join(self.alphabet[number] for number in ids if number not in self.eos_ids)


class JaxModel(LanguageModel):
    """A `Decoder` and its tokenizer as a language model. Texts are the same for the same seeds, whatever the batch.

    - `decoder`, `tokenizer`: see `load_decoder` and `load_tokenizer`; `JaxModel.from_folder(path)` loads both.
    - `temperature`, `top_p`: of the next-token law.
    - `chat`: messages go through the tokenizer's chat template; by default where it has one.
    - `cache`: prefixes whose keys and values are kept, so that a step costs its own tokens only.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Vocabulary, *, temperature: float = 0.8, top_p: float = 1.0,
        chat: bool | None = None, cache: int = 256,
    ):  # fmt: skip
        self.decoder, self.tokenizer = decoder, tokenizer
        self.temperature, self.top_p = temperature, top_p
        self.chat = getattr(tokenizer, "has_template", False) if chat is None else chat
        self._cache = PrefixCache(cache)
        self._breaks: dict[str, frozenset[int]] = {}

    @classmethod
    def from_folder(cls, folder: str | Path, **settings: Any) -> "JaxModel":
        """A model as published: `config.json`, `*.safetensors`, `tokenizer.json`; Llama and Qwen2 architectures."""
        from ._pretrained import load_decoder, load_tokenizer

        return cls(load_decoder(folder), load_tokenizer(folder), **settings)

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        """One batch, until every row has ended its step."""
        return await asyncio.to_thread(self._proposed, list(prefixes), end, max_tokens, list(seeds), ledger)

    def _proposed(self, prefixes, end: StepEnd, max_tokens: int, seeds, ledger) -> list[Step]:
        keys = jax.vmap(jr.key)(jnp.asarray(seeds, jnp.uint32))
        prompts = [self._tokens(prefix) for prefix in prefixes]
        rows = [_Row() for _ in prompts]
        stop = {*self.tokenizer.eos_ids, *end.token_ids, *self._breaking(end.stops)}
        looking = bool(end.stops) or type(end).cut is not StepEnd.cut
        while open_rows := [i for i, row in enumerate(rows) if row.step is None]:
            room = max_tokens - min(len(rows[i].ids) for i in open_rows)
            block = room if end.stops or not looking else min(room, _BLOCK)
            texts = [prompts[i] + rows[i].ids for i in open_rows]
            found = generate(
                self.decoder, texts, max_tokens=block, temperature=self.temperature,
                top_p=self.top_p, stop_ids=stop, cache=self._cache,
                key=jnp.stack([jr.fold_in(keys[i], len(rows[i].ids)) for i in open_rows]),
            )  # fmt: skip
            for place, i in enumerate(open_rows):
                rows[i].grow(found.row(place), found.log_probs[place], self.tokenizer, end, max_tokens)
        ledger.wrote(
            requests=1, tokens=sum(len(row.ids) for row in rows), prompt_tokens=sum(len(prompt) for prompt in prompts)
        )
        return [row.step for row in rows if row.step is not None]

    def _tokens(self, prefix: Prefix) -> list[int]:
        """The prompt's tokens and those of the steps: as they were drawn where they are known, else from the text."""
        ids = self._prompt(prefix.messages)
        for step in prefix.steps:
            ids += self.tokenizer.encode(step.text) if step.token_ids is None else list(step.token_ids)
        return ids

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        if self.chat:
            text = self.tokenizer.render(messages, add_generation_prompt=True)  # pyright: ignore[reportAttributeAccessIssue]
            return self.tokenizer.encode(text)
        if len(messages) != 1 or not isinstance(messages[0].get("content"), str):
            raise ValueError(
                "`prompt` has several messages, and the tokenizer has no chat template. Give one text, or a tokenizer "
                "with a template."
            )
        return self.tokenizer.encode(messages[0]["content"], begin=True)

    def _breaking(self, stops: Sequence[str]) -> frozenset[int]:
        """Tokens that can complete one of these strings: those with its last character."""
        wanted = "".join(sorted({stop[-1] for stop in stops}))
        if wanted not in self._breaks:
            size = self.decoder.config.vocab_size
            found = {i for i in range(size) if set(self.tokenizer.decode([i])) & set(wanted)} if wanted else set()
            self._breaks[wanted] = frozenset(found)
        return self._breaks[wanted]


class _Row:
    """One text on its way to the end of its step."""

    def __init__(self):
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self.step: Step | None = None

    def grow(self, ids: list[int], log_probs, tokenizer: Vocabulary, end: StepEnd, max_tokens: int) -> None:
        """Takes up new tokens; `step` is set where they end it."""
        self.ids += ids
        self.log_probs += [float(value) for value in log_probs[: len(ids)]]
        text = tokenizer.decode(self.ids)
        size = end.cut(text)
        if size is not None:
            count = _needed(self.ids, size, tokenizer)
            exact = len(tokenizer.decode(self.ids[:count])) == size
            self._close(text[:size], "step", count, ids_known=exact)
        elif self.ids[-1] in end.token_ids:
            self._close(text, "step", len(self.ids))
        elif self.ids[-1] in tokenizer.eos_ids:
            self._close(text, "stop", len(self.ids))
        elif len(self.ids) >= max_tokens:
            count = max_tokens
            self._close(tokenizer.decode(self.ids[:count]), "step" if end.by_count else "length", count)

    def _close(self, text: str, ending: str, count: int, *, ids_known: bool = True) -> None:
        ids = tuple(self.ids[:count]) if ids_known else None
        self.step = Step(text, ending, count, ids, sum(self.log_probs[:count]))


def _needed(ids: list[int], size: int, tokenizer: Vocabulary) -> int:
    """How many tokens it takes to have `size` characters."""
    return next((n for n in range(1, len(ids) + 1) if len(tokenizer.decode(ids[:n])) >= size), len(ids))
