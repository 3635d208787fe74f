"""One step at a time: does it depend on state and key alone, and is what the state says true?"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._chains import stats_of
from .._keys import named
from .._precision import precision
from .._tree import strengthen
from ._check import check
from ._form import traced_twice
from ._invariance import frozen_on
from ._joint import JointModel
from ._run import Context
from ._sampler_form import start
from ._verdict import Verdict, fine, require, skip


@eqx.filter_jit
def step_from(sampler, target, positions, keys):
    """One step from each of several positions, stacked; the sampler is initialised there first."""

    def one(position, key):
        state = strengthen(sampler.init(target, position, key=named(key, "init")))
        return sampler.position(sampler.step(target, state, key=key)[0])

    return jax.vmap(one)(positions, keys)


def several_starts(context: Context, num: int):
    """A target and positions drawn from its prior, stacked."""
    target, _ = start(context, context.key)
    draw = lambda key: target.unconstrain(context.joint.simulate(key=key)[0])  # noqa: E731
    return target, jax.vmap(draw)(jr.split(named(context.key, "starts"), num))


@check("sampler", unless={"host", "population"})
def pure(context: Context) -> Verdict:
    """Traces `step` twice, with other calls in between: nothing may be remembered outside the state."""
    sampler = context.component
    with precision(sampler.precision):
        target, position = start(context, context.key)
        state = strengthen(sampler.init(target, position, key=context.key))
        between = lambda: eqx.filter_eval_shape(sampler.step, target, state, key=named(context.key, "between"))  # noqa: E731
        program, same = traced_twice(sampler.step, (target, state), context.key, between)
    require(
        same, "two traces of `step` on the same arguments give two different programs",
        "a step that depends on target, state and key alone",
        "Look for a counter, a cache or random numbers kept in a global, a class attribute or a closure.",
    )  # fmt: skip
    effects = sorted(str(effect) for effect in program.effects)
    require(
        not effects, f"`step` calls back into Python ({', '.join(effects)})", "a step that is all JAX",
        "Set `host = True` and the tag 'host' where it must talk to the outside world.",
    )  # fmt: skip
    return fine("two traces agree")


@check("sampler", unless={"host", "population"}, level="standard")
def keys(context: Context) -> Verdict:
    """Steps from the same points with the same key, with other keys, and next to other chains."""
    sampler = frozen(context, context.joint)
    with precision(sampler.precision):
        target, positions = several_starts(context, 64)
        batch = jr.split(named(context.key, "steps"), 64)
        first = flat(step_from(sampler, target, positions, batch))
        again = flat(step_from(sampler, target, positions, batch))
        require(np.array_equal(first, again), "the same key gave two different steps", "the same bits")
        other = flat(step_from(sampler, target, positions, jr.split(named(context.key, "others"), 64)))
        require(
            not np.array_equal(first, other), "other keys gave the same steps from all of 64 points",
            "steps that depend on the key", "Use the `key` that `step` is given.",
        )  # fmt: skip
        one = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], leaf.shape), positions)
        spread = flat(step_from(sampler, target, one, batch))
        distinct = len(np.unique(spread.round(7), axis=0))
        require(distinct > 1, "64 keys led from one point to the same point", "steps that depend on the key")
        turned = jax.tree.map(lambda leaf: leaf[::-1], positions)
        back = flat(step_from(sampler, target, turned, batch[::-1]))[::-1]
        require(
            _close(first, back), "a chain's step changed with its place among the other chains",
            "chains that know nothing of each other",
        )  # fmt: skip
    return fine(f"{distinct} ends from one point under 64 keys")


def flat(positions: Any) -> np.ndarray:
    """Stacked positions as rows of one matrix."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(positions)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-3) -> bool:
    # One in thirty-two may differ: rounding can turn an acceptance that hangs by a thread.
    off = ~np.all(np.isclose(a, b, rtol=tolerance, atol=tolerance), axis=1)
    return off.sum() <= max(1, len(a) // 32)


def frozen(context: Context, joint: JointModel) -> Any:
    """The sampler as it is once warmed up on a problem, the same for all checks of a run."""
    name = f"frozen on {type(joint).__name__}"
    return context.shared(name, lambda key: frozen_on(context.component, joint, key=key))


@check("sampler", unless={"host", "population"}, level="standard")
def untraced(context: Context) -> Verdict:
    """Takes steps one by one without `jit` or `vmap`: the same as compiled and side by side."""
    sampler = frozen(context, context.joint)
    with precision(sampler.precision):
        target, positions = several_starts(context, 4)
        batch = jr.split(named(context.key, "steps"), 4)
        together = flat(step_from(sampler, target, positions, batch))
        alone = []
        for i in range(4):
            here = jax.tree.map(lambda leaf, i=i: leaf[i], positions)
            state = strengthen(sampler.init(target, here, key=named(batch[i], "init")))
            end = sampler.position(sampler.step(target, state, key=batch[i])[0])
            alone.append(flat(jax.tree.map(lambda leaf: leaf[None], end))[0])
    off = np.abs(np.array(alone) - together).max(axis=1)
    require(
        _close(np.array(alone), together),
        f"alone and compiled, steps differ by up to {off.max():.2g}",
        "agreement to 1e-3",
        "Look for Python branches on values, or for randomness that depends on the batch.",
    )
    return fine(f"largest difference {off.max():.1g}")


@check("sampler", unless={"host", "population"}, level="standard")
def log_density(context: Context) -> Verdict:
    """Compares `log_density(state)`, and a statistic `lp`, with the target's at the position."""
    sampler = frozen(context, context.joint)
    with precision(sampler.precision):
        target, positions = several_starts(context, 32)
        claimed, lp, exact = jax.tree.map(
            np.asarray, _densities(sampler, target, positions, jr.split(named(context.key, "steps"), 32))
        )
    found = {
        name: value
        for name, value in (("log_density(state)", claimed), ("the statistic `lp`", lp))
        if value is not None
    }
    if not found:
        return skip("the sampler does not say what the log density is")
    for name, value in found.items():
        off = np.abs(value - exact)
        off = off - np.median(value - exact) if name.startswith("the") else off  # `lp` may lack a constant
        worst = float(np.max(off / (1 + np.abs(exact))))
        require(
            worst < 1e-3, f"{name} is off by {np.max(off):.3g} from the target's log density at the position",
            "agreement to 1e-3", "Store it with the point that was accepted, not with the one proposed.",
        )  # fmt: skip
    return fine(f"{' and '.join(found)} agree with the target")


@eqx.filter_jit
def _densities(sampler, target, positions, keys):
    def one(position, key):
        state = strengthen(sampler.init(target, position, key=named(key, "init")))

        def body(i, carry):
            state, info = sampler.step(target, carry[0], key=jr.fold_in(key, i))
            return strengthen(state), strengthen(stats_of(info))

        first, info = sampler.step(target, state, key=key)
        state, stats = jax.lax.fori_loop(0, 5, body, (strengthen(first), strengthen(stats_of(info))))
        return sampler.log_density(state), stats.get("lp"), target.log_density(sampler.position(state))

    return jax.vmap(one)(positions, keys)


@check("sampler", unless={"host", "population", "auxiliary"}, level="standard")
def homogeneous(context: Context) -> Verdict:
    """Compares, after warm-up, each step with that of a frozen copy started afresh at the same point."""
    sampler = context.component
    with precision(sampler.precision):
        target, positions = several_starts(context, 16)
        one = jax.tree.map(lambda leaf: leaf[0], positions)
        state = _warmed(sampler, target, one, context.key)
        fixed = sampler if sampler.num_warmup == 0 else sampler.frozen(jax.tree.map(lambda leaf: leaf[None], state))
        require(
            fixed.num_warmup == 0, f"`frozen` gives a sampler with num_warmup = {fixed.num_warmup}", "0",
            "Set num_warmup to 0 in the copy, and keep what was learned in its settings.",
        )  # fmt: skip
        differ, moved = [], 0
        for i in range(40):
            key = jr.fold_in(named(context.key, "after"), i)
            state_next = _one_step(sampler, target, state, key)
            fresh = _fresh_step(fixed, target, sampler.position(state), key)
            a, b = (flat(jax.tree.map(lambda leaf: leaf[None], p)) for p in (sampler.position(state_next), fresh))
            if not np.allclose(a, b, rtol=1e-3, atol=1e-3):
                differ.append(i)
            moved += not np.array_equal(a, flat(jax.tree.map(lambda leaf: leaf[None], sampler.position(state))))
            state = state_next
    require(
        len(differ) <= 2,
        f"{len(differ)} of 40 steps after warm-up differ from those of a frozen sampler at the same point",
        "none: after warm-up the next position depends on the position and the key alone",
        "Stop adapting after `num_warmup` steps, let `frozen` keep exactly what was learned, or, where the state holds "
        "momentum or the like by design, say so by the tag 'auxiliary'.",
    )
    return fine(f"40 steps agree with a frozen sampler's, {moved} of them moved")


@eqx.filter_jit
def _warmed(sampler, target, position, key):
    state = strengthen(sampler.init(target, position, key=named(key, "init")))
    body = lambda i, s: strengthen(sampler.step(target, s, key=jr.fold_in(key, i))[0])  # noqa: E731
    return jax.lax.fori_loop(0, jnp.asarray(max(sampler.num_warmup, 50)), body, state)


@eqx.filter_jit
def _one_step(sampler, target, state, key):
    return strengthen(sampler.step(target, state, key=key)[0])


@eqx.filter_jit
def _fresh_step(sampler, target, position, key):
    state = strengthen(sampler.init(target, position, key=named(key, "fresh")))
    return sampler.position(sampler.step(target, state, key=key)[0])
