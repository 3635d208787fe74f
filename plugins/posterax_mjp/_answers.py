"""What practitioners read off a rate matrix; of many at once, such as posterior draws, by leading axes.

All functions take rate matrices `(..., k, k)` with rows that sum to 0 and compute in NumPy, in double precision.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def stationary_law(generator: ArrayLike) -> Float[np.ndarray, "*B k"]:
    """The law that stays as it is, `(..., k)`.

    Raises `ValueError` for chains with more than one: those that cannot come from everywhere to one common state.
    """
    matrix = _checked(generator)
    size = matrix.shape[-1]
    reach = reachable(matrix)
    if (several := ~np.any(np.all(reach, -2), -1)).any():
        apart = reach[np.unravel_index(np.argmax(several), several.shape)] if several.ndim else reach
        final = [i for i in range(size) if not (apart[i] & ~apart[:, i]).any()]
        raise ValueError(
            f"The chain is reducible and has several stationary laws: states {final} are not left for each other. "
            "`limit_law(generator, start)` gives the one that is reached from a start."
        )
    equations = np.concatenate([np.swapaxes(matrix, -1, -2), np.ones((*matrix.shape[:-2], 1, size))], -2)
    right = np.zeros((*matrix.shape[:-2], size + 1, 1))
    right[..., -1, 0] = 1
    q, r = np.linalg.qr(equations)
    found = np.linalg.solve(r, np.swapaxes(q, -1, -2) @ right)[..., 0]
    return np.maximum(found, 0) / np.maximum(found, 0).sum(-1, keepdims=True)


def first_passage_times(generator: ArrayLike) -> Float[np.ndarray, "*B k k"]:
    """Mean time until column's state is first reached from the row's; inf where it may never be."""
    matrix = _checked(generator)
    size = matrix.shape[-1]
    found = np.zeros(matrix.shape)
    reach = reachable(matrix)
    for target in range(size):
        others = [i for i in range(size) if i != target]
        avoided = reachable(_without(matrix, target))
        sure = np.all(~avoided | reach[..., :, target][..., None, :], -1)  # nowhere it can get stuck
        inner = matrix[..., others, :][..., others]
        fine = sure[..., others]
        safe = np.where(fine[..., :, None] & fine[..., None, :], inner, -np.eye(size - 1))
        times = np.linalg.solve(safe, -np.ones((*safe.shape[:-1], 1)))[..., 0]
        found[..., others, target] = np.where(fine, times, np.inf)
    return found


def relaxation_times(generator: ArrayLike) -> Float[np.ndarray, "*B k-1"]:
    """1 / |Re eigenvalue| of all modes but the stationary one, slowest first; inf for modes that never relax."""
    matrix = _checked(generator)
    modes = np.sort(-np.linalg.eigvals(matrix).real, -1)[..., 1:]
    scale = -np.trace(matrix, axis1=-2, axis2=-1)[..., None]
    return np.where(modes > 1e-12 * scale, 1 / np.where(modes > 0, modes, 1.0), np.inf)


def sojourn_times(generator: ArrayLike) -> Float[np.ndarray, "*B k"]:
    """Mean length of a stay in each state; inf where it is never left."""
    exits = -np.diagonal(_checked(generator), axis1=-2, axis2=-1)
    return np.where(exits > 0, 1 / np.where(exits > 0, exits, 1.0), np.inf)


def entropy_production(generator: ArrayLike, law: ArrayLike | None = None) -> Float[np.ndarray, "*B"]:
    r"""$\sum_{i \ne j} p_i q_{ij} \ln (p_i q_{ij} / p_j q_{ji})$, in nats per unit of time.

    - `law`: p; by default the stationary one, at which it is 0 in detailed balance alone.

    Infinite where a jump that happens cannot be undone.
    """
    matrix = _checked(generator)
    law = stationary_law(matrix) if law is None else np.asarray(law, float)
    flow = law[..., :, None] * matrix * (1 - np.eye(matrix.shape[-1]))
    back = np.swapaxes(flow, -1, -2)
    with np.errstate(divide="ignore"):
        ratio = np.log(np.where(flow > 0, flow, 1.0)) - np.log(np.where(flow > 0, back, 1.0))
    return np.sum(np.where(flow > 0, flow * np.where(flow > 0, ratio, 0.0), 0.0), (-1, -2))


def committors(generator: ArrayLike, start: Sequence[int], end: Sequence[int]) -> Float[np.ndarray, "*B k"]:
    """The probability to reach one of `end` before any of `start`, from each state.

    Raises `ValueError` where the two have a state in common, or some state can reach neither.
    """
    matrix = _checked(generator)
    size = matrix.shape[-1]
    start, end = list(start), list(end)
    if not start or not end or set(start) & set(end) or not set(start + end) <= set(range(size)):
        raise ValueError(f"`start` and `end` must be different states among 0 to {size - 1}; got {start} and {end}.")
    between = [i for i in range(size) if i not in start + end]
    found = np.zeros(matrix.shape[:-1])
    found[..., end] = 1
    if between:
        if not reachable(matrix)[..., between, :][..., start + end].any(-1).all():
            raise ValueError("From some state neither `start` nor `end` is ever reached: there is no committor.")
        inner = matrix[..., between, :][..., between]
        right = -matrix[..., between, :][..., end].sum(-1)
        found[..., between] = np.linalg.solve(inner, right[..., None])[..., 0]
    return found


def _checked(generator: ArrayLike) -> Float[np.ndarray, "*B k k"]:
    matrix = np.asarray(generator, float)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(f"`generator` must have shape (..., k, k), k at least 2; got {matrix.shape}.")
    off = matrix * (1 - np.eye(matrix.shape[-1]))
    if not np.isfinite(matrix).all() or (off < 0).any():
        raise ValueError("`generator` must have finite entries, and rates of 0 or more off its diagonal.")
    if (np.abs(matrix.sum(-1)) > 1e-4 * (1 + off.sum(-1))).any():
        raise ValueError("Rows of `generator` must sum to 0. From rates alone: `posterax_mjp.generator(rates)`.")
    return off - off.sum(-1)[..., None] * np.eye(matrix.shape[-1])


def reachable(matrix: np.ndarray) -> np.ndarray:
    """Which states can be reached from which, themselves included."""
    found = (matrix > 0) | np.eye(matrix.shape[-1], dtype=bool)
    for _ in range(int(np.ceil(np.log2(matrix.shape[-1])))):
        found = (found.astype(np.float32) @ found.astype(np.float32)) > 0
    return found


def _without(matrix: np.ndarray, state: int) -> np.ndarray:
    """The chain until it reaches a state: nothing leaves it."""
    found = matrix.copy()
    found[..., state, :] = 0
    return found
