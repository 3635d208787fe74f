"""Rate matrices, and the transition probabilities over a gap of time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

_ORDER = 14  # of the series: its remainder is below 1e-19 where half a jump is expected
_BLOCKS = (4, 4, 8, 12)  # squarings; those that no gap needs are not done


def generator(rates: Float[Array, "*B k k"]) -> Float[Array, "*B k k"]:
    """The rate matrix with these rates off its diagonal, whose rows sum to 0; the diagonal of `rates` is not read."""
    off = rates * (1.0 - jnp.eye(rates.shape[-1], dtype=rates.dtype))
    return off - jnp.sum(off, -1)[..., None] * jnp.eye(rates.shape[-1], dtype=rates.dtype)


def transition_probs(generator: Float[Array, "k k"], gaps: Float[Array, " G"]) -> Float[Array, "G k k"]:
    r"""$P(d) = e^{Q d}$ for each gap d; row i holds the law of the state that follows state i.

    By uniformisation and squaring: no term is negative, so that small probabilities keep their digits, and their logs
    their derivatives, of any order. Beyond $2^{27}$ expected jumps a gap counts as that long.
    """
    fastest = jnp.maximum(jnp.max(-jnp.diagonal(generator)), jnp.finfo(generator.dtype).tiny ** 0.5)
    expected = jnp.minimum(jnp.asarray(gaps, generator.dtype) * fastest, 2.0 ** (sum(_BLOCKS) - 1))
    halvings = jax.lax.stop_gradient(jnp.maximum(jnp.ceil(jnp.log2(jnp.maximum(expected, 0.25))) + 1, 0))
    jump = jnp.eye(len(generator), dtype=generator.dtype) + generator / fastest
    return _squared(_series(jump, expected / 2.0**halvings), halvings)


def _series(jump: Float[Array, "k k"], expected: Float[Array, " G"]) -> Float[Array, "G k k"]:
    """The mean of powers of `jump` under Poisson numbers of jumps."""
    weight, power = jnp.exp(-expected)[:, None, None], jnp.eye(len(jump), dtype=jump.dtype)
    total = weight * power
    for n in range(1, _ORDER + 1):
        weight, power = weight * (expected / n)[:, None, None], power @ jump
        total = total + weight * power
    return total


def _squared(probs: Float[Array, "G k k"], times: Float[Array, " G"]) -> Float[Array, "G k k"]:
    """Each matrix squared so many times."""
    done = 0
    for size in _BLOCKS:

        def block(probs, done=done, size=size):
            def step(probs, number):
                return jnp.where((number < times)[:, None, None], probs @ probs, probs), None

            probs = jax.lax.scan(step, probs, done + jnp.arange(size))[0]
            return probs / jnp.sum(probs, -1, keepdims=True)  # rounding doubles with every square

        probs = jax.lax.cond(jnp.any(times > done), block, lambda probs: probs, probs)
        done += size
    return probs


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
