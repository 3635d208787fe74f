"""One event loop, on a thread of its own: asynchronous work is done from scripts and from notebooks alike."""

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_THREAD = "posterax-language"
_lock = threading.Lock()
_running: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork takes no thread along


def loop() -> asyncio.AbstractEventLoop:
    """The package's event loop, started when first asked for."""
    with _lock:
        found = _running.get(os.getpid())
        if found is None or found.is_closed():
            found = asyncio.new_event_loop()
            thread = threading.Thread(target=found.run_forever, name=_THREAD, daemon=True)
            thread.start()
            atexit.register(_let_go, found, thread, os.getpid())
            _running[os.getpid()] = found
        return found


def _let_go(running: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """Waits, at the interpreter's end, until the thread is out of compiled code: cut off in there, it takes all down.

    Two Ctrl-C in a row reach this with work under way, of which the step now being made is ended.
    """
    if process == os.getpid() and not running.is_closed():
        running.call_soon_threadsafe(running.stop)
        thread.join(timeout=10)


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """The result of a coroutine, waited for; the caller may itself be inside another running loop.

    Ctrl-C cancels the work and waits until it has let go.

    - `timeout`: seconds, after which the work is cancelled and `TimeoutError` raised.
    """
    if threading.current_thread().name == _THREAD:
        work.close()
        raise RuntimeError("This was called from within a run, whose thread would wait for itself. Use `await` there.")
    future = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result(timeout)
    except BaseException:
        if not future.done():
            future.cancel()
            concurrent.futures.wait([future], timeout=5)
        raise
