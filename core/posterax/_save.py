"""save() and load(): Draws, fitted estimators and pipelines in files that hold data and no code."""

import os
from typing import Any

import equinox as eqx

from . import _files
from ._errors import CheckpointError
from ._structure import decode, encode

_KIND = "object"


def save(path: str | os.PathLike, thing: Any) -> None:
    """Write `thing` to the file `path`, atomically.

    - `thing`: Draws, a fitted estimator, a pipeline, a distribution; any PyTree of posterax's, NumPyro's, Equinox's and
      registered plugins' classes, arrays and plain data. Functions in it (a NumPyro model, say) are noted by name only.

    Raises `CheckpointError` where the disk refuses; a file that was there before is then untouched.
    """
    structure, arrays = encode(thing)
    _files.write(path, {"kind": _KIND, "type": type(thing).__name__, "structure": structure}, arrays)


def load(path: str | os.PathLike, *, like: Any = None) -> Any:
    """Read what `save` wrote.

    Loading runs no code from the file and finds only registered classes. What the file merely names (functions, classes
    that no plugin registers) is taken from `like` at the same place.

    - `like`: an object of the same structure, such as the pipeline as your script builds it; for a fitted `SVI`,
      `SVI(target=target)`.

    Raises `CheckpointError` for a file that is truncated, altered, foreign, newer, or holds something else than `like`.
    """
    header, arrays = _files.read(path, kind=_KIND)
    with _files.well_formed(path):
        if like is not None and type(like).__name__ != header["type"]:
            raise CheckpointError(
                f"{path} holds a {header['type']}; `like` is a {type(like).__name__}. Pass a like object."
            )
        thing = decode(header["structure"], arrays, like=like)
        if isinstance(thing, eqx.Module):
            for cls in type(thing).__mro__:
                if check := vars(cls).get("__check_init__"):
                    check(thing)  # an altered file cannot bring in what the constructor would refuse
    return thing
