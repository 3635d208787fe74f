"""Where chains start: at the caller's values, or at random positions tried until the log density is finite."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._check import describe, problems
from ._errors import TargetError
from ._hosts import on_host
from ._keys import named
from ._plan import Plan
from ._tree import strengthen

_TRIES = 100


def starts(
    sampler,
    target,
    chain_keys: Array,
    *,
    num_chains: int,
    init: Mapping[str, Any] | None,
    key: PRNGKeyArray,
    plan: Plan,
    shape_only: bool = False,
) -> PyTree:
    """The first states of all chains, stacked; with `shape_only`, only their shapes.

    Raises `TargetError` where the log density or its gradient is not finite at a start.
    """
    positions = None if init is None else chosen_positions(target, init, num_chains)
    if shape_only:
        return eqx.filter_eval_shape(_begin, sampler, target, chain_keys, positions, plan)[0]
    states, position, value, finite = _begin(sampler, target, chain_keys, positions, plan)
    if not np.all(finite := on_host(finite)):
        raise TargetError(_no_start(target, on_host(position), on_host(value), finite, init is None, key))
    return states


def first_position(target, given: PyTree | None, *, key: PRNGKeyArray) -> PyTree:
    """One position, `given` or searched for, where the density is finite: `starts` for a sampler not to be traced."""
    search = eqx.filter_jit(lambda target, key: _search(target, key))
    if given is None:
        given, value, finite = search(target, key)
    else:
        value, finite = eqx.filter_jit(_evaluate)(target, given)
    if not finite:
        one = jax.tree.map(lambda leaf: leaf[None], given)
        raise TargetError(_no_start(target, one, np.asarray(value)[None], np.array([False]), True, key))
    return given


def chosen_positions(target, init: Mapping[str, Any], num_chains: int) -> PyTree:
    """Positions with leading axis `num_chains` at the values that the caller chose."""
    latent = target.structure.latent
    if missing := sorted(set(latent) - set(init)):
        raise ValueError(f"`init` lacks {missing}; got {sorted(init)}. Give a value for each of {sorted(latent)}.")
    dtype = jnp.result_type(float)
    stacked = {}
    for name, shape in latent.items():
        value = np.asarray(init[name])
        if value.dtype.kind not in "biuf":
            raise TypeError(f"`init[{name!r}]` must hold real numbers; got dtype {value.dtype}.")
        if value.shape == shape:
            value = np.broadcast_to(value, (num_chains, *shape))
        if value.shape != (num_chains, *shape):
            raise ValueError(
                f"`init[{name!r}]` must have shape {shape}, or {(num_chains, *shape)} with an entry for each of "
                f"{num_chains} chains; got {value.shape}."
            )
        stacked[name] = jnp.asarray(value, dtype=dtype)
    return jax.vmap(target.unconstrain)(stacked)


@eqx.filter_jit
def _begin(sampler, target, chain_keys, positions, plan):
    arrays, static = eqx.partition((sampler, target), eqx.is_array)

    def local(chain_keys, positions, arrays):
        sampler, target = eqx.combine(arrays, static)

        def one(key, position):
            if position is None:
                position, value, finite = _search(target, named(key, "start"))
            else:
                value, finite = _evaluate(target, position)
            state = sampler.init(target, position, key=named(key, "init"))
            return strengthen(state), position, value, finite

        return jax.vmap(one)(chain_keys, positions)

    return plan.shard(local, (0, 0, None), 0)(chain_keys, positions, arrays)


def _evaluate(target, position):
    value, gradient = jax.value_and_grad(target.log_density)(position)
    finite = jnp.isfinite(value)
    for leaf in jax.tree.leaves(gradient):
        finite &= jnp.all(jnp.isfinite(leaf))
    return value, finite


def _search(target, key):
    def propose(i):
        position = target.initial(key=jr.fold_in(key, i))
        return (i + 1, position, *_evaluate(target, position))

    def again(carry):
        i, _, _, finite = carry
        return ~finite & (i < _TRIES)

    first = jax.tree.map(jnp.zeros_like, jax.eval_shape(propose, 0))
    _, position, value, finite = jax.lax.while_loop(again, lambda carry: propose(carry[0]), first)
    return position, value, finite


def _no_start(target, position, value, finite, searched: bool, key) -> str:
    chain = int(np.flatnonzero(~finite)[0])
    at = describe(jax.tree.map(np.asarray, jax.vmap(target.constrain)(position)), chain)
    kind = "log density" if not np.isfinite(value[chain]) else "gradient of the log density"
    what = f"it is {value[chain]}" if kind == "log density" else f"the density there is {value[chain]:.4g}"
    if not searched:
        return (
            f"`init` starts chain {chain} at {at}, where the {kind} is not finite ({what}). Choose a point inside the "
            "support, or leave `init` out to have one found."
        )
    found = problems(target, named(key, "check"))
    return (
        f"No start found for chain {chain}: the {kind} was not finite at {_TRIES} random positions, the last one {at} "
        f"({what}). Pass `init=`, values of positive density, or mend the target."
        + "".join(f"\n- {problem}" for problem in found)
    )
