"""What a regression is given: checked, brought to arrays of float64, standardised if wanted."""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_COPIES = 5  # matrices of n x n that a fit holds at the same time, at most


def check_data(data: Any, event_ndim: int) -> tuple[Any, Any]:
    """Inputs `(n, ...)` and outputs `(n,)` or `(n, m)`. Traced arrays are only checked for their shapes.

    Raises `TypeError` or `ValueError` for anything else, and for numbers that are not finite.
    """
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise TypeError(f"`data` must be a pair (x, y) of inputs and outputs; got {type(data).__name__}.")
    x, y = (value if isinstance(value, Tracer) else np.asarray(value) for value in data)
    x, y = finite(x, "x"), finite(y, "y")
    if x.ndim != 1 + event_ndim:
        form = "(n, d)" if event_ndim == 1 else "(n, height, width, channels)"
        hint = " For inputs of one number write x[:, None]." if x.ndim == 1 else ""
        raise ValueError(f"`x` must have shape {form}; got {x.shape}.{hint}")
    if x.size == 0:
        raise ValueError(f"`x` must have at least one row and one input; got shape {x.shape}. Give data to fit to.")
    if y.ndim not in {1, 2} or len(y) != len(x) or y.size == 0:
        raise ValueError(f"`y` must have shape ({len(x)},), or ({len(x)}, m) for m outputs, as `x` has; got {y.shape}.")
    return x, y


def finite(values: Any, name: str) -> Any:
    """`values` in float64. Raises where some are no finite numbers, and says which rows."""
    if isinstance(values, Tracer):
        return values
    if values.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` must be numbers; got an array of {values.dtype}.")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if np.any(bad):
        rows = np.flatnonzero(bad)
        raise ValueError(
            f"`{name}` must be finite; {rows.size} of {bad.size} rows hold NaN or infinity, first row {rows[0]}. Leave "
            "these rows out, or fill them in."
        )
    return values


def check_memory(n: int, what: str | None = None, cure: str | None = None) -> None:
    """Raises `MemoryError`, before anything is allocated, where matrices of n x n do not fit.

    - `what`: needs the memory, by default the exact fit to n rows; `cure`: what to do instead.
    """
    needed, free = _COPIES * 8 * n * n, free_memory()
    if free is not None and needed > free:
        what = what or f"An exact fit to {n} rows"
        cure = cure or (
            "Give `num_inducing=500` (a sparse approximation whose memory grows with n, not with its square), or fewer "
            "rows"
        )
        raise MemoryError(f"{what} needs about {needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free. {cure}.")


def free_memory() -> int | None:
    """Bytes that can be allocated, None where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def observations(x: Any, y: Any) -> list[str]:
    """What is worth knowing about the data, in words."""
    if isinstance(x, Tracer) or isinstance(y, Tracer):
        return []
    notes = []
    constant = np.flatnonzero(np.ptp(x.reshape(len(x), -1), axis=0) == 0)
    if x.ndim == 2 and len(constant) and len(x) > 1:
        notes.append(f"columns {constant.tolist()} of x are constant: they say nothing, and act as a bias")
    doubles = len(x) - num_distinct(x)
    if doubles:
        notes.append(f"{doubles} rows of x are copies of others: without noise the Gram matrix is singular")
    return notes


def num_distinct(*columns: np.ndarray) -> int:
    """How many rows differ, of arrays `(n, ...)` side by side."""
    return len(np.unique(np.hstack([array.reshape(len(array), -1) for array in columns]), axis=0))


def standardiser(x: Any, y: Any, standardise: bool) -> dict[str, Any]:
    """Shift and scale of inputs and outputs; scale one where a column is constant.

    Raises `ValueError` for constant outputs, from which no scale can be learnt.
    """
    if not standardise:
        return {"x_shift": 0.0, "x_scale": 1.0, "y_shift": 0.0, "y_scale": 1.0}
    xp = jnp if isinstance(x, Tracer) or isinstance(y, Tracer) else np
    x_sd, y_sd = xp.std(x, axis=0), xp.std(y, axis=0)
    if xp is np and not np.all(y_sd > 0):
        raise ValueError(
            "`y` is constant in some output, so that standardising divides by zero. Leave that output out, or pass "
            "standardise=False."
        )
    return {
        "x_shift": xp.mean(x, axis=0),
        "x_scale": xp.where(x_sd > 0, x_sd, 1.0),
        "y_shift": xp.mean(y, axis=0),
        "y_scale": y_sd,
    }


def standardised(x: Any, y: Any, units: dict[str, Any]) -> tuple[Any, Any]:
    """Inputs `(n, ...)` and outputs `(n, m)` in the units of the model, in the precision in force."""
    x = jnp.asarray((x - units["x_shift"]) / units["x_scale"], jnp.result_type(float))
    y = jnp.asarray((y - units["y_shift"]) / units["y_scale"], jnp.result_type(float))
    return x, y[:, None] if y.ndim == 1 else y
