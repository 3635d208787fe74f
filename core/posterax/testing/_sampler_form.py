"""Is it a sampler at all? Methods, shapes, keys, and no memory outside its state."""

import inspect
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._chains import stats_of
from .._precision import precision
from .._sampler import PopulationSampler, Sampler
from .._tree import by_name
from ._check import check
from ._form import (
    LAWS,
    called,
    carried,
    pair,
    require_arguments,
    require_instance,
    require_no_keys,
    require_same_form,
    said,
)
from ._run import Context
from ._verdict import Verdict, fault, fine, require

_METHODS = {
    "sampler": {"init": 2, "step": 2, "position": 1},
    "population": {"init": 1, "step": 2, "done": 1, "population": 1},
}


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
        require_arguments(sampler, name, number, needs_key=name in ("init", "step"))
    require_instance(sampler, base, f"Write class {type(sampler).__name__}(posterax.{base.__name__}).")
    require(
        len(LAWS & tags) == 1,
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


def start(context: Context, key) -> tuple[Any, Any]:
    """A target, and a position to start from drawn from its prior."""
    parameter, observed = context.joint.simulate(key=key)
    target = context.joint.target(observed)
    return target, target.unconstrain(parameter) if hasattr(target, "unconstrain") else None


@check("sampler")
def shapes(context: Context) -> Verdict:
    """Traces one step: a state that keeps its form, a position like the target's, statistics that are arrays."""
    sampler = context.component
    with precision(sampler.precision):
        target, position = start(context, context.key)
        given = (target, context.key) if "population" in context.subject.tags else (target, position, context.key)
        trace = called if sampler.host else eqx.filter_eval_shape
        init = said("init", lambda: trace(lambda *a: sampler.init(*a[:-1], key=a[-1]), *given))
        state = carried(init)
        require_no_keys(state)
        answer = said("step", lambda: trace(lambda s, key: sampler.step(target, s, key=key), state, context.key))
        new, info = pair("step", answer)
        require_no_keys(new)
        require_same_form(state, new, "`step`")
        if "population" in context.subject.tags:
            return _shapes_of_population(sampler, target, state, trace)
        end = said("position", lambda: trace(sampler.position, new))
        like, found = by_name(target.position_like()), by_name(end)
        describe_all = lambda tree: {n: f"{jnp.result_type(x)}{list(x.shape)}" for n, x in tree.items()}  # noqa: E731
        require(
            describe_all(like) == describe_all(found), f"position gives {describe_all(found)}",
            f"{describe_all(like)}, as the target's position has",
        )  # fmt: skip
        known = said("log_density", lambda: trace(sampler.log_density, new))
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
    answer = said("population", lambda: trace(sampler.population, state))
    require(
        isinstance(answer, tuple) and len(answer) == 3,
        f"population gives {type(answer).__name__}",
        "three things: positions, log-weights, log evidence or None",
    )
    positions, log_weights, log_evidence = answer
    require(jnp.ndim(log_weights) == 1, f"log-weights of shape {jnp.shape(log_weights)}", "shape (n,)")
    n = jnp.shape(log_weights)[0]
    found = {name: tuple(jnp.shape(leaf)) for name, leaf in by_name(positions).items()}
    expected = {name: (n, *shape[1:]) for name, shape in found.items()}
    if hasattr(target, "position_like"):
        expected = {name: (n, *leaf.shape) for name, leaf in by_name(target.position_like()).items()}
    require(found == expected, f"positions of shapes {found}", f"{expected}: the target's, with leading axis {n}")
    require(
        log_evidence is None or log_evidence.shape == (),
        f"log evidence of shape {getattr(log_evidence, 'shape', None)}",
        "one number, or None",
    )
    done = said("done", lambda: trace(sampler.done, state))
    require(
        jnp.shape(done) == () and jnp.result_type(done) == jnp.bool_,
        f"done gives {jnp.result_type(done)}{list(jnp.shape(done))}",
        "one boolean",
    )
    return fine(f"{n} particles")
