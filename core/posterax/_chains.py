"""Markov chains: start them, run them, and turn what they leave into Draws."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._check import describe
from ._checkpoint import Checkpoint, Store
from ._draws import Draws, Result
from ._errors import CheckpointError, PosteraxWarning, SamplingError
from ._hosts import on_host, several
from ._identity import identity_of, record_of
from ._keys import named, numbered
from ._loop import Chunk, Outcome, records
from ._loop import run as run_loop
from ._plan import Plan
from ._progress import Progress
from ._start import starts
from ._tree import require_same, strengthen

_AT_ONCE = 1024


class Row(eqx.Module):
    """What one step leaves: where the chain is, and the fields of the step's info."""

    position: PyTree[Array]
    log_density: Array | None  # where the sampler has it at hand
    stats: dict[str, Array]


def run(
    sampler,
    target,
    *,
    num_draws: int,
    num_chains: int,
    key: PRNGKeyArray,
    init: Mapping[str, Any] | None,
    plan: Plan,
    checkpoint: Checkpoint | None,
    progress: bool | None,
    throw: bool,
) -> Draws:
    """Draws of `num_chains` chains of `num_draws` each; see `posterax.sample`."""
    plan.check_divides(num_chains, "num_chains")
    finish = partial(_finish, sampler, target, num_chains=num_chains, key=key, plan=plan)
    try:
        outcome = _loop(
            sampler, target, sampler.num_warmup + num_draws, num_chains=num_chains, key=key, init=init, plan=plan,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
    except CheckpointError as error:
        if isinstance(error.kept, Outcome):
            error.kept = finish(error.kept) if error.kept.step > sampler.num_warmup else None
        raise
    if outcome.interrupted and outcome.step <= sampler.num_warmup:
        kept = "" if checkpoint is None else f"; {checkpoint.folder} holds its last checkpoint"
        raise KeyboardInterrupt(f"Interrupted in step {outcome.step}, during warm-up: there are no draws yet{kept}.")
    if not _finite(outcome.rows[-1]) and not _good_rows(outcome, sampler.num_warmup):
        raise SamplingError(_not_finite(sampler, outcome, "There are no draws before it."))
    draws = finish(outcome, num_draws=num_draws)
    complaint = _complaint(sampler, target, draws, outcome, key)
    if complaint is not None:
        draws = draws.replace(result_code=Result.NONFINITE.value)
        if throw:
            raise SamplingError(complaint, draws)
        warnings.warn(complaint, PosteraxWarning, stacklevel=3)
    return draws


def warm(sampler, target, *, num_chains, key, init, plan, progress) -> PyTree:
    """The states of all chains after warm-up, stacked."""
    plan.check_divides(num_chains, "num_chains")
    outcome = _loop(
        sampler, target, sampler.num_warmup, num_chains=num_chains, key=key, init=init, plan=plan, checkpoint=None,
        progress=progress,
    )  # fmt: skip
    if outcome.interrupted:
        raise KeyboardInterrupt(f"Interrupted in step {outcome.step} of {sampler.num_warmup} warm-up steps.")
    return on_host(outcome.state) if several() else outcome.state


def _loop(sampler, target, stop, *, num_chains, key, init, plan, checkpoint, progress) -> Outcome:
    chain_keys = plan.place(numbered(named(key, "chains"), num_chains))
    begin = partial(starts, sampler, target, chain_keys, num_chains=num_chains, init=init, key=key, plan=plan)
    store, held, step, rows = None, None, 0, []
    if checkpoint is not None:
        store = Store(checkpoint, "sample", identity_of(sampler, target, key, num_chains, init), plan)
        state_like = begin(shape_only=True)
        row_like = eqx.filter_eval_shape(_rows, sampler, target, state_like, chain_keys)
        if (found := store.load((state_like, row_like))) is not None:
            held, step, rows, _ = found
            held = plan.place(held)
    state = begin() if held is None else held

    def commit(state, step, fresh, last):
        if store is not None:
            store.save(state, step, fresh, last=last)

    with Progress(progress, stop, type(sampler).__name__) as bar:
        advance = partial(_advance, sampler, target, chain_keys, plan)
        try:
            outcome = run_loop(
                lambda state, a, b: advance(state, jnp.asarray(a), jnp.asarray(b)),
                state, start=step, stop=stop, progress=bar, commit=commit,
                note=partial(_note, sampler.num_warmup), healthy=_finite,
            )  # fmt: skip
        except CheckpointError as error:
            if isinstance(error.kept, Outcome):
                error.kept = error.kept._replace(rows=[*rows, *error.kept.rows])
            raise
    return outcome._replace(rows=[*rows, *outcome.rows])


@eqx.filter_jit
def _advance(sampler, target, chain_keys, plan, state, start, stop) -> Chunk:
    # Under `shard_map` arrays must come in as arguments: copied to each device, like the two numbers.
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(state, keys, arrays, start, stop):
        sampler, target = eqx.combine(arrays, static)

        def body(step, carry):
            state, room = carry
            state, info = _each(lambda s, k: sampler.step(target, s, key=jr.fold_in(k, step)), state, keys)
            row = _row(sampler, state, info)
            return strengthen(state), jax.tree.map(lambda r, new: r.at[step - start].set(new), room, row)

        room, most = records(jax.eval_shape(partial(_rows, sampler, target), state, keys))
        stop = jnp.minimum(stop, start + most)
        return *jax.lax.fori_loop(start, stop, body, (state, room)), stop[None]

    sharded = plan.shard(local, (0, 0, None, None, None), (0, 1, 0))
    state, rows, reached = sharded(state, chain_keys, arrays, start, stop)
    return Chunk(state, rows, reached[0], False)


def _each(step, state, keys):
    """One step of each chain. A single chain goes as it is: `vmap` makes a branch compute both its sides."""
    if len(keys) > 1:
        return jax.vmap(step)(state, keys)
    alone = step(jax.tree.map(lambda leaf: leaf[0], state), keys[0])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], alone)


def _rows(sampler, target, state, keys) -> Row:
    new, info = jax.vmap(lambda s, k: sampler.step(target, s, key=k))(state, keys)
    require_same(state, new, f"{type(sampler).__name__}.step changed the state")
    return _row(sampler, new, info)


def _row(sampler, state, info) -> Row:
    return Row(jax.vmap(sampler.position)(state), jax.vmap(sampler.log_density)(state), stats_of(info))


def stats_of(info: Any) -> dict[str, Array]:
    """The fields of a step's info by name; a dict as it is, None as no statistics."""
    if info is None:
        return {}
    if isinstance(info, Mapping):
        return dict(info)
    names = getattr(info, "_fields", None) or list(type(info).__dataclass_fields__)
    return {name: getattr(info, name) for name in names}


def _finite(rows: Row) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rows.position) if leaf.dtype.kind == "f")


def _note(num_warmup: int, rows: Row) -> str:
    diverging = rows.stats.get("diverging")
    return "" if diverging is None or not diverging.any() else f"{int(diverging.sum())} divergences lately"


def _finish(sampler, target, outcome: Outcome, *, num_chains, key, plan, num_draws: int | None = None) -> Draws:
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *outcome.rows)
    keep = slice(sampler.num_warmup, None if num_draws is None else sampler.num_warmup + num_draws)
    rows = jax.tree.map(lambda leaf: np.swapaxes(leaf[keep], 0, 1), rows)
    good = _good_draws(rows.position)
    rows = jax.tree.map(lambda leaf: leaf[:, :good], rows)
    values, log_density = on_values(target, rows.position, rows.log_density)
    draws = Draws(
        values=values,
        stats=rows.stats,
        log_density=log_density,
        no_evidence="Markov chains carry no normalising constant.",
        result_code=(Result.INTERRUPTED if outcome.interrupted else Result.SUCCESSFUL).value,
        labels=target.labels,
    )
    return draws.recorded("sample", **record_of(sampler, key, plan), num_chains=num_chains, num_draws=good)


def _good_rows(outcome: Outcome, num_warmup: int) -> int:
    rows = jax.tree.map(lambda *parts: np.concatenate(parts)[num_warmup:], *(rows.position for rows in outcome.rows))
    first = jax.tree.leaves(rows)[0]
    return _good_draws(jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), rows)) if len(first) else 0


def _good_draws(position: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(position) if leaf.dtype.kind == "f"]
    bad = np.any([~np.isfinite(leaf).reshape(*leaf.shape[:2], -1).all(axis=(0, 2)) for leaf in leaves], axis=0)
    return int(np.argmax(bad)) if bad.any() else len(bad)


@eqx.filter_jit
def _evaluate(target, positions, log_density):
    def one(point):
        u, known = point
        terms = target.density.terms(u)
        values = {**terms.values, **terms.derived}
        if known is not None:  # then the compiler leaves the likelihood out
            return values, known - terms.log_jacobian
        return values, terms.log_joint

    leading = jax.tree.leaves(positions)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (positions, log_density))
    done = jax.lax.map(one, flat, batch_size=_AT_ONCE)  # many draws of much data would not fit into memory together
    return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), done)


def on_values(target, positions: PyTree, log_density=None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values, and the log density of the values, at positions with two leading axes.

    - `log_density`: that of the positions, where it is known.
    """
    values, log_density = _evaluate(target, positions, log_density)
    return {name: np.array(value) for name, value in values.items()}, np.array(log_density)


def _complaint(sampler, target, draws: Draws, outcome: Outcome, key) -> str | None:
    """Words for what is wrong with the finished run; None where nothing is. Warns of what may be wrong."""
    name = type(sampler).__name__
    if not _finite(outcome.rows[-1]):
        return _not_finite(sampler, outcome, "The draws before it are kept in this error's `.draws`.")
    diverging = draws.stats.get("diverging")
    if diverging is not None and not diverging.any():
        return None
    from ._probe import nan_near

    if (point := nan_near(target, draws, named(key, "probe"))) is not None:
        return (
            f"The log density is NaN at {describe(point)}, close to the draws: {name} stops short of such points, so "
            "the draws miss whatever lies beyond (kept in this error's `.draws`). Return -inf where the density "
            "is zero, or mend log, sqrt or division there; `target.check(key=key)` may tell more."
        )
    if diverging is not None:
        warnings.warn(
            f"{int(diverging.sum())} of {diverging.size} transitions diverged: the draws may miss a region of strong "
            "curvature. Reparametrise (a non-centred form often helps), or raise `target_accept`.",
            PosteraxWarning,
            stacklevel=4,
        )
    return None


def _not_finite(sampler, outcome: Outcome, kept: str) -> str:
    """Words for the first position of the last chunk that is not finite."""
    last = outcome.rows[-1]
    leaves = [np.reshape(leaf, (*leaf.shape[:2], -1)) for leaf in jax.tree.leaves(last.position)]
    bad: np.ndarray = np.logical_not(np.isfinite(np.concatenate(leaves, axis=-1)).all(axis=-1))
    row, chain = np.argwhere(bad)[0]
    step = outcome.step - len(bad) + int(row)
    return (
        f"{type(sampler).__name__} moved chain {chain} to a position that is not finite in step {step}. {kept} Look "
        "for a log density that is +inf or NaN (`target.check(key=key)`), or for a fault in the sampler."
    )
