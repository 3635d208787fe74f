"""Plain HTTP/1.1 on kept sockets: a request costs a third of the processor time that it costs with httpx."""

import asyncio
import json as json_
from collections.abc import Mapping
from typing import Any, NamedTuple

import h11
import httpx


class _Line(NamedTuple):
    """A connection, and what HTTP says about its state."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection

    @property
    def usable(self) -> bool:
        """Whether the other side still listens, as far as is known."""
        return not (self.reader.at_eof() or self.writer.is_closing() or self.reader.exception())


class PlainClient:
    """What is used here of `httpx.AsyncClient`, for one server without encryption or proxy, and one event loop.

    Who uses it bounds the number of requests at a time, and the time of each.

    - `connect`: seconds for a connection.
    """

    def __init__(self, connect: float):
        self._connect, self._idle = connect, []

    async def request(
        self, method: str, url: httpx.URL, *, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The response, read as a whole; raises `httpx.RequestError`."""
        content = b"" if json is None else json_.dumps(json, allow_nan=False).encode()
        line = self._kept() or await self._connected(url)
        try:
            response = await _exchanged(line, _head(method, url, headers or {}, content), content)
        except BaseException as error:  # a cancelled one too: half an answer may still be under way
            line.writer.close()
            if isinstance(error, h11.ProtocolError):
                raise httpx.RemoteProtocolError(str(error)) from None
            if isinstance(error, OSError):
                raise httpx.ReadError(str(error)) from None
            raise
        if line.state.our_state is h11.DONE and line.state.their_state is h11.DONE:
            line.state.start_next_cycle()
            self._idle.append(line)
        else:
            line.writer.close()
        return response

    async def aclose(self) -> None:
        """Closes what is kept."""
        lines, self._idle = self._idle, []
        for line in lines:
            line.writer.close()
        await asyncio.gather(*(line.writer.wait_closed() for line in lines), return_exceptions=True)

    def _kept(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line
            line.writer.close()
        return None

    async def _connected(self, url: httpx.URL) -> _Line:
        try:
            async with asyncio.timeout(self._connect):
                reader, writer = await asyncio.open_connection(url.host, url.port or 80)
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {self._connect:.3g} s") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from None
        return _Line(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20))


def _head(method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> h11.Request:
    told = {"Host": url.netloc, "Accept": "application/json", "User-Agent": "posterax", **headers}
    told |= {"Content-Type": "application/json", "Content-Length": str(len(content))} if content else {}
    return h11.Request(method=method, target=url.raw_path, headers=list(told.items()))


async def _exchanged(line: _Line, request: h11.Request, content: bytes) -> httpx.Response:
    state = line.state
    asked = [request, *([h11.Data(content)] if content else []), h11.EndOfMessage()]
    line.writer.write(b"".join(state.send(event) or b"" for event in asked))
    await line.writer.drain()
    head, parts = None, []
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(await line.reader.read(2**16))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif not isinstance(event, h11.InformationalResponse):
            break
    if head is None:
        raise h11.RemoteProtocolError("the server ended the connection without an answer")
    return httpx.Response(head.status_code, headers=head.headers.raw_items(), content=b"".join(parts))
