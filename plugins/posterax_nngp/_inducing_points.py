"""Which rows stand for all of them: the pivots of an incomplete Cholesky factorisation of the kernel matrix."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from posterax._precision import precision

_TOLERANCE = 1e-12  # of the largest variance: what is left below it is rounding


def greedy_inducing(kernel: Any, x: Any, num: int) -> np.ndarray:
    """Indices of at most `num` rows of `x`, chosen one after another.

    Each is the row that the earlier ones tell least about: the largest conditional variance under a Gaussian process
    with this kernel (of equal ones the first). The sum of the variances that are left is the trace of the error of the
    Nystrom approximation by the rows so far.

    - `kernel`: has `nngp(x, z)` and `diag(x)`.
    - `x`: `(n, ...)`, rows.
    - `num`: how many. Fewer come back where the others are copies of those chosen, to within rounding: the rows never
      make a kernel matrix that is singular.

    Takes O(n num^2) operations and O(n num) memory, in float64; the kernel is evaluated for n pairs at a time.

    Raises `ValueError` where `num` is not between 1 and n, for numbers that are not finite, and where no variance is
    positive.

    Source: Fine and Scheinberg (2001), JMLR 2; as a choice of inducing points Burt, Rasmussen and van der Wilk (2020),
    JMLR 21.
    """
    n = np.shape(x)[0]
    if not 1 <= num <= n:
        raise ValueError(f"`num` must be between 1 and the {n} rows of `x`; got {num}.")
    with precision(64):
        x = jnp.asarray(np.asarray(x, dtype=np.float64))
        left = np.array(_variances(kernel, x))
        if not (np.isfinite(np.asarray(x)).all() and np.isfinite(left).all() and left.max() > 0):
            raise ValueError(
                "`x` or the kernel's variances there are not all finite, or no variance is positive. Leave rows with "
                "NaN out, and look at the kernel."
            )
        least = _TOLERANCE * left.max()
        rows, chosen = np.zeros((num, n)), []  # rows[j]: the j-th column of the Cholesky factor
        for j in range(num):
            pivot = int(np.argmax(left))
            if left[pivot] <= least:
                break
            column = np.asarray(_column(kernel, x, jnp.asarray(pivot)))
            rows[j] = (column - rows[:j, pivot] @ rows[:j]) / np.sqrt(left[pivot])
            left = np.maximum(left - rows[j] ** 2, 0.0)
            left[pivot] = 0.0
            chosen.append(pivot)
    return np.array(chosen)


@eqx.filter_jit
def _variances(kernel, x):
    return kernel.diag(x)


@eqx.filter_jit
def _column(kernel, x, pivot):
    return kernel.nngp(x, x[pivot][None])[:, 0]
