"""Shipped weights: a file of arrays and a card that says how they were made."""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from posterax import CheckpointError, load, save

Model = TypeVar("Model")


def weights_folder(package: str = "posterax_models") -> Path:
    """Where the weights that a package ships lie, and their cards."""
    return Path(str(resources.files(package) / "weights"))


def read_card(package: str, names: Sequence[str], name: str) -> dict[str, Any]:
    """The card of one of a package's weights; raises `ValueError` where it is none of `names`."""
    check_name(names, name)
    return json.loads((weights_folder(package) / f"{name}.json").read_text())


def check_name(names: Sequence[str], name: str) -> None:
    """Raises `ValueError` for a name that is none of these."""
    if name not in names:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, names))}; got {name!r}.")


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
