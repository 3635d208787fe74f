"""What the checks of form share: arguments of methods, states without keys, and errors in words."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import describe
from .._tree import by_name, require_same, strengthen
from ._verdict import Fault, fault, require

LAWS = {"exact", "approximate"}
_EXPECTED = "`{}` to work on a target of two parameters, one of them positive"


def require_instance(component: Any, base: type, cure: str = "") -> None:
    name = type(component).__name__
    require(
        isinstance(component, base), f"{name} is no {base.__name__}", f"a subclass of posterax.{base.__name__}", cure
    )


def require_arguments(component: Any, name: str, number: int, *, needs_key: bool) -> None:
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


def carried(state: Any) -> Any:
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


def require_same_form(before: Any, after: Any, what: str) -> None:
    """A fault where the next state has not the form of the one before; `what` says who made it."""
    try:
        require_same(before, jax.eval_shape(strengthen, after), what)
    except TypeError as error:
        raise Fault(fault(str(error), "a state of one structure, shape and dtype throughout")) from error


def traced_twice(function: Callable, arguments: Any, key: Any, between: Callable[[], Any]) -> tuple[Any, bool]:
    """The program of `function(*arguments, key=key)`, and whether it is the same after a call of `between`."""
    arrays, static = eqx.partition(arguments, eqx.is_array)

    def traced():
        fresh = lambda arrays, key: function(*eqx.combine(arrays, static), key=key)  # noqa: E731
        return jax.make_jaxpr(fresh)(arrays, key)

    first = traced()
    between()
    second = traced()
    constants = zip(first.consts, second.consts, strict=True)
    return first, str(first) == str(second) and all(np.array_equal(a, b) for a, b in constants)


def called(function, *args):
    return function(*args)


def require_no_keys(state: Any) -> None:
    keys = [
        name for name, leaf in by_name(state).items()
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]  # fmt: skip
    require(
        not keys, f"the state holds random keys: {keys}", "a state without keys",
        "Use the `key` that `step` is given; a stored one makes resumed and chunked runs differ.",
    )  # fmt: skip


def said(method: str, call, expected: str = _EXPECTED) -> Any:
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


def pair(method: str, answer: Any) -> tuple[Any, Any]:
    require(
        isinstance(answer, tuple) and len(answer) == 2, f"`{method}` returned {type(answer).__name__}",
        "two things, the next state and the info of the step",
    )  # fmt: skip
    return answer
