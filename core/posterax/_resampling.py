"""Resampling schemes: which draws to keep, and how often, in proportion to their weights."""

import abc
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ._precision import in_float64
from ._prefix_sum import BLOCK, prefix_sum


class AbstractResampler(eqx.Module):
    """Makes equally weighted draws of weighted ones, without bias: i has `num * W_i` copies on average."""

    @abc.abstractmethod
    def __call__(
        self, log_weights: Float[ArrayLike, " n"], *, key: PRNGKeyArray, num: int | None = None
    ) -> Int[Array, " num"]:
        """The ancestors: which draws to keep, as indices (int32), one for each new draw.

        - `num`: how many, a Python int; as many as there are weights when None.

        A draw without weight is never an ancestor. All entries are -1 where the weights are unusable (none
        positive, or any NaN or `+inf`): there is nothing to fall back on that would not be wrong. Note that
        JAX reads an index of -1 as the last entry, so test `ancestors[0] >= 0`, or `log_mean(log_weights) >
        -inf`, before using them.

        Raises `ValueError` for a `num` below 1.
        """


class _Scheme(AbstractResampler):
    """A resampler in exact integer arithmetic.

    Weight i becomes a whole number of units $a_i$, with $\\sum_i a_i$ = `num` cells of $2^b$ units each, up
    to 2^52 in all: sums of them have no rounding, in any order, not in float64 either, and each cell is a power of
    two, so a few random bits are a uniform point in it. The number of copies then has mean $a_i / 2^b$ exactly. That
    is `num * W_i` to within `num / 2^52` copies (for the heaviest draw, which takes up what rounding leaves over, `n *
    num / 2^52`), whatever the precision JAX is set to. The same key and log-weights give the same ancestors in float32
    and float64 programs.
    """

    def __call__(self, log_weights, *, key, num=None):
        log_weights = as_vector(log_weights)
        num = log_weights.size if num is None else operator.index(num)
        if num < 1:
            raise ValueError(f"`num` must be at least 1; got {num}.")
        return _resample(self, jax.lax.stop_gradient(log_weights), num, key)

    @abc.abstractmethod
    def _below(self, cumulative: Array, bits: int, num: int, key: PRNGKeyArray) -> Array:
        """How many of the chosen points lie below each entry of `cumulative`.

        There are `cumulative[-1] / 2^bits` points, at most `num`.
        """

    def _ancestors(self, cumulative: Array, bits: int, num: int, key: PRNGKeyArray) -> Array:
        # Ancestor j is the number of i with at most j points below the end of i.
        below = self._below(cumulative, bits, num, key)
        room = -(-(num + 1) // BLOCK) * BLOCK
        return prefix_sum(jnp.zeros(room, jnp.int32).at[below].add(1, indices_are_sorted=True), num)[:num]


@in_float64
def _resample(scheme, log_weights, num, key):
    amounts, bits = whole_weights(log_weights, num)
    ancestors = scheme._ancestors(prefix_sum(amounts, num << bits), bits, num, key)
    valid = jnp.isfinite(jnp.max(log_weights))  # the maximum of anything with a NaN is NaN
    return jnp.where(valid, ancestors, -1).astype(jnp.int32)


def whole_weights(log_weights, num: int, total: int = 52):
    """Weights as whole numbers that sum to `num * 2^bits` <= `2^total` exactly, and `bits`. Inside float64 only."""
    bits = total - (num - 1).bit_length()
    largest = jnp.max(log_weights)
    weights = jnp.where(jnp.isfinite(largest), jnp.exp(log_weights - largest), 1)
    amounts = jnp.round(weights * (num * 2.0**bits / jnp.sum(weights))).astype(int)
    # What rounding has left over goes to the largest weight, where it is the smallest part. The first of weight 1 is
    # found by a plain maximum: `argmax` takes ten times as long on a CPU.
    n = weights.size
    first = n - jnp.max(jnp.where(weights == 1, n - jnp.arange(n, dtype=jnp.int32), 0))
    return amounts.at[first].add(num * 2**bits - jnp.sum(amounts)), bits


def _offsets(bits: int, num: int, key):
    """`num` independent points in a cell, uniform on 0, ..., 2^bits - 1."""
    return (jr.bits(key, (num,), jnp.uint64) >> (64 - bits)).astype(int)


def _one_point_a_cell(cumulative, bits: int, offsets):
    cell, rest = cumulative >> bits, cumulative & (2**bits - 1)
    if offsets.size > 1:
        offsets = offsets[jnp.minimum(cell, offsets.size - 1)]  # after the last cell rest = 0: any will do
    return cell + (offsets < rest)


class Multinomial(_Scheme):
    """Independent ancestors, each i with probability $W_i$. Their order is random.

    More variance than any other scheme; for where independence itself is needed.
    """

    def _points(self, cumulative, bits, num, key):
        key_cell, key_offset = jr.split(key)
        cells = (jr.uniform(key_cell, (num,)) * (cumulative[-1] >> bits)).astype(int)
        return jnp.searchsorted(cumulative, (cells << bits) + _offsets(bits, num, key_offset), side="right")

    def _below(self, cumulative, bits, num, key):
        used = jnp.arange(num) < cumulative[-1] >> bits  # independent points: any may be left out
        index = jnp.where(used, self._points(cumulative, bits, num, key), cumulative.size)
        return prefix_sum(jnp.zeros(cumulative.size, jnp.int32).at[index].add(1, mode="drop"), num)

    def _ancestors(self, cumulative, bits, num, key):
        return self._points(cumulative, bits, num, key)


class Stratified(_Scheme):
    r"""One independent uniform point in each of `num` equal cells. Ancestors ascend.

    The first j draws together have $\lfloor x \rfloor$ or $\lceil x \rceil$ copies, $x = \mathrm{num}\sum_{i
    \le j} W_i$; one draw alone can be off `num * W_i` by almost 2. Source: Kitagawa (1996),
    doi:10.1080/10618600.1996.10474692.
    """

    def _below(self, cumulative, bits, num, key):
        return _one_point_a_cell(cumulative, bits, _offsets(bits, num, key))


class Systematic(_Scheme):
    r"""One uniform point, the same in each of `num` equal cells. Ancestors ascend.

    Draw i has $\lfloor x \rfloor$ or $\lceil x \rceil$ copies, $x = \mathrm{num}\, W_i$. Little variance as a
    rule, though it depends on the order of the draws, and there are orders for which it does not converge
    (Gerber, Chopin & Whiteley 2019). Source: Carpenter, Clifford & Fearnhead (1999),
    doi:10.1049/ip-rsn:19990255.
    """

    def _below(self, cumulative, bits, num, key):
        return _one_point_a_cell(cumulative, bits, _offsets(bits, 1, key))


class Residual(_Scheme):
    r"""$\lfloor \mathrm{num}\, W_i \rfloor$ copies of i for certain, the rest by another scheme.

    - `remainder`: `Multinomial()` (the default), `Stratified()` or `Systematic()`, applied to what the
      certain copies have left of the weights.

    Ancestors ascend. Source: Liu & Chen (1998), doi:10.1080/01621459.1998.10473765.
    """

    remainder: AbstractResampler = eqx.field(default_factory=Multinomial)

    def __check_init__(self):
        if not isinstance(self.remainder, (Multinomial, Stratified, Systematic)):
            raise ValueError(
                f"`remainder` must be Multinomial(), Stratified() or Systematic(); got {self.remainder!r}."
            )

    def _below(self, cumulative, bits, num, key):
        amounts = jnp.diff(cumulative, prepend=0)
        certain, rest = amounts >> bits, amounts & (2**bits - 1)
        assert isinstance(self.remainder, _Scheme)
        return prefix_sum(certain, num) + self.remainder._below(
            prefix_sum(rest, cumulative.size << bits), bits, num, key
        )


class SSP(_Scheme):
    r"""Srinivasan sampling process: $\lfloor x \rfloor$ or $\lceil x \rceil$ copies of i, $x =
    \mathrm{num}\,W_i$.

    Numbers of copies are negatively associated, hence it converges whatever the order of the draws, as
    `Systematic` need not. Ancestors ascend.

    Source: Gerber, Chopin & Whiteley (2019), "Negative association, ordering and convergence of resampling
    methods", doi:10.1214/18-AOS1746. There, one draw after the other meets the one draw that is still open,
    with fractions $a$ and $b$ of a copy; one of the two is settled at 0 or 1 and the other stays open with
    the rest. The rest is the running sum of fractions modulo 1, known in advance, so all meetings are decided
    at once instead of in turn.
    """

    def _below(self, cumulative, bits, num, key):
        n, cell = cumulative.size, 2**bits
        amounts = jnp.diff(cumulative, prepend=0)
        b = amounts & (cell - 1)
        a = jnp.concatenate([jnp.zeros(1, int), cumulative[:-1] & (cell - 1)])  # open before i is met
        full = a + b >= cell  # one of the two has a copy settled, otherwise one has none
        chance, out_of = jnp.where(full, cell - b, b), jnp.where(full, (cell - a) + (cell - b), a + b)
        opens = jr.uniform(key, (n,)) * out_of < chance  # i is the one that stays open
        latest = jax.lax.cummax(jnp.where(opens, jnp.arange(n), 0))
        before = jnp.concatenate([jnp.zeros(1, int), latest[:-1]])
        winner = jnp.where(full, jnp.where(opens, before, jnp.arange(n)), n)
        return prefix_sum((amounts >> bits).at[winner].add(1, mode="drop"), num)


def check_vector(shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `shape` is that of one vector of log-weights."""
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"`log_weights` must be one vector, (n,) with n > 0; got {shape}. For many: jax.vmap.")


def as_vector(log_weights: ArrayLike) -> Array:
    """One vector of log-weights, in float32 or better."""
    log_weights = jnp.asarray(log_weights)
    check_vector(log_weights.shape)
    return log_weights.astype(jnp.promote_types(log_weights.dtype, jnp.float32))
