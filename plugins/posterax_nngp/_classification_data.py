"""Points and labels at the door: what came is checked, and said, before anything is traced."""

from typing import Any

import numpy as np

from ._data import finite


def as_points(x: Any, name: str, event_ndim: int, event_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Rows of finite numbers in float64, `(n, ...)` with `event_ndim` axes after the first.

    - `event_shape`: what these must be, where the data have told.

    Raises `ValueError` for another shape, no rows, or numbers that are not finite; `TypeError` for what is no numbers.
    """
    if x is None:
        raise TypeError(f"`{name}` is missing: give points of shape (n, ...), as those fitted.")
    x = finite(np.asarray(x), name)
    form = "(n, d), one row a point" if event_ndim == 1 else "(n, height, width, channels)"
    if x.ndim != 1 + event_ndim:
        row = f" For a single point write {name}[None]." if x.ndim == event_ndim else ""
        raise ValueError(f"`{name}` must have shape {form}; got {x.shape}.{row}")
    if event_shape is not None and x.shape[1:] != event_shape:
        raise ValueError(f"`{name}` must have points of shape {event_shape}, as those fitted; got {x.shape[1:]}.")
    if x.size == 0:
        raise ValueError(f"`{name}` must have at least one point and one input; got shape {x.shape}.")
    return x


def as_labels(labels: Any, num_rows: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Labels 0 ... C-1 as integers `(n,)`, and C.

    - `num_classes`: C, where it is known; else every class must occur.

    Raises `ValueError` for labels of another kind or shape, with the set that came, and for a single class.
    """
    labels = np.asarray(labels)
    if labels.shape != (num_rows,):
        hint = " One-hot labels become integers by `labels.argmax(axis=1)`." if labels.ndim == 2 else ""
        raise ValueError(f"`labels` must have shape ({num_rows},), one for each row of `x`; got {labels.shape}.{hint}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = np.flatnonzero(~np.isfinite(labels))
        raise ValueError(f"`labels` must not hold NaN or infinity; label {bad[0]} is the first of {bad.size}.")
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers 0 ... C-1; got {labels.dtype} {_listed(labels)}. "
            "`numpy.unique(labels, return_inverse=True)[1]` makes such integers of any labels."
        )
    found = np.unique(labels)
    count = int(found[-1]) + 1 if num_classes is None else num_classes
    if found[0] < 0 or found[-1] >= count or (num_classes is None and len(found) < count):
        expected = "0 ... C-1, each at least once" if num_classes is None else f"0 ... {count - 1}"
        raise ValueError(
            f"`labels` must be integers {expected}; got {_listed(labels)}. `numpy.unique(labels, return_inverse=True)"
            "[1]` numbers the labels there are; where a class has no label yet, give `num_classes`."
        )
    if count < 2:
        raise ValueError("`labels` are all 0. At least two classes are needed; where one has no label yet, give "
                         "`num_classes`.")  # fmt: skip
    return labels.astype(np.int64), count


def _listed(labels: np.ndarray) -> str:
    found = np.unique(labels)
    shown = ", ".join(map(str, found[:10].tolist()))
    return f"{{{shown}{', ...' if len(found) > 10 else ''}}}"
