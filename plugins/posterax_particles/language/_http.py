"""Requests to servers: bounded, timed, repeated with patience; and keys that are never shown."""

import asyncio
import functools
import json
import math
import random
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ._ledger import Ledger
from ._server import CURES, Secret, ServerError, retry_after, words

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # and other 5xx, but for 501 and 505
_LONGEST_WAIT = 300.0  # seconds: who is told to wait for longer gives up


class _Trouble(NamedTuple):
    words: str
    status: int | None = None
    wait: float | None = None
    unreachable: bool = False


class Client:
    """Posts JSON to one server, and tries again where that may help.

    - `url`: where paths begin, without query.
    - `api_key`: sent as a bearer token, where there is one.
    - `max_concurrency`: requests under way at a time.
    - `timeout`: seconds for one try, from the connection to the last byte; a connection gets 10 of them at most.
    - `retries`: further tries after the first.
    - `backoff`: seconds: try k waits for a random time below `backoff * 2**(k - 1)`, and 30, in addition to what
      `Retry-After` asks for. The random times come from the request's seed.

    Tried again are statuses 408, 409, 425, 429 and 5xx, broken connections, timeouts, and replies that are no JSON or
    that the caller finds fault with. It can be used from several event loops, and keeps connections for each.
    """

    def __init__(
        self, url: str, *, api_key: Secret, max_concurrency: int = 32, timeout: float = 60.0, retries: int = 6,
        backoff: float = 0.5,
    ):  # fmt: skip
        _httpx()
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"The address must begin with http:// or https:// and name a host; got {parts.path!r}.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("The address must have no user, password, query or fragment. Give a key as `api_key`.")
        for name, value, least in (("max_concurrency", max_concurrency, 1), ("retries", retries, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be an integer, {least} or more; got {value!r}.")
        for name, value in (("timeout", timeout), ("backoff", backoff)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be a positive number of seconds; got {value!r}.")
        self.url, self.api_key = url.rstrip("/"), api_key
        self.max_concurrency, self.timeout, self.retries, self.backoff = max_concurrency, timeout, retries, backoff
        self._local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        self._down = False
        self._open = weakref.WeakKeyDictionary()

    def __getstate__(self):
        return {**vars(self), "_open": None}

    def __setstate__(self, state):
        vars(self).update(state, _open=weakref.WeakKeyDictionary())

    async def request(
        self, path: str, body: Any = None, *, fault: Callable[[Any], str | None] = lambda reply: None,
        ledger: Ledger | None = None, seed: int = 0, method: str = "POST", retries: int | None = None,
    ) -> Any:  # fmt: skip
        """The reply's JSON.

        - `fault`: what is wrong with a reply, in words, so that it is asked for again; None for nothing.
        - `ledger`: repeats are counted there, and nothing waits beyond its deadline.
        - `seed`: of the waiting times.
        - `retries`: no more than these, where that is less than the client's.

        Raises `ServerError`.
        """
        trouble, tries = _Trouble("nothing was tried"), 0
        for tries in range(1, min(self.retries, self.retries if retries is None else retries) + 2):
            if tries > 1:
                await self._patience(trouble, tries, seed, ledger)
                if ledger is not None:
                    ledger.retried()
            reply, trouble = await self._tried(method, path, body, fault, tries, ledger)
            if trouble is None:
                return reply
            if trouble.unreachable and self._down:
                break
        # One request that has used up its tries tells the others: they do not each wait for a server that is gone.
        self._down = trouble.unreachable
        raise self._given_up(path, trouble, tries)

    async def aclose(self) -> None:
        """Closes the connections of the running loop; the next request opens new ones."""
        found = self._open.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[0].aclose()

    async def _tried(self, method, path, body, fault, tries, ledger) -> tuple[Any, Any]:
        httpx = _httpx()
        client, places = self._opened()
        async with places:
            left = None if ledger is None else ledger.seconds_left
            limit = self.timeout if left is None else min(self.timeout, left)
            try:
                async with asyncio.timeout(limit):
                    response = await client.request(
                        method, _parsed(self.url + path), json=body, headers=self.api_key.headers()
                    )
            except TimeoutError:
                return None, _Trouble(f"no answer within {limit:.3g} s")
            except httpx.RequestError as error:
                unreachable = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                return None, _Trouble(self._said(f"{type(error).__name__}: {error}"), unreachable=unreachable)
        self._down = False
        status = response.status_code
        if status in AGAIN or (status >= 500 and status not in {501, 505}):
            said = self._said(f"status {status}: {words(response.content)}")
            return None, _Trouble(said, status, retry_after(response.headers))
        if not 200 <= status < 300:
            raise ServerError(
                f"{self.url}{path} refused the request with status {status}: "
                f"{self._said(words(response.content))}. {CURES.get(status, 'Change what it complains of.')}",
                status=status, tries=tries, refused=True,
            )  # fmt: skip
        try:
            reply = json.loads(response.content)
        except ValueError:
            return None, _Trouble(f"a reply that is no JSON, of {len(response.content)} bytes", status)
        wrong = fault(reply)
        return reply, None if wrong is None else _Trouble(self._said(wrong), status)

    async def _patience(self, trouble: _Trouble, tries: int, seed: int, ledger: Ledger | None) -> None:
        jitter = random.Random(f"{seed} {tries}").uniform(0, min(30.0, self.backoff * 2 ** (tries - 2)))
        wait = (trouble.wait or 0.0) + jitter
        left = None if ledger is None else ledger.seconds_left
        if wait > _LONGEST_WAIT or (left is not None and wait >= left):
            late = left is not None and wait >= left
            raise ServerError(
                f"{self.url}: {trouble.words}. The next try would be in {wait:.1f} s, "
                + ("after the run's deadline." if late else f"later than the {_LONGEST_WAIT:g} s that are waited for."),
                status=trouble.status, tries=tries - 1, out_of_time=late,
            )  # fmt: skip
        await asyncio.sleep(wait)

    def _given_up(self, path: str, trouble: _Trouble, tries: int) -> ServerError:
        cure = "Start the server, or correct its address." if trouble.unreachable else (
            "Lower `max_concurrency` where the server is overloaded, raise `timeout` or `retries`, or look at its log."
        )  # fmt: skip
        message = f"{self.url}{path} gave no usable answer in {tries} tries; the last one: {trouble.words}. {cure}"
        return ServerError(message, status=trouble.status, tries=tries, unreachable=trouble.unreachable)

    def _said(self, text: str) -> str:
        return self.api_key.scrub(" ".join(text.split()))[:400]

    def _opened(self) -> tuple[Any, asyncio.Semaphore]:
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            client = (_plain_client if self._local and self.url.startswith("http:") else _httpx_client)(self)
            self._open[loop] = client, asyncio.Semaphore(self.max_concurrency)
        return self._open[loop]


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all of them, at the same time; where one raises, the others are cancelled, and it is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in started]


@functools.lru_cache(maxsize=64)
def _parsed(address: str) -> Any:
    return _httpx().URL(address)


def _plain_client(client: Client) -> Any:
    from ._plain import PlainClient

    return PlainClient(min(10.0, client.timeout))


def _httpx_client(client: Client) -> Any:
    httpx, most = _httpx(), client.max_concurrency
    return httpx.AsyncClient(
        timeout=httpx.Timeout(client.timeout, connect=min(10.0, client.timeout), pool=None),
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
        verify=client.url.startswith("https"),  # reading certificates takes a while, and http has none
        trust_env=not client._local,  # no proxy stands between a machine and itself
    )


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ImportError("Talking to servers needs httpx: pip install 'posterax[lm]'.") from None
    return httpx
