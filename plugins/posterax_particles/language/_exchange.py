"""Questions and replies between us and one completions server, and what is known of it."""

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from posterax import PosteraxWarning

from ._capabilities import ASK, FIND, TOKENS, Capabilities
from ._choices import Reply, fault, read
from ._http import Client
from ._ledger import Ledger
from ._server import HOPELESS, ServerError
from ._wire import Wire


class Exchange:
    """One server: what it is asked by, what it is known to do, and what was complained of.

    - `known`: grows as things are found out.
    """

    def __init__(self, client: Client, wire: Wire, known: Capabilities):
        self.client, self.wire, self.known = client, wire, known
        self._complaints: dict[str, str] = {}

    async def reply(
        self, body: dict[str, Any], *, ledger: Ledger | None, seed: int = 0, retries: int | None = None
    ) -> Reply:
        """The reply to a request, booked."""
        raw = await self.client.request(self.wire.path, body, fault=fault, ledger=ledger, seed=seed, retries=retries)
        reply = read(raw)
        if ledger is not None:
            ledger.wrote(requests=1, tokens=reply.tokens, prompt_tokens=reply.prompt_tokens)
        if reply.estimated:
            self.complain("tokens", "it does not count tokens: they are taken for 4 characters each.")
        return reply

    async def capabilities(self) -> Capabilities:
        """All that can be found out."""
        try:
            listed = await self.client.request("/models", method="GET")
            models = listed.get("data") or [] if isinstance(listed, dict) else []
            found = Capabilities(reachable=True, models=tuple(str(each.get("id")) for each in models))
        except ServerError as error:
            found = Capabilities(reachable=error.status not in {None, 401, 403}, trouble=str(error))
        self.known = self.known.updated(found)
        if found.reachable:
            for find in FIND:
                self.known = self.known.updated(await find(self._asking(None)))
        return self.known

    async def learn(self, find: Callable[..., Awaitable[Capabilities]], ledger: Ledger) -> None:
        """Finds out one thing, where the budget reaches for five small answers."""
        limit = ledger.budget.tokens
        if limit is None or limit - ledger.spent.tokens > 5 * TOKENS:
            self.known = self.known.updated(await find(self._asking(ledger)))

    def complain(self, about: str, words: str) -> None:
        """Takes a note, once for each cause, for `warn`."""
        self._complaints.setdefault(about, words)

    def warn(self) -> None:
        """Warns of what is new among the notes: here, as a warning that is an error must not be one inside a task."""
        new = [words for words in self._complaints.values() if words]
        self._complaints = dict.fromkeys(self._complaints, "")
        for words in new:
            warnings.warn(f"{self.client.url}: {words}", PosteraxWarning, stacklevel=4)

    def _asking(self, ledger: Ledger | None) -> Callable[..., Awaitable[Reply | None]]:
        async def ask(answer: str = "", **settings: Any) -> Reply | None:
            body = self.wire.question(ASK, answer, **{"max_tokens": TOKENS, **settings})
            try:
                return await self.reply(body, ledger=ledger, retries=2)
            except ServerError as error:
                # What it cannot do, some servers refuse, some fail at, some answer with nothing.
                if error.status is None or error.status in HOPELESS | {429}:
                    raise
                return None

        return ask
