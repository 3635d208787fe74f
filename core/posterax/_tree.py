"""PyTrees: names of leaves, and what to do with the arrays in them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def names_of(tree: PyTree) -> PyTree[str]:
    """The same tree with each leaf replaced by its name: its path joined by dots, or "x" for a lone leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _join(path), tree)


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of `tree` as a flat dict."""
    return {_join(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _join(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "x"


def strengthen(tree: PyTree) -> PyTree:
    """Give every array its own dtype for good: a weakly typed leaf would compile again after it has been saved."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), tree)


def require_same(before: PyTree, after: PyTree, what: str) -> None:
    """Raise `TypeError` where `after` differs from `before` in structure, shape or dtype; values play no part.

    - `what`: who made `after` of `before`, for the message: "RandomWalk.step changed the state".
    """
    cure = "What evolves in a loop must keep its structure, shapes and dtypes: look for a list that grows, or a cast."
    if jax.tree.structure(before) != jax.tree.structure(after):
        old, new = by_name(before), by_name(after)
        odd = sorted(set(old) ^ set(new)) or f"{jax.tree.structure(before)} -> {jax.tree.structure(after)}"
        raise TypeError(f"{what}: its structure differs at {odd}. {cure}")
    for (name, old), new in zip(by_name(before).items(), jax.tree.leaves(after), strict=True):
        if (jnp.shape(old), jnp.result_type(old)) != (jnp.shape(new), jnp.result_type(new)):
            raise TypeError(
                f"{what}: {name!r} was {jnp.result_type(old)}{list(jnp.shape(old))} and is now "
                f"{jnp.result_type(new)}{list(jnp.shape(new))}. {cure}"
            )


def as_jax(tree: PyTree) -> PyTree:
    """NumPy arrays as JAX arrays of the precision in force, so that traced indices may be used on them."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)


def as_data(argument: Any, name: str) -> Any:
    """Data for a target: arrays, numbers with a point and lists of numbers become arrays; the rest stays as it is.

    NumPy arrays are kept as copies in the precision they came in, read-only: a run in float64 then sees all their
    digits, and nobody can change them from outside. Integers, strings and booleans stay Python's: they may set shapes.

    Raises `ValueError` for an array without entries.
    """
    is_leaf = _is_number_list

    def one(path, leaf):
        if isinstance(leaf, jax.Array):
            array = leaf
        elif isinstance(leaf, (float, np.ndarray, np.generic, list)) or hasattr(leaf, "__array__"):
            array = np.array(leaf)
            if array.dtype.kind not in "biufc":
                return leaf
            array.flags.writeable = False
        else:
            return leaf
        if array.size == 0:
            where = name + jax.tree_util.keystr(path)
            raise ValueError(
                f"`{where}` is empty: shape {array.shape}. A target needs at least one observation; for a model "
                "without data, leave the argument out or pass None."
            )
        return array

    return jax.tree_util.tree_map_with_path(one, argument, is_leaf=is_leaf)


def _is_number_list(node) -> bool:
    return isinstance(node, list) and bool(node) and all(isinstance(item, (int, float)) for item in node)
