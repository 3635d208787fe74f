"""Double precision where a calculation needs it, in a program that otherwise stays in single precision.

Nothing else in posterax switches JAX's precision.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_jaxpr
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import batching, mlir

_CACHE_SIZE = 1024


def precision(bits: int | None) -> AbstractContextManager:
    """A context in which JAX computes with 64 or 32 bits by default; None leaves it as it is.

    Only for whole runs: nothing may be differentiated across its border (JAX would silently take the backward
    pass in the precision outside). Within a calculation use `in_float64`. It holds for the current thread
    only.

    Raises `ValueError` for another number of bits.
    """
    if bits is None:
        return contextlib.nullcontext()
    if bits not in {32, 64}:
        raise ValueError(f"`bits` must be 32, 64 or None; got {bits!r}.")
    return jax.enable_x64(bits == 64)


def in_float64(f: Callable) -> Callable:
    """`f`, computed in float64 whatever precision JAX is set to, and its gradient too.

    - `f`: a pure function of PyTrees, or an Equinox module. Floating JAX arrays in its arguments, and in `f`
      itself, are cast to float64 (complex ones to complex128). Integers, booleans, typed keys and all that is
      no array arrive as they are. NumPy arrays and Python numbers are constants: they keep all their digits,
      and outside `jit` a new value compiles anew.

    The result has the dtypes that the caller works in: 64-bit arrays are cast to 32 bits unless the caller
    has 64 bits switched on. So it can be called anywhere in a float32 program: under `jit`, `vmap`, `scan`,
    `cond` and reverse-mode differentiation (`grad`, `value_and_grad`, `vjp`, `jacrev`, and these nested),
    which casts the cotangent up, takes the derivative in float64 and casts the gradient down. The backward
    pass runs `f` once more, since nothing in float64 is kept between the passes.

    Limits. Forward mode (`jvp`, `jacfwd`, `jax.hessian`) is refused with a `TypeError`, unless the caller has
    64 bits switched on. Collectives over an axis that is mapped outside do not work, nor gradients within a
    `shard_map` that checks varying axes (`check_vma=True`). Random numbers drawn inside are those of float64:
    same key, other draws than in float32.
    """
    cache: dict = {}

    def wrapped(*args, **kwargs):
        leaves, treedef = jax.tree.flatten((f, args, kwargs))
        if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:  # the caller has 64 bits switched on
            fun, args, kwargs = jax.tree.unflatten(treedef, map(_up, leaves))
            return fun(*args, **kwargs)
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        key = _cache_key(leaves, treedef)
        entry = cache.get(key)
        if entry is None:
            entry = _trace(leaves, treedef)
            if key is not None and not entry[1]:
                if len(cache) >= _CACHE_SIZE:
                    cache.pop(next(iter(cache)))
                cache[key] = entry
        program, closed_over, rebuild = entry
        return rebuild(_call(program, *closed_over, *arrays))

    return functools.update_wrapper(wrapped, f) if hasattr(f, "__name__") else wrapped


# How it works. `f` is traced in 64 bits into a program whose inputs and outputs have the caller's dtypes, and
# that is bound as one primitive. Switching the context on inside a float32 trace, without a primitive, is not
# enough: what JAX does with the traced operations later (lowering, batching of a jitted function) happens in
# 32 bits again, and then `betainc` fails, 64-bit random numbers and `i0e` are truncated, and backward passes
# are float32 (measured on jax 0.10.2 and 0.12).


@dataclasses.dataclass(frozen=True, eq=False)
class _Program:
    """A function traced in 64 bits. It wraps the jaxpr because JAX treats primitives with a jaxpr among their
    parameters in ways of its own (0.12: "has is_high=True but no to_lojax lowering rule").
    """

    jaxpr: ClosedJaxpr

    @classmethod
    def of(cls, fun: Callable, avals) -> "_Program":
        with jax.enable_x64(True):
            return cls(jax.make_jaxpr(fun)(*(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)))

    def __call__(self, *inputs):
        return jaxpr_as_fun(self.jaxpr)(*inputs)

    @property
    def in_avals(self) -> list:
        return self.jaxpr.in_avals

    @property
    def out_avals(self) -> list:
        return self.jaxpr.out_avals


def _trace(leaves: list, treedef) -> tuple[_Program, list, Callable]:
    """The function's program; the tracers it closes over (its first inputs); how to rebuild its output."""
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    output: dict[str, Any] = {}

    def flat(*arrays):
        arrays_left = iter(arrays)
        # NumPy arrays are copied: one that JAX 0.10 has met as a constant in 64 bits can be no argument in 32 any more
        # ("expected parameter of size ... but got buffer with incompatible size").
        others = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        full = [next(arrays_left) if yes else leaf for leaf, yes in zip(others, is_array, strict=True)]
        fun, args, kwargs = jax.tree.unflatten(treedef, map(_up, full))
        out_leaves, output["treedef"] = jax.tree.flatten(fun(*args, **kwargs))
        output["constants"] = [None if _is_data(leaf) else leaf for leaf in out_leaves]
        output["is_data"] = [_is_data(leaf) for leaf in out_leaves]
        return [_down(leaf) for leaf in out_leaves if _is_data(leaf)]

    program = _Program.of(flat, arrays)
    consts = program.jaxpr.consts
    closed_over = [const for const in consts if isinstance(const, Tracer)]
    if closed_over:  # they become inputs: kept inside, they would be lost to differentiation and leak through the cache
        inner: Any = getattr(program.jaxpr, "jaxpr", program.jaxpr)  # 0.12 has one class for both

        def with_closed_over(*inputs):
            tracers, rest = iter(inputs[: len(closed_over)]), inputs[len(closed_over) :]
            full = [next(tracers) if isinstance(const, Tracer) else const for const in consts]
            return eval_jaxpr(inner, full, *rest)

        program = _Program.of(with_closed_over, closed_over + arrays)

    def rebuild(data):
        data = iter(data)
        pairs = zip(output["is_data"], output["constants"], strict=True)
        return jax.tree.unflatten(output["treedef"], [next(data) if yes else const for yes, const in pairs])

    return program, closed_over, rebuild


def _is_data(leaf) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _is_inexact(leaf) -> bool:
    return _is_data(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _up(leaf):
    if not _is_inexact(leaf):
        return leaf
    wide = np.complex128 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else np.float64
    return leaf.astype(wide) if leaf.dtype != wide else leaf


_NARROW = {np.dtype(f"{kind}8"): np.dtype(f"{kind}4") for kind in "fiu"} | {np.dtype("c16"): np.dtype("c8")}


def _down(leaf):
    leaf = jnp.asarray(leaf)
    return leaf.astype(_NARROW[leaf.dtype]) if leaf.dtype in _NARROW else leaf


# What a trace depends on besides its arguments.
_SETTINGS = "jax_default_matmul_precision", "jax_numpy_dtype_promotion"


def _cache_key(leaves: list, treedef):
    """Hashable, equal only where the trace is the same; None where that cannot be known."""

    def one(leaf):
        if isinstance(leaf, jax.Array):
            return jax.Array, leaf.shape, leaf.dtype
        if isinstance(leaf, (np.ndarray, np.generic)):
            return np.ndarray, leaf.shape, leaf.dtype, leaf.tobytes()
        return type(leaf), repr(leaf) if isinstance(leaf, (float, complex)) else leaf  # 0.0 == -0.0

    settings = tuple(getattr(jax.config, name) for name in _SETTINGS)
    key = treedef, tuple(map(one, leaves)), settings, jax.sharding.get_abstract_mesh()  # of a `shard_map` around it
    try:
        hash(key)
    except TypeError:
        return None
    return key


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _call(program: _Program, *inputs):
    return _in_float64_p.bind(*inputs, program=program)


def _forward(program, *inputs):
    return _call(program, *inputs), inputs


def _backward(program, inputs, cotangents):
    cotangents = _inexact(cotangents, program.out_avals)
    gradients = iter(_call(_pullback(program), *inputs, *cotangents))  # itself differentiable, again in float64
    return tuple(next(gradients) if _has_gradient(aval) else None for aval in program.in_avals)


_call.defvjp(_forward, _backward)


@functools.lru_cache(maxsize=_CACHE_SIZE)
def _pullback(program: _Program) -> _Program:
    """The program `inputs, cotangents of the inexact outputs -> gradients of the inexact inputs`."""
    in_avals, out_avals = program.in_avals, program.out_avals

    def fun(*arguments):
        inputs, cotangents = arguments[: len(in_avals)], arguments[len(in_avals) :]

        def of_inexact(*floats):
            left = iter(floats)
            full = [next(left) if _has_gradient(aval) else x for x, aval in zip(inputs, in_avals, strict=True)]
            return _inexact(program(*full), out_avals)

        _, pull = jax.vjp(of_inexact, *_inexact(inputs, in_avals))
        return pull(list(cotangents))

    return _Program.of(fun, [*in_avals, *_inexact(out_avals, out_avals)])


def _has_gradient(aval) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _inexact(values, avals) -> list:
    return [value for value, aval in zip(values, avals, strict=True) if _has_gradient(aval)]


_in_float64_p = Primitive("in_float64")
_in_float64_p.multiple_results = True


@_in_float64_p.def_effectful_abstract_eval
def _abstract(*_, program):
    return program.out_avals, program.jaxpr.effects


@_in_float64_p.def_impl
def _run(*inputs, program):
    with jax.enable_x64(True):
        return _compiled(program)(*inputs)


@functools.lru_cache(maxsize=_CACHE_SIZE)
def _compiled(program: _Program) -> Callable:
    return jax.jit(program.__call__)


def _lower(ctx, *inputs, program):
    with jax.enable_x64(True):
        return mlir.lower_fun(program, multiple_results=True)(ctx, *inputs)


def _batch(inputs, dims, *, program):
    size = next(x.shape[dim] for x, dim in zip(inputs, dims, strict=True) if dim is not None)
    batched = _batched(program, tuple(dims), size)
    return _in_float64_p.bind(*inputs, program=batched), [0] * len(program.out_avals)


@functools.lru_cache(maxsize=_CACHE_SIZE)
def _batched(program: _Program, dims: tuple, size: int) -> _Program:
    def widened(aval, dim):
        shape = aval.shape if dim is None else (*aval.shape[:dim], size, *aval.shape[dim:])
        return jax.ShapeDtypeStruct(shape, aval.dtype)

    avals = [widened(aval, dim) for aval, dim in zip(program.in_avals, dims, strict=True)]
    return _Program.of(jax.vmap(program, in_axes=dims, axis_size=size), avals)


mlir.register_lowering(_in_float64_p, _lower)
batching.primitive_batchers[_in_float64_p] = _batch
