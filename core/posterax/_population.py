"""Weighted populations: run a PopulationSampler until it is done, several independent times at once."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ._chains import on_values, stats_of
from ._checkpoint import Store
from ._draws import Draws
from ._errors import SamplingError
from ._hosts import on_host
from ._identity import identity_of, record_of
from ._keys import named, numbered
from ._loop import Chunk, records
from ._loop import run as run_loop
from ._plan import Plan
from ._progress import Progress
from ._sampler import PopulationSampler
from ._tree import require_same, strengthen


def run(sampler, target, *, num_chains, key, plan, checkpoint, progress, throw) -> Draws:
    """`num_chains` independent populations, as Draws; see `posterax.sample`."""
    keys = numbered(named(key, "chains"), num_chains)
    if plan.divides_particles:
        shape = eqx.filter_eval_shape(_begin, sampler, target, keys, Plan())
        plan.check_divides(_size(sampler, shape), "number of particles")
        placed = plan.copy
    else:
        plan.check_divides(num_chains, "num_chains")
        placed = plan.place
    keys = placed(keys)
    state, step, rows, store = None, 0, [], None
    if checkpoint is not None:
        store = Store(checkpoint, "population", identity_of(sampler, target, key, num_chains), plan)
        shapes = eqx.filter_eval_shape(_begin, sampler, target, keys, plan)
        row = eqx.filter_eval_shape(_rows, sampler, target, shapes, keys)
        if (found := store.load((shapes, row))) is not None:
            state, step, rows, _ = found
            state = placed(state)
    state = _begin(sampler, target, keys, plan) if state is None else state

    def commit(state, step, fresh, last):
        if store is not None:
            store.save(state, step, fresh, last=last)

    def advance(state, start, stop):
        return _advance(sampler, target, keys, plan, state, jnp.asarray(start), jnp.asarray(stop))

    with Progress(progress, None, type(sampler).__name__) as bar:
        outcome = run_loop(advance, state, start=step, stop=None, progress=bar, commit=commit)
    if outcome.interrupted:
        kept = "" if checkpoint is None else f" {checkpoint.folder} holds its last checkpoint."
        raise KeyboardInterrupt(f"Interrupted in step {outcome.step}: the population has not reached its target.{kept}")
    rows = [*_first(sampler, target, keys, plan), *rows, *outcome.rows]
    stats = jax.tree.map(lambda *parts: np.swapaxes(np.concatenate(parts), 0, 1), *rows) if rows else {}
    return finished(sampler, target, _populations(sampler, outcome.state), stats, key, plan, throw)


def finished(sampler, target, populations, stats, key, plan, throw) -> Draws:
    """Draws from stacked populations (positions, log-weights, log evidence or None)."""
    positions, log_weights, log_evidence = on_host(populations)
    name = type(sampler).__name__
    if hasattr(target, "density"):
        values, log_density = on_values(target, positions)
        labels = {"labels": target.labels}
    else:
        from ._tree import by_name

        values, log_density, labels = by_name(positions), None, {}
    draws = Draws(
        values=values,
        stats=stats,
        log_weights=log_weights,
        log_density=log_density,
        log_evidence=log_evidence,
        no_evidence=sampler.no_evidence or f"{name} gives no unbiased estimate of the evidence.",
        **labels,
    ).recorded("sample", **record_of(sampler, key, plan), num_chains=len(log_weights))
    dead = ~np.isfinite(log_weights).any(axis=1) | np.isnan(log_weights).any(axis=1)
    if dead.any():
        draws = draws.replace(result_code="nonfinite")
        if throw:
            raise SamplingError(
                f"{name}: {dead.sum()} of {len(dead)} populations have no particle of positive weight (or a weight "
                "that is NaN). Use more particles, or look at the target with `target.check(key=key)`.",
                draws,
            )
    return draws


@eqx.filter_jit
def _begin(sampler, target, keys, plan):
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(keys, arrays):
        sampler, target = eqx.combine(arrays, static)
        state = strengthen(jax.vmap(lambda k: sampler.init(target, key=named(k, "init")))(keys))
        return _spread(sampler, state, plan)

    return _shard(plan, local, (0, None), 0)(keys, arrays)


def _size(sampler, state) -> int:
    """How many particles a population has."""
    return jax.eval_shape(jax.vmap(lambda one: sampler.population(one)[1]), state).shape[1]


def _spread(sampler, state, plan: Plan):
    """Stacked populations, their particles divided over the devices where the plan says so."""
    return plan.spread(state, _size(sampler, state), axis=1) if plan.divides_particles else state


def _shard(plan: Plan, function, in_axes, out_axes):
    """Whole populations divided over the devices; where particles are, the compiler divides the work."""
    return function if plan.divides_particles else plan.shard(function, in_axes, out_axes)


def _first(sampler, target, keys, plan) -> list[dict]:
    """What the first populations tell, as the records of one step; nothing where they do not.

    They are made once more rather than kept: a run that has been resumed has only the last ones.
    """
    if type(sampler).first_info is PopulationSampler.first_info:
        return []
    told = _first_info(sampler, _begin(sampler, target, keys, plan))
    return [{name: leaf[None] for name, leaf in on_host(told).items()}]


@eqx.filter_jit
def _first_info(sampler, state):
    return jax.vmap(lambda one: stats_of(sampler.first_info(one)))(state)


def _rows(sampler, target, state, keys) -> dict:
    new, info = jax.vmap(lambda s, k: sampler.step(target, s, key=k))(state, keys)
    require_same(state, new, f"{type(sampler).__name__}.step changed the state")
    return stats_of(info)


@eqx.filter_jit
def _advance(sampler, target, keys, plan, state, start, stop) -> Chunk:
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(state, keys, arrays, start, stop):
        sampler, target = eqx.combine(arrays, static)

        def one(step, old, key):
            new, info = sampler.step(target, old, key=jr.fold_in(key, step))
            new = strengthen(new)
            if not sampler.lockstep:
                done = sampler.done(old)  # a finished population waits, unchanged, for the others
                new = jax.tree.map(partial(jnp.where, done), old, new)
            return new, stats_of(info)

        def body(carry):
            step, state, room = carry
            state, row = _each(partial(one, step), state, keys)
            state = _spread(sampler, state, plan)
            return step + 1, state, jax.tree.map(lambda r, new: r.at[step - start].set(new), room, row)

        def go_on(carry):
            step, state, _ = carry
            return (step < stop) & ~jnp.all(jax.vmap(sampler.done)(state))

        room, most = records(jax.eval_shape(partial(_rows, sampler, target), state, keys))
        stop = jnp.minimum(stop, start + most)
        step, state, room = jax.lax.while_loop(go_on, body, (start, state, room))
        return state, room, step[None], jnp.all(jax.vmap(sampler.done)(state))[None]

    sharded = _shard(plan, local, (0, 0, None, None, None), (0, 1, 0, 0))
    state, rows, steps, done = sharded(state, keys, arrays, start, stop)
    return Chunk(state, rows, jnp.max(steps), jnp.all(done))


def _each(function, *trees) -> PyTree:
    """`function` of each population. Of one alone without `vmap`, which would turn updates in place into scatters."""
    if len(jax.tree.leaves(trees)[0]) > 1:
        return jax.vmap(function)(*trees)
    return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], trees)))


@eqx.filter_jit
def _populations(sampler, state) -> tuple[PyTree, ...]:
    return jax.vmap(sampler.population)(state)
