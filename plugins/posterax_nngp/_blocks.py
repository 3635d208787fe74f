"""Gram matrices in tiles: what is needed beside the result is a few tiles, forwards and backwards."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TILE = 2**16  # pairs of numbers that are treated at once: half a megabyte, so that a tile stays in the cache

Pair = Callable[[Array, Array], Array]


def symmetric(pair: Pair, x: Array, diagonal: Float[Array, " n"]) -> Float[Array, "n n"]:
    """`pair(x, x)`, computed on and below the diagonal only, with the given diagonal."""
    n, tile = len(x), _side(x)
    on_diagonal = jnp.arange(n)
    if n <= 2 * tile:
        return pair(x, x).at[on_diagonal, on_diagonal].set(diagonal)
    blocks = -(-n // tile)
    tiles = _padded(x, blocks * tile).reshape(blocks, tile, *x.shape[1:])
    rows, columns = (jnp.asarray(index) for index in np.tril_indices(blocks))

    @jax.checkpoint
    def one(i, j):
        return pair(tiles[i], tiles[j])

    def add(gram, ij):
        i, j = ij
        value = one(i, j)
        gram = jax.lax.dynamic_update_slice(gram, value.T, (j * tile, i * tile))
        return jax.lax.dynamic_update_slice(gram, value, (i * tile, j * tile)), None

    gram = jnp.zeros((blocks * tile,) * 2, diagonal.dtype)
    gram = jax.lax.scan(add, gram, (rows, columns))[0][:n, :n]
    return gram.at[on_diagonal, on_diagonal].set(diagonal)


def rectangular(pair: Pair, x: Array, z: Array) -> Float[Array, "n m"]:
    """`pair(x, z)`, some rows at a time."""
    numbers = len(z) * max(1, int(np.prod(x.shape[1:-1])))
    rows = max(1, 2 * _TILE // max(1, numbers))
    if len(x) <= 2 * rows:
        return pair(x, z)
    blocks = -(-len(x) // rows)
    tiles = _padded(x, blocks * rows).reshape(blocks, rows, *x.shape[1:])
    return jax.lax.map(jax.checkpoint(lambda tile: pair(tile, z)), tiles).reshape(blocks * rows, len(z))[: len(x)]


def _side(x: Array) -> int:
    pixels = max(1, int(np.prod(x.shape[1:-1])))
    return max(1, int(np.sqrt(_TILE / pixels)))


def _padded(x: Array, size: int) -> Array:
    # With copies of the last row: they are thrown away, and no gradient there can be NaN where the data's are not.
    return jnp.concatenate([x, jnp.repeat(x[-1:], size - len(x), axis=0)]) if size > len(x) else x
