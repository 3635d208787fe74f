"""Is it a sampler at all? Methods, shapes, keys, and no memory outside its state."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._chains import stats_of
from .._errors import describe
from .._keys import named
from .._precision import precision
from .._sampler import PopulationSampler, Sampler
from .._tree import by_name, require_same, strengthen
from ._check import check
from ._problems import Regression
from ._run import Context
from ._verdict import Fault, Verdict, fault, fine, require, skip

_METHODS = {
    "sampler": {"init": 2, "step": 2, "position": 1},
    "population": {"init": 1, "step": 2, "done": 1, "population": 1},
}
_LAWS = {"exact", "approximate"}
_EXPECTED = "`{}` to work on a target of two parameters, one of them positive"


@check("sampler")
def interface(context: Context) -> Verdict:
    """Looks for the methods of a sampler, their arguments, and tags that say what they promise."""
    sampler, tags = context.component, context.subject.tags
    population = "population" in tags
    wanted = _METHODS["population" if population else "sampler"]
    base = PopulationSampler if population else Sampler
    lacking = [name for name in wanted if not callable(getattr(sampler, name, None))]
    has = [name for name in ("step", "position", "population") if callable(getattr(sampler, name, None))]
    require(
        not lacking,
        f"{type(sampler).__name__} has no method {', '.join(map(repr, lacking))}; it has {', '.join(has) or 'none'}",
        f"the methods {', '.join(wanted)}, as the tag 'population' is {'there' if population else 'not there'}",
        f"Derive it from posterax.{base.__name__} and write {', '.join(lacking)}.",
    )
    for name, number in wanted.items():
        _require_arguments(sampler, name, number, needs_key=name in ("init", "step"))
    require(
        isinstance(sampler, base),
        f"{type(sampler).__name__} is no {base.__name__}",
        f"a subclass of posterax.{base.__name__}",
        f"Write class {type(sampler).__name__}(posterax.{base.__name__}).",
    )
    require(
        len(_LAWS & tags) == 1,
        f"the tags {sorted(tags)}",
        "one of the tags 'exact' and 'approximate'",
        "An exact sampler leaves the target as it is once warmed up; an approximate one says by how much it may be "
        "off, as 'bias=0.1'.",
    )
    if not population:
        warmup = sampler.num_warmup
        require(
            isinstance(warmup, int) and not isinstance(warmup, bool) and warmup >= 0,
            f"num_warmup = {warmup!r}",
            "an integer, 0 or more",
        )
    require(bool(inspect.getdoc(type(sampler))), "no docstring", "a docstring that says what the method is")
    return fine("methods, arguments and tags are in order")


def _require_arguments(component: Any, name: str, number: int, *, needs_key: bool) -> None:
    parameters = inspect.signature(getattr(component, name)).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    require(
        starred or len(plain) == number,
        f"{name}{inspect.signature(getattr(component, name))}",
        f"{number} positional argument{'s' * (number > 1)}" + ", and `key` by keyword" * needs_key,
    )
    if needs_key:
        keyword = [p for p in parameters if p.name == "key" or p.kind is p.VAR_KEYWORD]
        require(
            bool(keyword) and keyword[0].kind is not keyword[0].POSITIONAL_ONLY,
            f"{name}{inspect.signature(getattr(component, name))}",
            "an argument `key`, given by keyword",
        )


def start(context: Context, key) -> tuple[Any, Any]:
    """A target, and a position to start from drawn from its prior."""
    parameter, observed = Regression().simulate(key=key)
    target = Regression().target(observed)
    return target, target.unconstrain(parameter)


@check("sampler")
def shapes(context: Context) -> Verdict:
    """Traces one step: a state that keeps its form, a position like the target's, statistics that are arrays."""
    sampler = context.component
    with precision(sampler.precision):
        target, position = start(context, context.key)
        given = (target, context.key) if "population" in context.subject.tags else (target, position, context.key)
        trace = _called if sampler.host else eqx.filter_eval_shape
        init = _said("init", lambda: trace(lambda *a: sampler.init(*a[:-1], key=a[-1]), *given))
        state = strengthen_or_say(init)
        _no_keys(state)
        answer = _said("step", lambda: trace(lambda s, key: sampler.step(target, s, key=key), state, context.key))
        new, info = _pair("step", answer)
        _no_keys(new)
        try:
            require_same(state, jax.eval_shape(strengthen, new), "`step`")
        except TypeError as error:
            raise Fault(fault(str(error), "a state of one structure, shape and dtype throughout")) from error
        if "population" in context.subject.tags:
            return _shapes_of_population(sampler, target, state, trace)
        end = _said("position", lambda: trace(sampler.position, new))
        like, found = by_name(target.position_like()), by_name(end)
        describe_all = lambda tree: {n: f"{jnp.result_type(x)}{list(x.shape)}" for n, x in tree.items()}  # noqa: E731
        require(
            describe_all(like) == describe_all(found), f"position gives {describe_all(found)}",
            f"{describe_all(like)}, as the target's position has",
        )  # fmt: skip
        known = _said("log_density", lambda: trace(sampler.log_density, new))
        require(
            known is None or known.shape == (),
            f"log_density has shape {getattr(known, 'shape', None)}",
            "one number, or None",
        )
    return _shapes_of_info(info)


def _shapes_of_info(info: Any) -> Verdict:
    try:
        stats = stats_of(info)
    except (AttributeError, TypeError):
        return fault(f"info is a {type(info).__name__}", "a NamedTuple, a Module, a dict of arrays, or None")
    odd = {name: type(value).__name__ for name, value in stats.items() if not hasattr(value, "dtype")}
    require(not odd, f"info has the fields {odd}", "arrays only", "Wrap them in jnp.asarray.")
    flag = stats.get("diverging")
    require(
        flag is None or flag.dtype == jnp.bool_,
        f"a statistic `diverging` of dtype {getattr(flag, 'dtype', '')}",
        "bool",
    )
    return fine(f"statistics: {', '.join(stats) or 'none'}")


def _shapes_of_population(sampler, target, state, trace) -> Verdict:
    answer = _said("population", lambda: trace(sampler.population, state))
    require(
        isinstance(answer, tuple) and len(answer) == 3,
        f"population gives {type(answer).__name__}",
        "three things: positions, log-weights, log evidence or None",
    )
    positions, log_weights, log_evidence = answer
    require(jnp.ndim(log_weights) == 1, f"log-weights of shape {jnp.shape(log_weights)}", "shape (n,)")
    n = jnp.shape(log_weights)[0]
    expected = {name: (n, *leaf.shape) for name, leaf in by_name(target.position_like()).items()}
    found = {name: tuple(jnp.shape(leaf)) for name, leaf in by_name(positions).items()}
    require(found == expected, f"positions of shapes {found}", f"{expected}: the target's, with leading axis {n}")
    require(
        log_evidence is None or log_evidence.shape == (),
        f"log evidence of shape {getattr(log_evidence, 'shape', None)}",
        "one number, or None",
    )
    done = _said("done", lambda: trace(sampler.done, state))
    require(
        jnp.shape(done) == () and jnp.result_type(done) == jnp.bool_,
        f"done gives {jnp.result_type(done)}{list(jnp.shape(done))}",
        "one boolean",
    )
    return fine(f"{n} particles")


def strengthen_or_say(state: Any) -> Any:
    """The state as the loop carries it; a fault where something in it is no array."""
    odd = [
        name
        for name, leaf in by_name(state).items()
        if not isinstance(leaf, (int, float, bool, complex)) and not hasattr(leaf, "dtype")
    ]
    require(
        not odd, f"the state holds what is no array: {odd}", "a PyTree of arrays", "Settings belong in the sampler."
    )
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
        return strengthen(state)
    return eqx.filter_eval_shape(strengthen, state)


def _called(function, *args):
    return function(*args)


def _no_keys(state: Any) -> None:
    keys = [
        name for name, leaf in by_name(state).items()
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]  # fmt: skip
    require(
        not keys, f"the state holds random keys: {keys}", "a state without keys",
        "Use the `key` that `step` is given; a stored one makes resumed and chunked runs differ.",
    )  # fmt: skip


def _said(method: str, call, expected: str = _EXPECTED) -> Any:
    """What a method returns; where it raises, a fault that says which one and why."""
    try:
        return call()
    except Fault:
        raise
    except Exception as error:
        from ._run import _place

        raise Fault(
            fault(
                f"`{method}` raised {describe(error)[:500]}{_place(error)}",
                expected.format(method),
            )
        ) from error


def _pair(method: str, answer: Any) -> tuple[Any, Any]:
    require(
        isinstance(answer, tuple) and len(answer) == 2, f"`{method}` returned {type(answer).__name__}",
        "two things, the next state and the info of the step",
    )  # fmt: skip
    return answer


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
    draw = lambda key: target.unconstrain(Regression().simulate(key=key)[0])  # noqa: E731
    return target, jax.vmap(draw)(jr.split(named(context.key, "starts"), num))


@check("sampler", unless={"host", "population"})
def pure(context: Context) -> Verdict:
    """Traces `step` twice, with other calls in between: nothing may be remembered outside the state."""
    sampler = context.component
    with precision(sampler.precision):
        target, position = start(context, context.key)
        state = strengthen(sampler.init(target, position, key=context.key))
        arrays, static = eqx.partition((target, state), eqx.is_array)

        def traced():
            fresh = lambda arrays, key: sampler.step(*eqx.combine(arrays, static), key=key)  # noqa: E731
            return jax.make_jaxpr(fresh)(arrays, context.key)

        first = traced()
        eqx.filter_eval_shape(sampler.step, target, strengthen(state), key=named(context.key, "between"))
        second = traced()
    same = str(first) == str(second) and all(
        np.array_equal(a, b) for a, b in zip(first.consts, second.consts, strict=True)
    )
    require(
        same, "two traces of `step` on the same arguments give two different programs",
        "a step that depends on target, state and key alone",
        "Look for a counter, a cache or random numbers kept in a global, a class attribute or a closure.",
    )  # fmt: skip
    effects = sorted(str(effect) for effect in first.effects)
    require(
        not effects, f"`step` calls back into Python ({', '.join(effects)})", "a step that is all JAX",
        "Set `host = True` and the tag 'host' where it must talk to the outside world.",
    )  # fmt: skip
    return fine("two traces agree")


@check("sampler", unless={"host", "population"}, level="standard")
def keys(context: Context) -> Verdict:
    """Steps from the same points with the same key, with other keys, and next to other chains."""
    sampler = frozen(context)
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


def frozen(context: Context) -> Any:
    """The sampler as it is once warmed up, the same for all checks of a run."""
    from ._exact_start import frozen_on

    sampler = context.component
    return context.shared("frozen", lambda key: frozen_on(sampler, Regression(), key=key))


@check("sampler", unless={"host", "population"}, level="standard")
def untraced(context: Context) -> Verdict:
    """Takes steps one by one without `jit` or `vmap`: the same as compiled and side by side."""
    sampler = frozen(context)
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
    sampler = frozen(context)
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
