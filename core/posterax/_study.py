"""study(): one function on many cases that know nothing of each other; compiled on devices, or by any executor."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ._checkpoint import Checkpoint, Store, as_checkpoint
from ._hosts import several
from ._identity import identity_of
from ._keys import check_key, describe_key, named, numbered, restore_key
from ._loop import Chunk, records
from ._loop import run as run_loop
from ._plan import Plan
from ._precision import precision
from ._progress import Progress
from ._tree import as_jax, strengthen


def study(
    function: Callable[..., PyTree],
    cases: Any,
    *,
    key: PRNGKeyArray,
    on: Plan | Executor | None = None,
    at_once: int = 1,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    progress: bool | None = None,
) -> PyTree[np.ndarray]:
    """`function(case, key=key)` for each case: simulations, or many independent fits.

    - `function`: gives numbers and arrays, in any PyTree, of the same shapes for all cases.
    - `cases`: how many, and a case is its number; or a PyTree of arrays with a common leading axis of cases.
    - `key`: of which each case has its own; that of case i does not depend on how many there are.
    - `on`: a `Plan`: the function is compiled, and cases are divided over the plan's devices. An executor such as
      `ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))` or Dask's `client.get_executor()`: it is
      called as it is, in the executor's workers, which must be able to import it. None: called here, one by one.
    - `at_once`: how many cases a device computes together (`jax.vmap`), with a Plan.
    - `checkpoint`: a folder, or a `Checkpoint`; the same call goes on with the cases that are missing there. With an
      executor each case is kept as soon as it is there.
    - `progress`: as in `sample`.

    Returns the results of all cases stacked along a leading axis. Each case's result is the same whoever computes it,
    with a Plan up to rounding.

    Raises `ValueError` for no cases or results of different shapes, and whatever `function` raises, with a note on
    the case; cases that are done stay in the checkpoint.
    """
    key = check_key(key, "study")
    num, cases = _cases(cases)
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise ValueError(f"`at_once` must be an integer, 1 or more; got {at_once!r}.")
    where = as_checkpoint(checkpoint)
    if isinstance(on, Plan):
        with precision(on.precision):
            return _compiled(function, as_jax(cases), num, key, on, at_once, where, progress)
    if on is not None and not isinstance(on, Executor):
        raise TypeError(f"`on` must be a Plan, a concurrent.futures.Executor or None; got {type(on).__name__}.")
    if several():
        raise ValueError("Under `jax.distributed` each process would make all cases: pass `on=Plan(devices=...)`.")
    return _called(function, cases, num, key, on, where, progress)


def _cases(cases: Any) -> tuple[int, PyTree]:
    if isinstance(cases, (int, np.integer)) and not isinstance(cases, bool):
        cases = np.arange(cases)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(cases)}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        raise ValueError(
            "`cases` must be a number, 1 or more, or arrays with one common leading axis of cases; got lengths "
            f"{sorted(lengths)}."
        )
    return next(iter(lengths))[0], cases


# Compiled, on the devices of a plan


def _compiled(function, cases, num, key, plan: Plan, at_once: int, checkpoint, progress) -> PyTree[np.ndarray]:
    size = plan.num_devices * at_once
    keys = numbered(named(key, "cases"), num)
    state, step, rows, store = jnp.zeros(()), 0, [], None
    if checkpoint is not None:
        identity = {**identity_of(function, cases, key, num), "number_at_once": at_once}
        store = Store(checkpoint, "study", identity, plan)
        row = eqx.filter_eval_shape(_batch, function, cases, keys, plan, size, 0)
        if (found := store.load((state, row))) is not None:
            _, step, rows, _ = found

    def commit(state, step, fresh, last):
        if store is not None:
            store.save(state, step, fresh, last=last)

    def advance(state, start, stop):
        rows, reached = _advance(function, cases, keys, plan, size, jnp.asarray(start), jnp.asarray(stop))
        return Chunk(state, rows, reached, False)

    stop = -(-num // size)
    with Progress(progress, stop, "Study") as bar:
        outcome = run_loop(advance, state, start=step, stop=stop, progress=bar, commit=commit)
    if outcome.interrupted:
        kept = "" if checkpoint is None else f" {checkpoint.folder} holds its last checkpoint."
        raise KeyboardInterrupt(f"Interrupted after {outcome.step * size} of {num} cases.{kept}")
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *rows, *outcome.rows)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num], joined)


def _batch(function, cases, keys, plan: Plan, size: int, step) -> PyTree:
    """Results of `size` cases; the last batch is filled up with the last case."""
    places = jnp.minimum(step * size + jnp.arange(size), len(keys) - 1)
    arrays, static = eqx.partition(function, eqx.is_array)

    def local(cases, keys, arrays):
        function = eqx.combine(arrays, static)
        return strengthen(jax.vmap(lambda case, key: function(case, key=key))(cases, keys))

    mine = jax.tree.map(lambda leaf: leaf[places], cases)
    return plan.shard(local, (0, 0, None), 0)(mine, keys[places], arrays)


@eqx.filter_jit
def _advance(function, cases, keys, plan, size, start, stop):
    one = partial(_batch, function, cases, keys, plan, size)
    room, most = records(jax.eval_shape(one, start))
    stop = jnp.minimum(stop, start + most)
    put = lambda step, room: jax.tree.map(lambda r, new: r.at[step - start].set(new), room, one(step))  # noqa: E731
    return jax.lax.fori_loop(start, stop, put, room), stop


# Called as it is, here or by an executor


def _called(function, cases, num, key, executor, checkpoint, progress) -> PyTree[np.ndarray]:
    store, results = None, {}
    if checkpoint is not None:
        store = Store(checkpoint, "study", identity_of(function, cases, key, num), Plan())
        results = {int(name): result for name, result in store.parts()}
    base = named(key, "cases")
    left = [place for place in range(num) if place not in results]
    task = lambda place: (function, jax.tree.map(lambda leaf: leaf[place], cases), describe_key(base), place)  # noqa: E731
    with Progress(progress, num, "Study") as bar:
        for place, result in _in_turn(task, left) if executor is None else _in_any_order(task, left, executor):
            results[place] = result
            if store is not None:
                store.add(f"{place:09d}", result)
            bar.update(len(results))
    return _stacked([results[place] for place in range(num)])


def _in_turn(task, places):
    for place in places:
        yield place, _noted(place, lambda place=place: _one(*task(place)))


def _in_any_order(task, places, executor: Executor):
    waiting = {executor.submit(_one, *task(place)): place for place in places}
    try:
        for future in as_completed(waiting):
            yield waiting[future], _noted(waiting[future], future.result)
    finally:
        for future in waiting:
            future.cancel()


def _one(function, case, key: dict, place: int) -> PyTree[np.ndarray]:
    """One case, in whatever process; keys travel as plain data."""
    result = function(case, key=jax.random.fold_in(restore_key(key), place))
    return jax.tree.map(np.asarray, result)


def _noted(place: int, result: Callable[[], Any]) -> Any:
    try:
        return result()
    except Exception as error:
        error.add_note(f"posterax met this in case {place} of a study.")
        raise


def _stacked(results: list) -> PyTree[np.ndarray]:
    shapes = [(jax.tree.structure(one), [leaf.shape for leaf in jax.tree.leaves(one)]) for one in results]
    for place, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"`function` must give results of the same shapes for all cases; case 0 gave {shapes[0]}, case {place} "
                f"{shape}. Give a summary of fixed size."
            )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)
