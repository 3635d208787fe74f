"""Prefix sums of whole numbers, as products with a small triangular matrix: on a CPU ten times as fast as a loop.

XLA's own `cumsum` takes about 200 us for 10,000 numbers on one core. As the sums here have no rounding, the order of the
additions does not matter, and all ways and platforms give the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

_BLOCK = 16  # a multiple of the vector width; larger ones are slower
_HALF = 31
_MOST = 2**22  # so many numbers of 31 bits add up to less than 2^53


def prefix_sum(x: Int[Array, " n"]) -> Int[Array, " n"]:
    """Inclusive sums of int64 numbers that are not negative and add up to less than 2^62."""
    if x.size > _MOST:
        return jnp.cumsum(x)
    return jax.lax.platform_dependent(x, cpu=_in_halves, default=jnp.cumsum)


def small_prefix_sum(x: Int[Array, " n"]) -> Int[Array, " n"]:
    """Inclusive sums of int32 numbers that are not negative and add up to less than 2^31."""
    return jax.lax.platform_dependent(x, cpu=_in_float64, default=jnp.cumsum)


def _in_float64(x):
    return _by_products(x.astype(jnp.float64)).astype(x.dtype)


def _in_halves(x):
    high, low = x >> _HALF, x & (2**_HALF - 1)  # float64 holds the sums of each exactly
    high, low = _by_products(high.astype(jnp.float64)), _by_products(low.astype(jnp.float64))
    return (high.astype(x.dtype) << _HALF) + low.astype(x.dtype)


def _by_products(x):
    n = x.size
    if n <= 2 * _BLOCK:
        return _times(x, np.triu(np.ones((n, n), x.dtype)))
    rows = -(-n // _BLOCK)
    blocks = jnp.pad(x, (0, rows * _BLOCK - n)).reshape(rows, _BLOCK)
    totals = _times(blocks, np.ones(_BLOCK, x.dtype))
    before = _by_products(totals) - totals
    within = _times(blocks, np.triu(np.ones((_BLOCK, _BLOCK), x.dtype)))
    return (within + before[:, None]).reshape(-1)[:n]


def _times(x, matrix):
    return jnp.dot(x, matrix, precision="highest")
