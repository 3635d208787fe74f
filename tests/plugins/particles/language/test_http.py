"""The client, on real sockets: what is tried again, what is not, how long it waits, and that keys stay hidden."""

import asyncio
import contextlib
import email.utils
import gzip
import json
import logging
import pickle
import sys
import time

import pytest
from posterax_particles.language import _http
from posterax_particles.language._http import Client
from posterax_particles.language._ledger import Budget, Ledger
from posterax_particles.language._loop import run
from posterax_particles.language._server import Secret, ServerError, retry_after
from server import Server, dead_url, finished, schedule

KEY = "sk-very-secret-0123456789"
BODY = {"prompt": "Hi?", "max_tokens": 3}


def client(url, **settings):
    return Client(url, **{"api_key": Secret(KEY), "timeout": 5.0, "retries": 3, "backoff": 0.01, **settings})


def asked(user, body=BODY, **settings):
    return finished(user, user.request("/completions", body, **settings))


@pytest.fixture(params=["plain", "httpx"], autouse=True)
def transport(request, monkeypatch):
    """Loopback addresses go over plain sockets, all others by httpx."""
    if request.param == "httpx":
        monkeypatch.setattr(_http, "_plain_client", _http._httpx_client)
    return request.param


def without_choices(reply):
    return None if reply["choices"] else "a reply without choices"


@pytest.mark.parametrize(
    "fault", ["408", "409", "425", "429", "500", "502", "503", "504", "hang", "drop", "truncated", "invalid", "page"]
)
def test_what_passes_is_asked_for_again_with_the_same_answer(fault):
    with Server() as clean:
        wanted = asked(client(clean.url))
    ledger = Ledger()
    with Server(faults=schedule(fault, fault)) as server:
        reply = asked(client(server.url, timeout=0.4 if fault == "hang" else 5.0), ledger=ledger)
    assert reply["choices"] == wanted["choices"]
    assert ledger.spent.retries == 2
    assert len(server.log) == 3


def test_replies_that_the_caller_finds_fault_with_are_asked_for_again():
    with Server(faults=schedule("empty")) as server:
        assert asked(client(server.url), fault=without_choices)["choices"]
    with (
        Server(faults=lambda *_: "empty") as server,
        pytest.raises(ServerError, match=r"in 4 tries; .*without choices"),
    ):
        asked(client(server.url), fault=without_choices)


@pytest.mark.parametrize(
    ("status", "cure"), [("400", "complains"), ("401", "api_key"), ("403", "api_key"), ("404", "/v1"), ("422", "")]
)
def test_refusals_are_told_at_once_in_the_servers_words(status, cure):
    with Server(faults=schedule(status)) as server:
        with pytest.raises(ServerError, match=f"status {status}: it is what it is.*{cure}") as caught:
            asked(client(server.url))
        assert len(server.log) == 1
        assert f"{server.url}/completions" in str(caught.value)
    assert caught.value.refused
    assert caught.value.status == int(status)


def test_retry_after_is_waited_for():
    with Server(faults=schedule("429", "503"), retry_after="0.2") as server:
        asked(client(server.url))
        first, second, third = server.log
    assert second.received - first.answered >= 0.2
    assert third.received - second.answered >= 0.2
    assert third.received - first.answered < 2


def test_retry_after_is_read_in_both_forms():
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": " 0.5 "}) == 0.5
    later = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 58 < retry_after({"Retry-After": later}) <= 60
    assert retry_after({"Retry-After": email.utils.formatdate(time.time() - 60, usegmt=True)}) == 0
    for nonsense in ("soon", "", "nan", "inf"):
        assert retry_after({"Retry-After": nonsense}) is None


def test_nobody_waits_for_hours():
    with Server(faults=lambda *_: "429", retry_after="86400") as server:
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"86400.\d s, later than the 300 s"):
            asked(client(server.url))
    assert time.monotonic() - began < 1


def test_nothing_waits_beyond_the_deadline():
    ledger = Ledger(Budget(seconds=2))
    with Server(faults=lambda *_: "429", retry_after="9") as server:
        with pytest.raises(ServerError, match="after the run's deadline") as caught:
            asked(client(server.url, retries=20), ledger=ledger)
    assert caught.value.out_of_time
    assert ledger.seconds_left > 0.5
    ledger = Ledger(Budget(seconds=0.2))
    with Server(faults=lambda *_: "hang") as server:
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            asked(client(server.url, timeout=30), ledger=ledger)
    assert caught.value.out_of_time
    assert time.monotonic() - began < 5


def test_a_reply_that_trickles_is_cut_off_in_total():
    async def trickle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        gone.release()

    gone = asyncio.Semaphore(0)

    async def main():
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        user = client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.15, retries=1)
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"2 tries; the last one: no answer within 0.15 s"):
            await user.request("/x", BODY)
        assert time.monotonic() - began < 5
        await user.aclose()
        for _ in range(2):
            await gone.acquire()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def answers(*parts, ends=False):
    """The reply and the number of connections, of two requests to a server that says this to each."""

    async def served(reader, writer):
        connections.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if ends:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    connections: list[asyncio.Task] = []

    async def main():
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        user = client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", retries=1)
        try:
            return [await user.request("/x", BODY) for _ in range(2)], len(connections)
        finally:
            await user.aclose()
            server.close()
            await asyncio.gather(*connections)

    return asyncio.run(main())


def test_replies_of_every_form_are_read():
    said = b'{"choices": [1, 2, 3]}'
    packed, told = gzip.compress(said), json.loads(said)
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (said[:5], said[5:])]
    ok = b"HTTP/1.1 200 OK\r\n"
    assert answers(ok + b"Content-Length: 22\r\n\r\n", said) == ([told] * 2, 1)
    assert answers(ok + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n") == ([told] * 2, 1)
    assert answers(b"HTTP/1.1 100 Continue\r\n\r\n", ok + b"Content-Length: 22\r\n\r\n" + said) == ([told] * 2, 1)
    length = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert answers(ok + length + packed) == ([told] * 2, 1)
    assert answers(ok + b"\r\n" + said, ends=True) == ([told] * 2, 2)
    assert answers(ok + b"Connection: close\r\nContent-Length: 22\r\n\r\n" + said, ends=True) == ([told] * 2, 2)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"SSH-2.0 hello\r\n\r\n"])
def test_what_is_no_reply_is_a_broken_connection(said):
    with pytest.raises(ServerError, match=r"in 2 tries; the last one: RemoteProtocolError"):
        answers(said, ends=True)


def test_a_dead_server_is_named_with_the_number_of_tries_and_the_cure():
    url = dead_url()
    with pytest.raises(
        ServerError, match=rf"{url}/completions .* in 4 tries; .*ConnectError.*Start the server"
    ) as caught:
        asked(client(url))
    assert caught.value.unreachable
    assert caught.value.tries == 4


def test_what_one_request_learned_of_a_dead_server_serves_the_others():
    user = client(dead_url(), max_concurrency=4, retries=5)
    ledger = Ledger()

    async def many():
        return await asyncio.gather(
            *(user.request("/completions", BODY, seed=i, ledger=ledger) for i in range(40)), return_exceptions=True
        )

    errors = finished(user, many())
    assert all(isinstance(error, ServerError) and error.unreachable for error in errors)
    assert min(error.tries for error in errors) < 6
    before = ledger.spent.retries
    assert before < 40 * 5
    finished(user, many())
    assert ledger.spent.retries == before  # one try each, until it answers


def test_a_server_that_comes_back_is_used_again():
    with Server() as server:
        url = server.url
        user = client(url, retries=1)
    with pytest.raises(ServerError):
        asked(user)
    with Server() as server:
        user.url = server.url
        assert asked(user)["choices"]
        assert not user._down


def test_waiting_times_are_drawn_from_the_requests_seed(monkeypatch):
    waits = []
    sleep = asyncio.sleep

    async def recorded(seconds, *rest):
        waits.append(seconds)
        await sleep(0, *rest)

    def found(seed):
        waits.clear()
        with pytest.raises(ServerError):
            asked(user, seed=seed)
        return list(waits)

    user = client(dead_url(), retries=8, backoff=1.0)
    monkeypatch.setattr("posterax_particles.language._http.asyncio.sleep", recorded)
    first = found(3)
    user._down = False
    second = found(3)
    user._down = False
    assert first == second
    assert found(4) != first
    assert all(0 <= wait <= min(30, 2**i) for i, wait in enumerate(first))
    assert max(first) > 1


def test_no_more_requests_than_allowed_are_under_way():
    with Server(latency=0.01) as server:
        user = client(server.url, max_concurrency=3)

        async def many():
            await asyncio.gather(*(user.request("/completions", {**BODY, "seed": i}) for i in range(12)))

        finished(user, many())
        assert server.most_at_a_time == 3


def test_a_client_serves_several_event_loops():
    with Server() as server:
        user = client(server.url)
        for _ in range(3):
            assert asked(user)["choices"]
        again = pickle.loads(pickle.dumps(user))
        assert asked(again)["choices"]

        async def inside():
            both = run(user.request("/completions", BODY)), await user.request("/completions", BODY)
            run(user.aclose())
            return both

        ours, theirs = finished(user, inside())
    assert ours == theirs


def test_a_cancelled_request_leaves_nothing_behind():
    with Server(faults=lambda *_: "hang") as server:
        user = client(server.url, timeout=30)

        async def cancelled():
            task = asyncio.create_task(user.request("/completions", BODY))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        finished(user, cancelled())


def test_the_key_is_shown_nowhere(transport, caplog, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = Secret(None, "OPENAI_API_KEY")
    with caplog.at_level(logging.DEBUG), Server(key=KEY, faults=schedule("500", "400")) as server:
        user = client(server.url, api_key=key)
        with pytest.raises(ServerError) as caught:
            asked(user)
        with Server(key="another") as strict, pytest.raises(ServerError, match=r"Bearer \*\*\*") as refused:
            asked(client(strict.url, api_key=key))
        assert server.log[0].headers["authorization"] == f"Bearer {KEY}"
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert transport == "plain" or any(record.name.startswith("httpcore") for record in caplog.records)
    shown = [logged, repr(key), repr(user), repr(vars(user)), *map(repr, (caught.value, refused.value))]
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in pickle.dumps(user)
    assert pickle.loads(pickle.dumps(key)).headers() == key.headers()  # read in the environment again
    assert pickle.loads(pickle.dumps(Secret(KEY))).headers() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"url": f"http://user:{KEY}@host/v1"}, "no user, password, query"),
        ({"url": f"http://host/v1?key={KEY}"}, "Give a key as `api_key`"),
        ({"retries": -1}, "`retries` must be an integer, 0 or more; got -1"),
        ({"max_concurrency": 0}, "`max_concurrency` must be an integer, 1 or more"),
        ({"timeout": 0}, "`timeout` must be a positive number of seconds"),
        ({"backoff": float("inf")}, "`backoff` must be a positive number"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        client(**{"url": "http://host", **settings})
    assert KEY not in str(caught.value)


def test_a_key_with_a_line_end_inside_is_refused_unseen():
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        Secret(f"{KEY}\nX-Other: 1")
    assert KEY not in str(caught.value)


def test_without_httpx_the_cure_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match=r"pip install 'posterax\[lm\]'"):
        client("http://host")
