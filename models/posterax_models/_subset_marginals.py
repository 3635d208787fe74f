"""All marginals of a small discrete law, by enumeration: every subset of the variables, every value."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_MOST = 2**26  # entries of the table: half a gigabyte in float64
_RANGE = 600.0  # of log weights whose exponentials float64 holds


class SubsetMarginals(eqx.Module):
    """The log marginals of all 3^D, or (K_1 + 1) ... (K_D + 1), partial assignments of a discrete law.

    - `table`: `(K_1 + 1, ..., K_D + 1)`, normalised, in nats; the last place of an axis is for what is not observed.
    - `log_partition`: of the log weights it was made from, in nats.
    """

    table: np.ndarray
    log_partition: float

    @staticmethod
    def of(log_weights: Any) -> "SubsetMarginals":
        """By summing out each variable in turn.

        - `log_weights`: `(K_1, ..., K_D)`, of all full assignments, in nats, normalised or not; `-inf` is allowed.

        Raises `ValueError` for tables that are too large, hold NaN or +inf, or no possible assignment.
        """
        table = np.asarray(log_weights, float)
        if (size := np.prod([k + 1.0 for k in table.shape])) > _MOST:
            raise ValueError(f"`log_weights` has {size:.2g} partial assignments; at most {_MOST:.2g} are listed.")
        if np.isnan(table).any() or (table == np.inf).any() or not np.isfinite(table).any():
            raise ValueError("`log_weights` must be finite or -inf, and not all -inf.")
        peak = table.max()
        if peak - table[np.isfinite(table)].min() < _RANGE:  # sums of exponentials: one logarithm at the end
            table = np.exp(table - peak)
            for axis in range(table.ndim):
                table = np.concatenate([table, table.sum(axis, keepdims=True)], axis)
            with np.errstate(divide="ignore"):
                table = np.log(table) + peak
        else:
            for axis in range(table.ndim):
                table = np.concatenate([table, _log_sum(table, axis)], axis)
        total = float(table[(-1,) * table.ndim])
        table -= total
        return SubsetMarginals(table, total)

    def __call__(self, x: Int[Array, "... D"], observed: Bool[Array, "... D"]) -> Float[Array, "..."]:
        """Log probability that the observed variables have the values of `x`, in nats; the others are summed out."""
        unknown = np.array(self.table.shape) - 1
        places = np.where(np.asarray(observed), np.asarray(x), unknown)
        return jnp.asarray(self.table[tuple(np.moveaxis(places, -1, 0))])


def _log_sum(table: np.ndarray, axis: int) -> np.ndarray:
    peak = table.max(axis, keepdims=True)
    safe = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(table - safe).sum(axis, keepdims=True)) + safe


def assignments(num_values: tuple[int, ...]) -> Int[np.ndarray, "states D"]:
    """All full assignments, the last variable changing fastest; reshaped by `num_values` they index a table."""
    grids = np.meshgrid(*[np.arange(k) for k in num_values], indexing="ij")
    return np.stack([grid.ravel() for grid in grids], -1)
