"""Names of axes and of the points along them. They inform results and never enter a computation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Labels:
    """`dims` (axis names of each variable) and `coords` (the labels along each axis).

    All labels compare equal: a target relabelled is, to the compiler, the same target.
    """

    def __init__(self, dims: Mapping[str, Sequence[str]] | None = None, coords: Mapping[str, Any] | None = None):
        self.dims = {name: [names] if isinstance(names, str) else list(names) for name, names in (dims or {}).items()}
        self.coords = {name: np.asarray(points) for name, points in (coords or {}).items()}

    def __eq__(self, other):
        return isinstance(other, Labels)

    def __hash__(self):
        return hash(Labels)

    def __repr__(self):
        return f"Labels(dims={self.dims}, coords={list(self.coords)})"

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `ValueError` where a name is unknown or a length does not fit `shapes`."""
        for name, dims in self.dims.items():
            if name not in shapes:
                raise ValueError(f"`dims` names {name!r}, which the target has not. It has {sorted(shapes)}.")
            if len(dims) > len(shapes[name]):
                raise ValueError(
                    f"`dims[{name!r}]` has {len(dims)} names, {dims}, but {name!r} has shape {shapes[name]}. "
                    f"Give at most {len(shapes[name])}."
                )
            # Names given for fewer axes than there are belong to the last ones, the event's.
            for dim, length in zip(reversed(dims), reversed(shapes[name]), strict=False):
                if dim in self.coords and len(self.coords[dim]) != length:
                    raise ValueError(
                        f"`coords[{dim!r}]` has {len(self.coords[dim])} labels, but that axis of {name!r} has length "
                        f"{length}. Give {length} labels."
                    )
