"""Is it an objective at all? Methods, shapes, randomness by key alone, and a loss that does not hide NaN."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._keys import named
from .._objective import Objective
from .._precision import precision
from .._tree import by_name
from ._case import ObjectiveCase
from ._check import check
from ._form import (
    carried,
    pair,
    require_arguments,
    require_instance,
    require_no_keys,
    require_same_form,
    said,
    traced_twice,
)
from ._run import Context
from ._verdict import Verdict, fine, require, skip

_MODELS = {"density-model", "regression-model"}
_ROWS = 64
_EXPECTED = "`{}` to work on the model and batch that the tags name"


class DiagonalNormal(eqx.Module):
    """A normal density in two dimensions, for objectives that learn densities."""

    loc: Array
    log_scale: Array

    def log_prob(self, x):
        """Log density of one row."""
        z = (x - self.loc) * jnp.exp(-self.log_scale)
        return jnp.sum(-0.5 * z**2 - self.log_scale - 0.5 * jnp.log(2 * jnp.pi))


class Line(eqx.Module):
    """A linear function of two inputs, for objectives that learn functions."""

    weight: Array
    bias: Array

    def __call__(self, x):
        """The value at one row of inputs."""
        return self.weight @ x + self.bias


def _rows(key):
    return jnp.array([0.5, -1.0]) + jnp.array([1.5, 0.7]) * jr.normal(key, (_ROWS, 2))


def _pairs(key):
    key_x, key_y = jr.split(key)
    x = jr.normal(key_x, (_ROWS, 2))
    return x, x @ jnp.array([0.8, -0.5]) + 0.3 + 0.5 * jr.normal(key_y, (_ROWS,))


def case_of(context: Context) -> ObjectiveCase:
    """The objective's model and data: its author's, or the kit's for the kind of model that its tags name."""
    if context.subject.case is not None:
        return context.subject.case
    if "density-model" in context.subject.tags:
        model = DiagonalNormal(jnp.array([0.5, -1.0]), jnp.log(jnp.array([1.5, 0.7])))
        return ObjectiveCase(context.component, model, _rows)
    return ObjectiveCase(context.component, Line(jnp.array([0.8, -0.5]), jnp.array(0.3)), _pairs)


@check("objective")
def interface(context: Context) -> Verdict:
    """Looks for `loss`, its arguments, and tags that say which model it is for."""
    objective, tags = context.component, context.subject.tags
    require(
        callable(getattr(objective, "loss", None)),
        f"{type(objective).__name__} has no method 'loss'",
        "the method loss",
        "Derive it from posterax.Objective and write loss.",
    )
    require_instance(objective, Objective)
    require_arguments(objective, "loss", 3, needs_key=True)
    require_arguments(objective, "init", 1, needs_key=True)
    require(
        context.subject.case is not None or len(_MODELS & tags) == 1, f"the tags {sorted(tags)}",
        "one of the tags 'density-model' and 'regression-model', or an `example` that gives an ObjectiveCase",
        "`posterax.testing.TAGS` explains them.",
    )  # fmt: skip
    require(bool(inspect.getdoc(type(objective))), "no docstring", "a docstring that says what the objective is")
    return fine("methods, arguments and tags are in order")


def begin(context: Context, case: ObjectiveCase, key) -> Any:
    """The objective's first state, as the loop carries it."""
    return carried(said("init", lambda: context.component.init(case.model, key=key), _EXPECTED))


@check("objective")
def shapes(context: Context) -> Verdict:
    """Evaluates the loss once: one number, metrics that are numbers, a state that keeps its form."""
    case, objective = case_of(context), context.component
    with precision(objective.precision):
        state, batch = begin(context, case, context.key), case.batch(named(context.key, "batch"))
        require_no_keys(state)
        loss, more = pair(
            "loss", said("loss", lambda: objective.loss(case.model, batch, state, key=context.key), _EXPECTED)
        )
        new, metrics = pair("loss", more)
        require_no_keys(new)
        require_same_form(state, new, "`loss` changed the state")
    require(jnp.shape(loss) == (), f"a loss of shape {jnp.shape(loss)}", "one number", "Take the mean over the batch.")
    require(bool(jnp.isfinite(loss)), f"a loss of {loss} on clean data", "a finite number")
    require(isinstance(metrics, dict), f"metrics of type {type(metrics).__name__}", "a dict of numbers, {} for none")
    odd = {name: jnp.shape(value) for name, value in metrics.items() if jnp.shape(value) != ()}
    require(not odd, f"metrics of shapes {odd}", "numbers")
    return fine(f"loss {float(loss):.3g}; metrics: {', '.join(metrics) or 'none'}")


@eqx.filter_jit
def losses(objective, model, batch, state, keys) -> Array:
    """The loss under several keys."""
    return jax.vmap(lambda key: objective.loss(model, batch, state, key=key)[0])(keys)


@check("objective")
def reproducible(context: Context) -> Verdict:
    """Evaluates the loss under one key and under others: random by the key alone, and only where tagged so."""
    case, objective = case_of(context), context.component
    with precision(objective.precision):
        state, batch = begin(context, case, context.key), case.batch(named(context.key, "batch"))
        keys = jr.split(context.key, 16)
        first, again = (np.asarray(losses(objective, case.model, batch, state, keys)) for _ in range(2))
        eager = np.asarray([objective.loss(case.model, batch, state, key=key)[0] for key in keys[:2]])
    require(np.array_equal(first, again), "two evaluations under one key differ", "the same bits")
    scale = 1 + np.abs(first).max()
    require(
        np.allclose(eager, first[:2], atol=1e-4 * scale), f"compiled {first[0]:.6g}, untraced {eager[0]:.6g}",
        "agreement to 1e-4", "Look for Python branches on values, or a memory outside the state.",
    )  # fmt: skip
    spread = float(first.max() - first.min())
    if "stochastic" in context.subject.tags:
        require(spread > 0, "16 keys gave the same loss", "a random loss, as the tag 'stochastic' says", "Use `key`.")
    else:
        require(
            spread <= 1e-5 * scale, f"losses of one batch under 16 keys differ by {spread:.2g}", "one loss",
            "Tag it 'stochastic' if the loss of one batch is random by design.",
        )  # fmt: skip
    return fine("same key, same bits" + (f"; spread {spread:.2g} over keys" if spread else ""))


@check("objective")
def pure(context: Context) -> Verdict:
    """Traces the loss twice, with another call in between: nothing may be remembered outside the state."""
    case, objective = case_of(context), context.component
    with precision(objective.precision):
        state, batch = begin(context, case, context.key), case.batch(named(context.key, "batch"))

        def loss(*arguments, key):
            value, (new, metrics) = objective.loss(*arguments, key=key)
            return value, eqx.filter(new, eqx.is_array), metrics

        between = lambda: objective.loss(case.model, batch, state, key=named(context.key, "between"))  # noqa: E731
        _, same = traced_twice(loss, (case.model, batch, state), context.key, between)
    require(
        same,
        "two traces of `loss` on the same arguments give two different programs",
        "a loss that depends on model, batch, state and key alone",
        "Look for a counter or cache in a global or a class attribute.",
    )
    return fine("two traces agree")


@check("objective")
def nan_batch(context: Context) -> Verdict:
    """Puts NaN into the batch: the loss must show it, not hide it."""
    if "missing-data" in context.subject.tags:
        return skip("NaN has a meaning ('missing-data')")
    case, objective = case_of(context), context.component
    with precision(objective.precision):
        batch = case.batch(named(context.key, "batch"))
        whole = "stochastic" in context.subject.tags  # such a loss may pass over any one row
        spoilt = jax.tree.map(lambda leaf: _spoil(leaf, whole), batch)
        if eqx.tree_equal(spoilt, batch):
            return skip("the batch has no floating numbers")
        state = begin(context, case, context.key)
        found = float(objective.loss(case.model, spoilt, state, key=context.key)[0])
    require(
        not np.isfinite(found),
        f"a finite loss, {found:.3g}, of a batch with NaN",
        "NaN, which `train` then counts and refuses",
        "Do not use nan_to_num, nanmean or comparisons that swallow NaN; tag 'missing-data' where NaN has a meaning.",
    )
    return fine("NaN in, NaN out")


def _spoil(leaf, whole: bool):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    if whole:
        return jnp.full_like(leaf, jnp.nan)
    return jnp.asarray(leaf).at[(0,) * jnp.ndim(leaf)].set(jnp.nan)


@check("objective", unless={"stochastic", "ordered"})
def row_order(context: Context) -> Verdict:
    """Puts the rows of a batch in another order: the same loss."""
    case, objective = case_of(context), context.component
    with precision(objective.precision):
        state, batch = begin(context, case, context.key), case.batch(named(context.key, "batch"))
        num = {len(leaf) for leaf in jax.tree.leaves(batch) if jnp.ndim(leaf)}
        if len(num) != 1:
            return skip("the batch has no rows")
        order = jr.permutation(context.key, num.pop())
        turned = jax.tree.map(lambda leaf: leaf[order] if jnp.ndim(leaf) else leaf, batch)
        a, b = (float(objective.loss(case.model, rows, state, key=context.key)[0]) for rows in (batch, turned))
    require(
        abs(a - b) <= 1e-4 * (1 + abs(a)), f"losses {a:.6g} and {b:.6g} of one batch in two orders", "the same loss",
        "Look for what belongs together being paired anew; tag 'ordered' where order has a meaning.",
    )  # fmt: skip
    return fine("the order of rows does not matter")


def perturbed(model: Any, leaves_of: Any, size: float, key) -> Any:
    """The model with every (chosen) float array moved by normal noise of that size."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jr.split(key, max(len(leaves), 1))
    noisy = [leaf + size * jr.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(leaves, keys, strict=False)]
    moved = eqx.combine(jax.tree.unflatten(tree, noisy), rest)
    if leaves_of is None:
        return moved
    return eqx.tree_at(leaves_of, model, leaves_of(moved))


def parameter_names(model: Any) -> list[str]:
    """The scalars of a model's float arrays, by name."""
    names = []
    for name, leaf in by_name(eqx.filter(model, eqx.is_inexact_array)).items():
        names += [name + (str(list(i)) if i else "") for i in np.ndindex(jnp.shape(leaf))]
    return names
