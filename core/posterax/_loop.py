"""The one loop: chunks of compiled steps, about half a second each, that can be interrupted, recorded and resumed."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._errors import CheckpointError
from ._hosts import agreed, on_host
from ._progress import Progress

CHUNK_SECONDS = 0.5
_FIRST_CHUNK = 20
_MOST_ROWS = 4096
_MOST_BYTES = 32 * 2**20


class Chunk(NamedTuple):
    """What `advance(state, start, stop)` returns: the work of some steps."""

    state: PyTree
    rows: PyTree  # records with leading axis `capacity`, of which as many hold as steps were made
    stop: Any  # the step reached; less than asked for where the capacity is used up, or where `finished`
    finished: Any  # True where no step may follow


class Outcome(NamedTuple):
    """How far a loop came."""

    state: PyTree
    step: int
    rows: list[PyTree]  # NumPy records, one entry a chunk
    finished: bool
    interrupted: bool


def records(row: PyTree) -> tuple[PyTree, int]:
    """Room for the records of one chunk, and for how many: fixed by their size, so that no length compiles anew.

    - `row`: shapes and dtypes of one record.
    """
    most = _capacity(row)
    return jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), row), most


def _capacity(row: PyTree) -> int:
    size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(row))
    return int(np.clip(_MOST_BYTES // max(size, 1), 1, _MOST_ROWS))


def run(
    advance: Callable[[PyTree, int, int], Chunk],
    state: PyTree,
    *,
    start: int,
    stop: int | None,
    progress: Progress,
    commit: Callable[[PyTree, int, list[PyTree], bool], None] | None = None,
    note: Callable[[PyTree], str] | None = None,
    healthy: Callable[[PyTree], bool] | None = None,
) -> Outcome:
    """Advance from `start` to `stop`, or until finished where `stop` is None.

    - `commit`: called after each chunk with (state, step, rows so far, whether this is the end).
    - `note`: a few words on the last chunk's records, for the progress bar.
    - `healthy`: whether the last chunk's records are fit to go on; else the loop stops after it.

    Ctrl-C ends the loop after the last whole chunk; a second one is the caller's.
    """
    outcome = Outcome(state, start, [], stop is not None and start >= stop, False)
    size, first = _FIRST_CHUNK, True
    try:
        while not outcome.finished:
            began = time.perf_counter()
            length = size if stop is None else min(size, stop - outcome.step)
            chunk = jax.block_until_ready(advance(outcome.state, outcome.step, outcome.step + length))
            reached = int(chunk.stop)
            made = reached - outcome.step
            rows = jax.tree.map(lambda leaf: np.array(leaf[:made]), on_host(chunk.rows))  # noqa: B023
            finished = bool(chunk.finished) or reached == stop
            # One assignment: an interrupt falls before it or after it, never between state and records.
            outcome = Outcome(chunk.state, reached, [*outcome.rows, rows], finished, False)
            if not first:  # the first chunk's time is the compiler's
                size = agreed(_next_size(made, time.perf_counter() - began))
            first = False
            well = healthy is None or healthy(rows)
            if commit is not None:
                commit(outcome.state, reached, outcome.rows, finished or not well)
            progress.update(reached, "" if note is None else note(rows))
            if not well:
                break
    except KeyboardInterrupt:
        return outcome._replace(interrupted=True)
    except CheckpointError as error:
        error.kept = outcome  # a full disk costs no draws
        raise
    return outcome


def _next_size(length: int, seconds: float) -> int:
    wished = length * CHUNK_SECONDS / max(seconds, 1e-6)
    return int(np.clip(wished, 1, 10 * length))
