"""Language models behind OpenAI-compatible servers: vLLM, SGLang, llama.cpp, transformers serve, hosted ones."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._capabilities import Capabilities, find_continuation, find_stops
from ._choices import Written, ambiguous, step
from ._ends import StepEnd
from ._exchange import Exchange
from ._http import Client, together
from ._ledger import Exhausted, Ledger
from ._loop import run
from ._model import LanguageModel
from ._prefix import Prefix, Step, spelt
from ._server import HOPELESS, Secret, ServerError
from ._wire import Wire

DOUBTS = ("step", "stop", "cut")
_log = logging.getLogger(__name__)


class OpenAIModel(LanguageModel):
    """A language model behind an OpenAI-compatible server.

    - `model`: its name there. `base_url`: the server's address, such as "http://127.0.0.1:8000/v1".
    - `api_key`: the server's key; by default that of the environment variable OPENAI_API_KEY, if there is one; "" for
      none. It is sent to the server and shown nowhere.
    - `endpoint`: "chat" sends messages, and with them the text so far as the beginning of the last one, which the
      server must be able to continue (`continue_final_message` of vLLM; hosted servers mostly cannot). "completions"
      sends plain text.
    - `template`: for "completions", from the messages to a text, such as a tokenizer's chat template. Without it the
      prompt must be one plain text.
    - `temperature`, `top_p`: always sent. Servers may have settings of their own, such as vLLM the `top_k` of a model's
      generation config: set them in `extra`.
    - `max_concurrency`: requests at a time. `timeout`: seconds for each try. `retries`: further tries. `backoff`:
      seconds before the first of them at most, doubled each time (see `Client`).
    - `deduplicate`: the same prefix, wanted several times, is one request with `n`, and draws by the first one's seed.
    - `log_probs`: steps carry the log-probabilities of their tokens, which `SelfCertainty` needs.
    - `seeded`: seeds are sent; whether a server honours them, `probe` tells.
    - `ambiguous_stop`: what is made of an answer that stopped, where the server neither leaves the stop string in the
      text nor says whether it met one. "step": the stop string is put back and the model asked to go on; one that had
      ended its answer ends again at once, and then the answer is complete. "stop": the answer is complete. "cut": stop
      strings are not sent, and texts are cut here: no doubt is left, and what the model wrote behind a step is wasted.
    - `extra`: further fields of every request: `tools`, `top_k`, `chat_template_kwargs`.
    - `capabilities`: what the server can do, where that is known, such as `Capabilities.of_vllm()`. What matters and is
      not known is asked when it first matters: before the first continuation by "chat", and at an ambiguous stop.

    A text that is cut here was paid for as a whole: the ledger counts all tokens; the step counts those it keeps, where
    the server gives tokens, else all.
    """

    def __init__(
        self, model: str, base_url: str, *, api_key: str | None = None, endpoint: str = "chat",
        template: Callable[[Sequence[Mapping[str, Any]]], str] | None = None, temperature: float = 0.8,
        top_p: float = 1.0, max_concurrency: int = 32, timeout: float = 60.0, retries: int = 6, backoff: float = 0.5,
        deduplicate: bool = True, log_probs: bool = False, seeded: bool = True, ambiguous_stop: str = "step",
        extra: Mapping[str, Any] | None = None, capabilities: Capabilities | None = None,
    ):  # fmt: skip
        if ambiguous_stop not in DOUBTS:
            raise ValueError(f"`ambiguous_stop` must be one of {', '.join(map(repr, DOUBTS))}; got {ambiguous_stop!r}.")
        wire = Wire(
            model, endpoint, template, temperature, top_p, seeded, log_probs, ambiguous_stop == "cut", dict(extra or {})
        )
        self.deduplicate, self.ambiguous_stop = deduplicate, ambiguous_stop
        client = Client(
            base_url, api_key=Secret(api_key, "OPENAI_API_KEY"), max_concurrency=max_concurrency, timeout=timeout,
            retries=retries, backoff=backoff,
        )  # fmt: skip
        self.server = Exchange(client, wire, capabilities or Capabilities())

    def __repr__(self):
        wire = self.server.wire
        return f"OpenAIModel({wire.model!r}, {self.server.client.url!r}, endpoint={wire.endpoint!r})"

    @property
    def known(self) -> Capabilities:
        """What has been found out about the server."""
        return self.server.known

    async def capabilities(self) -> Capabilities:
        """What the server can do, by at most 15 requests of at most 16 tokens an answer; later steps go by it."""
        return await self.server.capabilities()

    def probe(self) -> Capabilities:
        """`capabilities` for scripts and notebooks: `print(model.probe())`."""
        return run(self.capabilities())

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        """One step each; the same prefixes share a request."""
        if not prefixes:
            return []
        max_tokens = await self._possible(prefixes, end, max_tokens, ledger)
        found = await self._answers(prefixes, end, max_tokens, seeds, ledger)
        if self.known.extras is None and any(isinstance(each, ServerError) and each.refused for each in found):
            await self.server.learn(find_stops, ledger)
            if self.known.extras is False:  # what it refused were the fields of vLLM
                found = await self._answers(prefixes, end, max_tokens, seeds, ledger)
        self._despair(found, prefixes)
        return await self._steps(found, end, max_tokens, ledger)

    async def aclose(self):
        """Closes connections; the next request opens new ones."""
        await self.server.client.aclose()

    async def _possible(self, prefixes, end: StepEnd, max_tokens: int, ledger: Ledger) -> int:
        """Raises where the server cannot do what is wanted; how many tokens a step may take after asking it."""
        if len(end.stops) > 4:
            raise ValueError(f"`end` has {len(end.stops)} stop strings; servers take 4 at most. Use AtMatch or When.")
        if end.token_ids and not self.known.stop_token_ids:
            raise ValueError(
                "`end` stops at tokens by number, and it is not known that this server can. Call `probe()` first, give "
                "`capabilities=Capabilities(stop_token_ids=True)`, or end steps with AtString."
            )
        if self.server.wire.log_probs and self.known.log_probs is False:
            raise ValueError("`log_probs` is set, and this server gives none. Take another server, or leave it out.")
        if not any(self.server.wire.continues(prefix) for prefix in prefixes):
            return max_tokens
        if self.known.continuation is None:
            await self.server.learn(find_continuation, ledger)
            max_tokens = ledger.tokens_each(len(prefixes), max_tokens)
        if self.known.continuation is False:
            raise ServerError(
                f"{self.server.client.url} does not continue the last message of a chat: steps cannot be joined there. "
                'Take `endpoint="completions"`, with a `template`, or a server that can, such as vLLM. (If it can after'
                " all: `capabilities=Capabilities(continuation=True)`.)",
                refused=True,
            )
        return max_tokens

    async def _answers(self, prefixes, end, max_tokens, seeds, ledger) -> list[Written | ServerError]:
        groups = self._groups(prefixes)
        answers = await together(
            self._asked(prefixes[group[0]], end, max_tokens, [seeds[i] for i in group], ledger) for group in groups
        )
        found: list[Any] = [None] * len(prefixes)
        for group, answer in zip(groups, answers, strict=True):
            for i, written in zip(group, answer, strict=True):
                found[i] = written
        return found

    def _groups(self, prefixes: Sequence[Prefix]) -> list[list[int]]:
        if not self.deduplicate or self.known.n is False:
            return [[i] for i in range(len(prefixes))]
        prompts: dict[int, str] = {}
        groups: dict[tuple[str, str], list[int]] = {}
        for i, prefix in enumerate(prefixes):
            name = id(prefix.messages)
            if name not in prompts:  # by content: after a checkpoint the same prompt lies in several places
                prompts[name] = spelt(prefix.messages)
            groups.setdefault((prompts[name], prefix.text), []).append(i)
        return list(groups.values())

    async def _asked(self, prefix, end, max_tokens, seeds, ledger) -> list[Written | ServerError]:
        """An answer for each seed. Where too few come, the others are asked for again."""
        found: list[Any] = []
        for _ in range(self.server.client.retries + 1):
            left = seeds[len(found) :]
            body = self.server.wire.body(
                prefix, end, max_tokens=max_tokens, num=len(left), seed=left[0], known=self.known
            )
            try:
                reply = await self.server.reply(body, ledger=ledger, seed=left[0])
            except ServerError as error:
                return found + [error] * len(left)
            found += reply.choices[: len(left)]
            if len(found) == len(seeds):
                return found
            ledger.retried()
            if len(reply.choices) == 1 and self.known.n is None:  # it knows no `n`: the others one by one
                self.server.known = replace(self.known, n=False)
                rest = seeds[len(found) :]
                others = await together(self._asked(prefix, end, max_tokens, [seed], ledger) for seed in rest)
                return found + [written for other in others for written in other]
        error = ServerError(f"{self.server.client.url} gave {len(found)} answers where {len(seeds)} were asked for.")
        return found + [error] * (len(seeds) - len(found))

    def _despair(self, found: Sequence[Any], prefixes: Sequence[Prefix]) -> None:
        """Raises where no step ever can be had; says in the log which ones could not."""
        errors = [each for each in found if isinstance(each, ServerError)]
        if not errors:
            return
        if hopeless := [error for error in errors if error.status in HOPELESS]:
            raise hopeless[0]
        if len(errors) == len(found):
            if any(error.out_of_time for error in errors):
                raise Exhausted("seconds")
            if any(error.unreachable for error in errors) or not any(prefix.steps for prefix in prefixes):
                raise errors[0]
        _log.warning("%d of %d steps could not be had: %s", len(errors), len(found), errors[0])

    async def _steps(self, found: Sequence[Any], end: StepEnd, max_tokens: int, ledger: Ledger) -> list[Step]:
        written = [each for each in found if isinstance(each, Written)]
        sent = self.server.wire.sends_stops(end, self.known)
        if any(ambiguous(each, end, sent=sent, echoes=self.known.stop_echo) for each in written):
            if self.known.stop_echo is None:
                await self.server.learn(find_stops, ledger)
            if self.known.stop_echo is None:
                self.server.complain(
                    "stop",
                    "it cannot be found out whether the server leaves stop strings in the text, so the end of a step "
                    f"and that of an answer look alike, and count as `ambiguous_stop={self.ambiguous_stop!r}`.",
                )
        for finish in sorted({str(each.finish) for each in written if not each.known_finish}):
            self.server.complain(finish, f"finish_reason {finish!r} is not known, and taken for 'length'.")
        self.server.warn()
        doubt, full = self.ambiguous_stop, max_tokens >= end.max_tokens
        return [
            step(each, end, full=full, sent=sent, echoes=self.known.stop_echo, doubt=doubt)
            if isinstance(each, Written) else Step("", "failed") for each in found
        ]  # fmt: skip
