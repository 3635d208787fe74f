"""What problems ask of their arguments, in words."""

from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array


def as_float(value: Any) -> Array:
    """`value` as an array of the default floating type (float32, or float64 under x64)."""
    return jnp.asarray(value, dtype=float)


def require_shape(name: str, value: Array, shape: tuple[int | str, ...]) -> None:
    """Refuse `value` unless its shape is `shape`; letters stand for any size of at least 1."""
    fits = len(value.shape) == len(shape) and all(
        got >= 1 if isinstance(want, str) else got == want for got, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        words = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(
            f"`{name}` must have shape {words}; got {tuple(value.shape)}. "
            "Give one unbatched problem and use `jax.vmap` for many."
        )


def require_positive(name: str, value: Array) -> None:
    """Refuse values that are not positive. Values that are being traced are not looked at."""
    if not isinstance(value, Tracer) and not bool(jnp.all(value > 0)):
        raise ValueError(f"`{name}` must be positive; got {value}.")


def require_probabilities(name: str, value: Array) -> None:
    """Refuse rows that are no probability vectors. Values that are being traced are not looked at."""
    if isinstance(value, Tracer):
        return
    # Sums of float32 entries that were rounded one by one miss 1 by about 1e-7 each.
    if not bool(jnp.all(value >= 0) & jnp.all(jnp.abs(value.sum(-1) - 1) < 1e-4)):
        raise ValueError(
            f"`{name}` must be non-negative with a sum of 1 along its last axis; got {value}. Divide by the sum first."
        )
