"""Moving a whole population: every draw is a chain of its own for a few steps."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from ._chains import on_values, stats_of
from ._checkpoint import Store
from ._draws import Draws
from ._hosts import on_host, several
from ._identity import identity_of
from ._keys import named, numbered
from ._loop import Chunk
from ._loop import run as run_loop
from ._progress import Progress
from ._tree import require_same, strengthen
from ._whitened import whitened
from .weights import normalise


def move(sampler, target, draws: Draws, steps: int, run, *, whiten: bool, key: PRNGKeyArray):
    """Values, log density and last statistics, all `(chain, draw, ...)`, after `steps` transitions of each draw.

    - `whiten`: make them in the space where the draws have mean 0 and covariance 1.
    """
    from ._stages import latent_values

    shape = draws.shape
    num = shape[0] * shape[1]
    run.plan.check_divides(num, "number of draws")
    values = {name: leaf.reshape(num, *leaf.shape[2:]) for name, leaf in latent_values(target, draws).items()}
    if whiten:
        target = _whitened(target, values, np.asarray(draws.flat_log_weights(), jnp.result_type(float)))
    keys = run.plan.place(numbered(named(key, "draws"), num))
    begin = partial(_begin, sampler, target, values, keys, run.plan)
    store, state, step = None, None, 0
    if run.checkpoint is not None:
        store = Store(run.checkpoint, "move", identity_of(sampler, target, key, num, values), run.plan)
        if (found := store.load((eqx.filter_eval_shape(begin), {}))) is not None:
            state, step, _, _ = found
            state = run.plan.place(state)
    state = begin() if state is None else state

    def commit(state, step, rows, last):
        if store is not None:
            store.save(state, step, rows, last=last)

    def advance(state, start, stop):
        return _advance(sampler, target, keys, run.plan, state, jnp.asarray(start), jnp.asarray(stop))

    with Progress(run.progress, steps, f"Move {type(sampler).__name__}") as bar:
        outcome = run_loop(advance, state, start=step, stop=steps, progress=bar, commit=commit)
    if outcome.interrupted:
        raise KeyboardInterrupt(f"Interrupted in step {outcome.step} of {steps} of Move.")
    state, info = on_host(outcome.state) if several() else outcome.state
    positions = jax.vmap(sampler.position)(state)
    values, log_density = on_values(target, jax.tree.map(lambda leaf: leaf[None], positions))
    unflatten = lambda leaf: np.array(leaf).reshape(*shape, *np.shape(leaf)[1:])  # noqa: E731
    return (
        {name: unflatten(leaf[0]) for name, leaf in values.items()},
        unflatten(log_density[0]),
        {name: unflatten(leaf) for name, leaf in info.items()},
    )


@eqx.filter_jit
def _whitened(target, values, log_weights):
    positions = jax.vmap(target.unconstrain)(values)
    return whitened(target, jnp.ones(()), positions, normalise(log_weights)).target


@eqx.filter_jit
def _begin(sampler, target, values, keys, plan):
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(values, keys, arrays):
        sampler, target = eqx.combine(arrays, static)

        def one(values, key):
            state = sampler.init(target, target.unconstrain(values), key=named(key, "init"))
            new, info = jax.eval_shape(lambda: sampler.step(target, state, key=key))
            require_same(state, new, f"{type(sampler).__name__}.step changed the state")
            return strengthen(state), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), stats_of(info))

        return jax.vmap(one)(values, keys)

    return plan.shard(local, (0, 0, None), 0)(values, keys, arrays)


@eqx.filter_jit
def _advance(sampler, target, keys, plan, state, start, stop) -> Chunk:
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(state, keys, arrays, start, stop):
        sampler, target = eqx.combine(arrays, static)

        def body(step, carry):
            state, _ = carry
            state, info = jax.vmap(lambda s, k: sampler.step(target, s, key=jr.fold_in(k, step)))(state, keys)
            return strengthen(state), stats_of(info)

        return jax.lax.fori_loop(start, stop, body, state)

    return Chunk(plan.shard(local, (0, 0, None, None, None), 0)(state, keys, arrays, start, stop), {}, stop, False)
