"""train(): minimises an Objective with optax; batches, checkpoints, progress and failures are settled here."""

import functools
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._checkpoint import Checkpoint, Store, as_checkpoint
from ._errors import CheckpointError, TrainingError
from ._hosts import on_host
from ._identity import component_name, identity_of
from ._keys import check_key, describe_key, named, restore_key
from ._loop import Chunk, Outcome, records
from ._loop import run as run_loop
from ._objective import Objective
from ._plan import Plan
from ._precision import precision
from ._progress import Progress
from ._structure import fingerprint
from ._tree import require_same, strengthen

_DEFAULT_PLAN = Plan()


class Batches(eqx.Module):
    """Data cut into minibatches, shuffled anew in each epoch; what is left over of an epoch waits for another one.

    - `data`: a PyTree of arrays with a common leading axis of rows.
    - `size`: rows in a batch.

    Raises `ValueError` for arrays without rows, of different lengths, or fewer rows than a batch.
    """

    data: PyTree[Array]
    size: int

    def __check_init__(self):
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(self.data)}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError(f"`data` must hold arrays with one common leading axis; got lengths {sorted(lengths)}.")
        if not 1 <= self.size <= self.num_rows:
            raise ValueError(f"`size` must be between 1 and the {self.num_rows} rows of `data`; got {self.size}.")

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return int(np.shape(jax.tree.leaves(self.data)[0])[0])


class Trained(eqx.Module):
    """What training gives.

    - `model`: the model of the last step.
    - `losses`: `(steps,)`; not finite where a step was skipped.
    - `metrics`: by name, `(steps,)`.
    - `num_skipped`: steps without an update, because the loss or its gradient was not finite.
    - `objective_state`: what the objective remembers.
    - `result_code`: "successful" or "interrupted" or "nonfinite".
    - `history`: how it was trained, as plain data.
    """

    model: PyTree
    losses: np.ndarray
    metrics: dict[str, np.ndarray]
    num_skipped: int
    objective_state: PyTree
    result_code: str
    history: tuple

    @property
    def next_key(self) -> PRNGKeyArray:
        """A key for whatever comes next, independent of those that training used."""
        return named(restore_key(self.history[-1]["key"]), "next")


class _State(eqx.Module):
    """All that training carries from step to step."""

    trainable: PyTree
    optimiser: PyTree
    objective: PyTree
    order: Array | None  # this epoch's order of the rows
    skipped: Array


def train(
    model: PyTree,
    objective: Objective,
    data: Any = None,
    *,
    num_steps: int,
    key: PRNGKeyArray,
    optimiser: optax.GradientTransformation | None = None,
    trainable: Any = eqx.is_inexact_array,
    max_skipped: int = 0,
    plan: Plan = _DEFAULT_PLAN,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    progress: bool | None = None,
    throw: bool = True,
) -> Trained:
    """Minimise `objective` over the trainable arrays of `model`.

    - `data`: `Batches(arrays, size)`; or a PyTree of arrays, all used in each step; or a function of a key that
      simulates a batch, compiled together with the step; or None.
    - `optimiser`: from optax; Adam at 1e-3 by default. Make it once: a new one compiles anew.
    - `trainable`: which leaves are: a function of a leaf, or a PyTree of booleans like the model.
    - `max_skipped`: how many steps may be skipped because loss or gradient were not finite before training fails.
    - `plan`: several devices divide the rows of each batch, that is, all arrays whose leading axis is as long as that
      of the first; the model is on each. Sums are then taken in another order than on one device.
    - `checkpoint`, `progress`, `throw`: as in `sample`.

    Ctrl-C returns the model as far as it came; `.result_code` says so.

    Raises `TrainingError` (with the last good model in `.trained`) where too many steps are not finite,
    `CheckpointError`, and `ValueError` or `TypeError` for arguments out of place.
    """
    key = check_key(key, "train")
    if not isinstance(objective, Objective):
        raise TypeError(f"`objective` must be an Objective; got {type(objective).__name__}.")
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"`num_steps` must be an integer, at least 1; got {num_steps!r}.")
    if not callable(data) and any(np.size(leaf) == 0 for leaf in jax.tree.leaves(data)):
        raise ValueError("`data` holds an empty array. Training needs at least one row.")
    optimiser = _default_optimiser() if optimiser is None else optimiser
    where = as_checkpoint(checkpoint)
    bits = plan.precision or objective.precision
    with precision(bits):
        runner = functools.partial(_run, model, objective, data, num_steps, key, optimiser, trainable, max_skipped)
        return runner(Plan(plan.devices, bits), where, progress, throw)


@functools.cache
def _default_optimiser() -> optax.GradientTransformation:
    return optax.adam(1e-3)


def _run(model, objective, data, num_steps, key, optimiser, trainable, max_skipped, plan, checkpoint, progress, throw):
    learned, fixed = eqx.partition(model, trainable)
    if not jax.tree.leaves(learned):
        raise ValueError("`model` has no trainable array. Look at `trainable`; by default, arrays of floats are.")
    if plan.num_devices > 1:
        _check_rows(_rows_of_a_batch(data, key), plan)
    state = plan.copy(_begin(learned, fixed, objective, data, optimiser, key))
    store, step, rows = None, 0, []
    if checkpoint is not None:
        identity = {
            **identity_of(objective, data, key, 1, None),
            "model": fingerprint(model),
            "optimiser": fingerprint(optimiser),
        }
        store = Store(checkpoint, "train", identity, plan)
        row = eqx.filter_eval_shape(_step, fixed, objective, data, optimiser, Plan(), key, state, jnp.asarray(0))[1]
        if (found := store.load((state, row))) is not None:
            state, step, rows, _ = found
            state = plan.copy(state)

    def commit(state, step, fresh, last):
        if store is not None:
            store.save(state, step, fresh, last=last)

    def advance(state, start, stop):
        return _advance(fixed, objective, data, optimiser, plan, key, state, jnp.asarray(start), jnp.asarray(stop))

    finish = functools.partial(_finish, fixed, objective, key, rows)
    with Progress(progress, num_steps, f"Training by {type(objective).__name__}") as bar:
        try:
            outcome = run_loop(
                advance, state, start=step, stop=num_steps, progress=bar, commit=commit,
                note=lambda row: f"loss {row['loss'][-1]:.4g}" if len(row["loss"]) else "",
                healthy=_Patience(max_skipped, rows),
            )  # fmt: skip
        except CheckpointError as error:
            error.kept = finish(error.kept) if isinstance(error.kept, Outcome) else None
            raise
    trained = finish(outcome)
    if trained.num_skipped > max_skipped:
        bad = np.flatnonzero(~np.isfinite(trained.losses))
        first = f"first in step {bad[0]}" if bad.size else "though the loss was finite: its gradient was not"
        trained = eqx.tree_at(lambda t: t.result_code, trained, "nonfinite")
        if throw:
            raise TrainingError(
                f"The loss of {type(objective).__name__} or its gradient was not finite in {trained.num_skipped} of "
                f"{len(trained.losses)} steps, {first}; `max_skipped` allows {max_skipped}. Those steps changed "
                "nothing, and the model as it stands is in this error's `.trained`. Lower the learning rate, clip "
                "gradients (`optax.clip_by_global_norm`), or mend the loss.",
                trained,
            )
    return trained


class _Patience:
    """Whether training may go on: counts the steps whose loss or gradient was not finite."""

    def __init__(self, most: int, earlier: list):
        self._most, self._count = most, sum(int(row["skipped"].sum()) for row in earlier)

    def __call__(self, row) -> bool:
        self._count += int(row["skipped"].sum())
        return self._count <= self._most


def _finish(fixed, objective, key, earlier: list, outcome: Outcome) -> Trained:
    rows = [*earlier, *outcome.rows]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *rows) if rows else {"loss": np.zeros(0)}
    skipped = int(joined.pop("skipped", np.zeros(0)).sum())
    losses = joined.pop("loss")
    record = {"step": "train", "component": component_name(objective), "key": describe_key(key), "steps": outcome.step}
    return Trained(
        model=eqx.combine(_local(outcome.state.trainable), fixed),
        losses=losses,
        metrics=joined,
        num_skipped=skipped,
        objective_state=_local(outcome.state.objective),
        result_code="interrupted" if outcome.interrupted else "successful",
        history=(record,),
    )


def _local(tree: PyTree) -> PyTree:
    """Arrays that lie on several devices, brought to the default one, where whatever comes next computes."""
    many = lambda leaf: isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(on_host(leaf)) if many(leaf) else leaf, tree)


@eqx.filter_jit
def _begin(learned, fixed, objective, data, optimiser, key) -> _State:
    order = jnp.arange(data.num_rows) if isinstance(data, Batches) else None
    first = objective.init(eqx.combine(learned, fixed), key=named(key, "init"))
    return strengthen(_State(learned, optimiser.init(learned), first, order, jnp.asarray(0)))


def _batch(data, order, step: Array, key) -> tuple[Any, Array | None]:
    if isinstance(data, Batches):
        per_epoch = data.num_rows // data.size
        shuffled = lambda: jr.permutation(jr.fold_in(named(key, "epochs"), step // per_epoch), data.num_rows)  # noqa: E731
        order = jax.lax.cond(step % per_epoch == 0, shuffled, lambda: order)
        rows = jax.lax.dynamic_slice_in_dim(order, (step % per_epoch) * data.size, data.size)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data.data), order
    if isinstance(data, Callable):
        return data(jr.fold_in(named(key, "data"), step)), order
    return data, order


def _rows_of_a_batch(data, key) -> int:
    if isinstance(data, Batches):
        return data.size
    shapes = eqx.filter_eval_shape(data, key) if isinstance(data, Callable) else data
    return _length(shapes)


def _check_rows(num: int, plan: Plan) -> None:
    if num == 0:
        raise ValueError(
            f"`plan` has {plan.num_devices} devices, and `data` no rows to divide: the objective makes its own. Leave "
            "`devices` out."
        )
    plan.check_divides(num, "rows of a batch")


def _length(batch: Any) -> int:
    """Of the leading axis of the first array that has one; 0 where there is none."""
    return next((np.shape(leaf)[0] for leaf in jax.tree.leaves(batch) if np.ndim(leaf)), 0)


def _step(fixed, objective, data, optimiser, plan, key, state: _State, step: Array) -> tuple[_State, dict[str, Array]]:
    batch, order = _batch(data, state.order, step, key)
    batch = plan.spread(batch, _length(batch))

    @eqx.filter_value_and_grad(has_aux=True)
    def loss(learned):
        model = eqx.combine(learned, fixed)
        value, more = objective.loss(model, batch, state.objective, key=jr.fold_in(named(key, "steps"), step))
        if jnp.shape(value) != ():
            raise TypeError(f"{type(objective).__name__}.loss must return one number; got shape {jnp.shape(value)}.")
        return value, more

    (value, (memory, metrics)), gradient = loss(state.trainable)
    updates, moments = optimiser.update(gradient, state.optimiser, state.trainable)
    fine = jnp.isfinite(value)
    for leaf in jax.tree.leaves(gradient):
        fine &= jnp.all(jnp.isfinite(leaf))
    require_same(state.objective, memory, f"{type(objective).__name__}.loss changed its state")
    new = _State(eqx.apply_updates(state.trainable, updates), moments, memory, state.order, state.skipped)
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), strengthen(new), state)
    kept = _State(kept.trainable, kept.optimiser, kept.objective, order, state.skipped + ~fine)
    return kept, {**metrics, "loss": value, "skipped": ~fine}


@eqx.filter_jit
def _advance(fixed, objective, data, optimiser, plan, key, state, start, stop) -> Chunk:
    one = functools.partial(_step, fixed, objective, data, optimiser, plan, key)

    def body(step, carry):
        state, room = carry
        state, row = one(state, step)
        return state, jax.tree.map(lambda r, new: r.at[step - start].set(new), room, row)

    room, most = records(jax.eval_shape(one, state, start)[1])
    stop = jnp.minimum(stop, start + most)
    state, rows = jax.lax.fori_loop(start, stop, body, (state, room))
    return Chunk(state, rows, stop, False)
