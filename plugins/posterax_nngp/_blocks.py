"""Gram matrices in tiles: what is needed beside the result is a few tiles, forwards and backwards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TILE = 2**16  # pairs of numbers that are treated at once: half a megabyte, so that a tile stays in the cache

Pair = Callable[..., Array]


def symmetric(pair: Pair, x: Array, diagonal: Float[Array, " n"]) -> Float[Array, "n n"]:
    """`pair(x, x)`, computed on and below the diagonal only, with the given diagonal. It has no forward derivative."""
    n, tile = len(x), _side(x)
    on_diagonal = jnp.arange(n)
    if n <= 2 * tile:
        return pair(x, x).at[on_diagonal, on_diagonal].set(diagonal)
    blocks = -(-n // tile)
    tiles = _padded(x, blocks * tile).reshape(blocks, tile, *x.shape[1:])
    pure, parameters = jax.closure_convert(pair, tiles[0], tiles[0])
    gram = _all_tiles(pure, tiles, parameters)[:n, :n]
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


def _forward(pair: Pair, tiles: Array, parameters: Any) -> Array:
    """All tiles `pair(tiles[i], tiles[j], *parameters)`, those above the diagonal copied from below."""
    blocks, tile = tiles.shape[:2]

    def add(gram, ij):
        i, j = ij
        value = pair(tiles[i], tiles[j], *parameters)
        gram = jax.lax.dynamic_update_slice(gram, value.T, (j * tile, i * tile))
        return jax.lax.dynamic_update_slice(gram, value, (i * tile, j * tile)), None

    dtype = jax.eval_shape(pair, tiles[0], tiles[0], *parameters).dtype
    return jax.lax.scan(add, jnp.zeros((blocks * tile,) * 2, dtype), _lower(blocks))[0]


def _backward(pair: Pair, saved: Any, cotangent: Array) -> tuple[Array, Any]:
    """Tile by tile, each computed anew: its cotangent is its own and that of its mirror image."""
    tiles, parameters = saved
    tile = tiles.shape[1]

    def add(carry, ij):
        i, j = ij
        mine = jax.lax.dynamic_slice(cotangent, (i * tile, j * tile), (tile, tile))
        mirror = jax.lax.dynamic_slice(cotangent, (j * tile, i * tile), (tile, tile)).T
        _, pull = jax.vjp(pair, tiles[i], tiles[j], *parameters)
        on_row, on_column, *on_parameters = pull(mine + jnp.where(i == j, 0, mirror))
        on_tiles, total = carry
        on_tiles = on_tiles.at[i].add(on_row).at[j].add(on_column)
        return (on_tiles, jax.tree.map(jnp.add, total, on_parameters)), None

    start = jnp.zeros_like(tiles), jax.tree.map(jnp.zeros_like, list(parameters))
    return jax.lax.scan(add, start, _lower(len(tiles)))[0]


_all_tiles = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_all_tiles.defvjp(lambda pair, *given: (_forward(pair, *given), given), _backward)


def _lower(blocks: int) -> tuple[Array, Array]:
    rows, columns = np.tril_indices(blocks)
    return jnp.asarray(rows), jnp.asarray(columns)


def _side(x: Array) -> int:
    pixels = max(1, int(np.prod(x.shape[1:-1])))
    return max(1, int(np.sqrt(_TILE / pixels)))


def _padded(x: Array, size: int) -> Array:
    # With copies of the last row: they are thrown away, and no gradient there can be NaN where the data's are not.
    return jnp.concatenate([x, jnp.repeat(x[-1:], size - len(x), axis=0)]) if size > len(x) else x
