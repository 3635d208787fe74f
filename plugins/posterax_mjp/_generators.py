"""Rate matrices, and the transition probabilities over a gap of time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

_ORDER = 14  # of the series: its remainder is below 1e-19 where half a jump is expected
_MOST_SQUARES = 28


def generator(rates: Float[Array, "*B k k"]) -> Float[Array, "*B k k"]:
    """The rate matrix with these rates off its diagonal, whose rows sum to 0; the diagonal of `rates` is not read."""
    off = rates * (1.0 - jnp.eye(rates.shape[-1], dtype=rates.dtype))
    return off - jnp.sum(off, -1)[..., None] * jnp.eye(rates.shape[-1], dtype=rates.dtype)


def transition_probs(
    generator: Float[Array, "*U k k"], gaps: Float[Array, " G"], which: Int[Array, " G"] | None = None
) -> Float[Array, "G k k"]:
    r"""$P(d) = e^{Q d}$ for each gap d; row i holds the law of the state that follows state i.

    - `which`: for each gap, which of several matrices `generator` holds for it.

    By uniformisation and squaring: no term is negative, so that small probabilities keep their digits. Differentiable
    in reverse mode, and forwards over that (Hessians), not forwards alone. Beyond $2^{27}$ expected jumps a gap counts
    as that long.
    """
    gaps = jnp.asarray(gaps, generator.dtype)
    exits = -jnp.diagonal(generator, axis1=-2, axis2=-1)
    fastest = jnp.maximum(jnp.max(exits, -1), jnp.finfo(generator.dtype).tiny ** 0.5)
    chosen = (lambda value: value) if which is None else (lambda value: value[which])
    expected = jnp.minimum(gaps * chosen(fastest), 2.0 ** (_MOST_SQUARES - 1))
    halvings = jax.lax.stop_gradient(jnp.maximum(jnp.ceil(jnp.log2(jnp.maximum(expected, 0.25))) + 1, 0))
    jump = jnp.eye(generator.shape[-1], dtype=generator.dtype) + generator / fastest[..., None, None]
    return _squared(_series(jump, expected / 2.0**halvings, chosen), halvings)


def _series(jump: Float[Array, "*U k k"], expected: Float[Array, " G"], chosen: Callable) -> Float[Array, "G k k"]:
    """The mean of powers of `jump` under Poisson numbers of jumps."""
    weight = jnp.exp(-expected)[:, None, None]
    power = jnp.broadcast_to(jnp.eye(jump.shape[-1], dtype=jump.dtype), jump.shape)
    total = weight * chosen(power)
    for n in range(1, _ORDER + 1):
        weight, power = weight * (expected / n)[:, None, None], power @ jump
        total = total + weight * chosen(power)
    return total


def series_and_squares(
    generator: Float[Array, "k k"], gaps: Float[Array, " G"], num_squares: int = 10
) -> Float[Array, "G k k"]:
    """The same by a fixed number of squarings, so that it can be differentiated forwards too.

    Accurate up to 2^(`num_squares` - 1) expected jumps, and to single precision; not only for rows that sum to 0.
    """
    fastest = jax.lax.stop_gradient(jnp.maximum(jnp.max(-jnp.diagonal(generator)), 1e-6))
    expected = gaps * fastest
    halvings = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(expected, 0.25))) + 1, 0, num_squares)
    jump = jnp.eye(len(generator), dtype=generator.dtype) + generator / fastest
    probs = _series(jump, expected / 2.0**halvings, lambda value: value)

    def square(probs, number):
        return jnp.where((number < halvings)[:, None, None], probs @ probs, probs), None

    return jax.lax.scan(square, probs, jnp.arange(num_squares))[0]


@jax.custom_vjp
def _squared(probs: Float[Array, "G k k"], times: Float[Array, " G"]) -> Float[Array, "G k k"]:
    """Each matrix squared so many times; loops are as long as needed, also under `vmap`."""
    return _squares(probs, times)[0]


def _squares(probs: Array, times: Array) -> tuple[Array, Array]:
    def square(state):
        number, probs, before = state
        before = before.at[number].set(probs)
        after = probs @ probs
        after = after / jnp.sum(after, -1, keepdims=True)  # rounding doubles with every square
        return number + 1, jnp.where((number < times)[:, None, None], after, probs), before

    before = jnp.zeros((_MOST_SQUARES, *probs.shape), probs.dtype)
    _, probs, before = jax.lax.while_loop(lambda s: jnp.any(s[0] < times), square, (0, probs, before))
    return probs, before


def _forward(probs: Array, times: Array) -> tuple[Array, tuple[Array, Array]]:
    probs, before = _squares(probs, times)
    return probs, (before, times)


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, None]:
    """Rows sum to 1 in all directions that a rate matrix can take, so that dividing by the sum changes no slope."""
    before, times = saved

    def unsquare(state):
        number, slope = state
        transposed = jnp.swapaxes(before[number - 1], -1, -2)
        earlier = transposed @ slope + slope @ transposed
        return number - 1, jnp.where((number <= times)[:, None, None], earlier, slope)

    last = jnp.max(times).astype(int)
    return jax.lax.while_loop(lambda s: s[0] > 0, unsquare, (last, slope))[1], None


_squared.defvjp(_forward, _backward)


def limit_law(generator: Float[Array, "k k"], start: Float[Array, " k"] | None = None) -> Float[Array, " k"]:
    """The law after very long: the stationary one, and for reducible chains that reached from `start` (uniform)."""
    size = len(generator)
    start = jnp.full(size, 1.0 / size, generator.dtype) if start is None else start
    fastest = jnp.maximum(jnp.max(-jnp.diagonal(generator)), jnp.finfo(generator.dtype).tiny ** 0.5)
    half = jnp.eye(size, dtype=generator.dtype) + generator / (2 * fastest)

    def square(probs, _):
        probs = probs @ probs
        return probs / jnp.sum(probs, -1, keepdims=True), None

    return start @ jax.lax.scan(square, half, None, length=48)[0]


def check_generator(value: ArrayLike, name: str = "generator") -> Float[np.ndarray, "k k"]:
    """As a float64 matrix; raises `ValueError` for one that is not a rate matrix."""
    found = np.asarray(value, float)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or len(found) < 2:
        raise ValueError(f"`{name}` must be a square matrix of 2 states or more; got shape {found.shape}.")
    off = found - np.diag(np.diag(found))
    if not np.isfinite(found).all() or (off < 0).any():
        row, column = np.argwhere(~np.isfinite(found) | (off < 0))[0]
        raise ValueError(
            f"`{name}` must have finite rates, 0 or more, off its diagonal; entry [{row}, {column}] is "
            f"{found[row, column]}."
        )
    wrong = np.abs(found.sum(1)) > 1e-4 * (1 + off.sum(1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Rows of `{name}` must sum to 0, the diagonal being minus the sum of the other rates; row {row} sums to "
            f"{found[row].sum():g}. From rates alone: `generator(rates)`."
        )
    return off - np.diag(off.sum(1))
