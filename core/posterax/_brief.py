"""Things in few words: what they are and how they are set, without what they have learnt."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpyro.distributions as dist

from ._target import Target

_DEEP = 2  # below a stage and what stands in it


def brief(thing: Any, depth: int = 0) -> str:
    """`thing` in one line: its class, and its settings that are not the defaults. Arrays are told by dtype and shape.

    Two levels deep only classes are named.
    """
    if isinstance(thing, float):
        return f"{thing:g}"
    if thing is None or isinstance(thing, (bool, int, str)):
        return repr(thing)
    if isinstance(thing, Target):
        return f"Target({', '.join(f'{name}{list(shape) or str()}' for name, shape in thing.structure.latent.items())})"
    if isinstance(thing, dist.Distribution):
        return type(thing).__name__ + (f"{list(thing.batch_shape)}" if thing.batch_shape else "")
    if isinstance(thing, eqx.Module):
        return type(thing).__name__ + (f"({_settings(thing, depth)})" if depth < _DEEP else "")
    if hasattr(thing, "dtype") and hasattr(thing, "shape"):
        single = thing.shape == () and thing.dtype.kind == "f"
        return f"{float(thing):g}" if single else f"{thing.dtype}{list(thing.shape)}"
    if isinstance(thing, Mapping):
        return "{...}" if depth >= _DEEP else f"{{{', '.join(f'{k}: {brief(v, depth)}' for k, v in thing.items())}}}"
    if isinstance(thing, (list, tuple)):
        return f"({', '.join(brief(item, depth) for item in thing)})"
    return getattr(thing, "__name__", type(thing).__name__)


def _settings(thing: eqx.Module, depth: int) -> str:
    told = []
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name, None)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value is not None and not (type(value) is type(default) and eqx.tree_equal(value, default)):
            told.append(f"{field.name}={brief(value, depth + 1)}")
    return ", ".join(told)
