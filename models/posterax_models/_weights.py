"""Shipped weights: a file of arrays and a card that says how they were made."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from posterax import CheckpointError, load, save

Model = TypeVar("Model")


def weights_folder() -> Path:
    """Where the shipped weights and their cards lie."""
    return Path(str(resources.files("posterax_models") / "weights"))


def write_weights(path: Path, model: Any, card: dict[str, Any], *, dtype: Any = np.float16) -> None:
    """The arrays of `model` in `path`, and `card` with their SHA-256 beside it, as JSON."""
    save(path, {name: np.asarray(leaf, dtype) for name, leaf in _named(model).items()})
    card = {**card, "dtype": np.dtype(dtype).name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def read_weights(path: Path, like: Model) -> Model:
    """`like` with the arrays of a file, in the precision of `like`; raises `CheckpointError` where they do not fit."""
    arrays, wanted = load(path), _named(like)
    shapes = {name: np.shape(leaf) for name, leaf in arrays.items()}
    if shapes != {name: leaf.shape for name, leaf in wanted.items()}:
        raise CheckpointError(f"{path} holds the weights of another network. Pass the network that its card describes.")
    values = [jax.numpy.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
    kept, fixed = eqx.partition(like, eqx.is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(kept), values), fixed)


def _named(model: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_array))[0]
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}
