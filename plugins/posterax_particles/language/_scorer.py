"""Rewards that other programs compute: scorers behind HTTP, and the language model's own certainty."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._http import Client, together
from ._ledger import Exhausted
from ._prefix import Prefix, spelt
from ._reward import SCALES, Reward, RewardError
from ._server import HOPELESS, Secret, ServerError
from ._wire import messages

STYLES = ("score", "classify", "pooling", "json")
REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "mean": lambda values: math.fsum(values) / len(values),
    "prod": math.prod,
}


class HTTPReward(Reward):
    """A reward model behind a server, such as vLLM's `/score`, `/classify` or `/pooling`.

    - `url`: the whole address, such as "http://127.0.0.1:8001/score".
    - `style`: what is sent and what comes back.
      "score": `{"text_1": prompt, "text_2": [answer, ...]}`; `data[i].score`.
      "classify": `{"messages": [...]}`, or with a `template` `{"input": [text, ...]}`; `data[i].probs[label]`.
      "pooling": the same; `data[i].data`, a row of classes, or a row for each step, of which `reduce` makes one number.
      "json": `{"items": [{"messages": [...], "text": answer}, ...]}`; `{"scores": [number, ...]}`.
    - `scale`: of the scores, as in `Reward`: "probability", "logit" or "log". It is your word: nothing is converted.
    - `model`: its name at the server, where it wants one.
    - `label`: number of the class that means "good"; by default the last.
    - `reduce`: "last", "min", "mean" or "prod" of the steps' scores. Process rewards that see no borders of steps give
      one score for the whole text, as in the published runs (Puri et al. 2025, arXiv:2502.01618).
    - `template`: from a prefix to the text that is scored.
    - `request`, `response`: for any other server: from a list of prefixes to the body; from the reply's JSON to a list
      of scores, None for one that cannot be had. What `response` raises counts as the server's fault, and is retried.
    - `batch`: texts in a request; a conversation of `messages` is always a request of its own.
    - `api_key`: sent as a bearer token; no environment variable is read.
    - `max_concurrency`, `timeout`, `retries`, `backoff`: as in `OpenAIModel`. `extra`: further fields of every request.
    """

    def __init__(
        self, url: str, *, style: str = "score", scale: str = "probability", model: str | None = None, label: int = -1,
        reduce: str = "last", template: Callable[[Prefix], str] | None = None,
        request: Callable[[list[Prefix]], Any] | None = None,
        response: Callable[[Any], Sequence[float | None]] | None = None, batch: int = 32, api_key: str | None = None,
        max_concurrency: int = 8, timeout: float = 60.0, retries: int = 6, backoff: float = 0.5,
        extra: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        for name, value, allowed in (
            ("style", style, STYLES),
            ("scale", scale, SCALES),
            ("reduce", reduce, REDUCTIONS),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
        if (request is None) != (response is None):
            raise ValueError("`request` and `response` belong together: give both, or a `style`.")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"`batch` must be an integer, 1 or more; got {batch!r}.")
        self.style, self.scale, self.model, self.label, self.reduce = style, scale, model, label, reduce
        self.template, self.batch, self.extra = template, batch, dict(extra or {})
        self.request, self.response = request or self._request, response or self._response
        self._whole = request is None and template is None and style in {"classify", "pooling"}
        self.client = Client(
            url, api_key=Secret(api_key or ""), max_concurrency=max_concurrency, timeout=timeout, retries=retries,
            backoff=backoff,
        )  # fmt: skip

    def __repr__(self):
        return f"HTTPReward({self.client.url!r}, style={self.style!r}, scale={self.scale!r})"

    async def score(self, prefixes, *, ledger):
        """The server's scores; each text is sent once."""
        places: dict[tuple[str, str], list[int]] = {}
        for i, prefix in enumerate(prefixes):
            places.setdefault((spelt(prefix.messages), prefix.text), []).append(i)
        prompts: dict[str, list[list[int]]] = {}  # a request has one prompt
        for (prompt, _), group in places.items():
            prompts.setdefault(prompt, []).append(group)
        size = 1 if self._whole else self.batch
        parts = [groups[i : i + size] for groups in prompts.values() for i in range(0, len(groups), size)]
        answers = await together(self._asked([prefixes[group[0]] for group in part], ledger) for part in parts)
        self._despair([error for error in answers if isinstance(error, ServerError)], len(answers))
        found: list[float | None] = [None] * len(prefixes)
        for part, scores in zip(parts, answers, strict=True):
            for group, score in zip(part, [] if isinstance(scores, ServerError) else scores, strict=False):
                for i in group:
                    found[i] = score
        return found

    async def aclose(self):
        """Closes connections; the next request opens new ones."""
        await self.client.aclose()

    async def _asked(self, prefixes: list[Prefix], ledger) -> list[float | None] | ServerError:
        def fault(reply: Any) -> str | None:
            try:
                found = self._scores(reply)
            except Exception as error:  # whatever a reply of another form makes a reader stumble over
                return f"a reply without scores ({type(error).__name__}: {error})"
            return None if len(found) == len(prefixes) else f"{len(found)} scores for {len(prefixes)} texts"

        try:
            reply = await self.client.request("", self.request(prefixes), fault=fault, ledger=ledger)
        except ServerError as error:
            return error
        ledger.scored(requests=1, texts=len(prefixes))
        return self._scores(reply)

    def _scores(self, reply: Any) -> list[float | None]:
        return [None if score is None else float(score) for score in self.response(reply)]

    def _despair(self, errors: list[ServerError], asked: int) -> None:
        for error in errors:
            if error.refused and (error.status in HOPELESS or len(errors) == asked):
                raise error
        if errors and len(errors) == asked:
            if any(error.out_of_time for error in errors):
                raise Exhausted("seconds")
            if any(error.unreachable for error in errors):
                raise errors[0]

    def _request(self, prefixes: list[Prefix]) -> dict[str, Any]:
        body: dict[str, Any] = {} if self.model is None else {"model": self.model}
        if self.style == "json":
            body["items"] = [{"messages": list(prefix.messages), "text": prefix.text} for prefix in prefixes]
        elif self.style == "score":
            body |= {"text_1": prefixes[0].prompt, "text_2": [prefix.text for prefix in prefixes]}
        elif self.template is None:
            body["messages"] = messages(prefixes[0])
        else:
            body["input"] = [self.template(prefix) for prefix in prefixes]
        return body | self.extra

    def _response(self, reply: Any) -> Sequence[float | None]:
        if self.style == "json":
            return reply["scores"]
        data = sorted(reply["data"], key=lambda each: each.get("index") or 0)
        if self.style == "score":
            return [each["score"] for each in data]
        if self.style == "classify":
            return [each["probs"][self.label] for each in data]
        return [self._pooled(each["data"]) for each in data]

    def _pooled(self, rows: Any) -> float:
        rows = [rows] if not isinstance(rows[0], Sequence) else rows
        return REDUCTIONS[self.reduce]([row[self.label] for row in rows])


class SelfCertainty(Reward):
    """The language model's own mean log-probability a token, in nats, as a log potential: no other model is needed.

    - `of`: "last" step, or "all" steps of the text.

    Steps must carry log-probabilities: `OpenAIModel(..., log_probs=True)`. A likely text need not be a right one.
    """

    scale: str = "log"

    def __init__(self, of: str = "last"):
        if of not in {"last", "all"}:
            raise ValueError(f'`of` must be "last" or "all"; got {of!r}.')
        self.of = of

    def __repr__(self):
        return f"SelfCertainty({self.of!r})"

    async def score(self, prefixes, *, ledger):
        """Read from the steps; nothing is asked."""
        del ledger
        return [self._certainty(prefix) for prefix in prefixes]

    def _certainty(self, prefix: Prefix) -> float:
        steps = [step for step in prefix.steps if step.text]
        total, num = 0.0, 0
        for step in steps[-1:] if self.of == "last" else steps:
            if step.log_prob is None:
                raise RewardError(
                    f"SelfCertainty needs log-probabilities, and the step {step.text[-40:]!r} has none. Take a model "
                    "that gives them: OpenAIModel(..., log_probs=True), at a server that can."
                )
            total += step.log_prob
            num += len(step.token_ids) if step.token_ids else step.tokens
        return total / num if num else 0.0
