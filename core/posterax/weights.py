r"""Weighted draws: their arithmetic, diagnostics and resampling.

Everything acts on one vector of log-weights $\ell$, `(n,)`, with any constant added and `-inf` for no weight;
use `jax.vmap` for many. With $W_i = e^{\ell_i} / \sum_j e^{\ell_j}$ the normalised weights. All but
`pareto_k` and `smooth` can be jitted, and those that return floats differentiated.

Two things can be wrong with a vector of weights, and nothing here hides them:

- no weight at all (every entry `-inf`): `log_mean` is `-inf`, `effective_sample_size` and `entropy` are 0,
  `normalise` returns its input, statistics of draws are NaN, `pareto_k` is NaN, resamplers return -1
  everywhere;
- not a weight (any entry NaN or `+inf`): all results are NaN, ancestors -1.

A vector that is not one-dimensional, or empty, raises `ValueError`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._arviz import psis
from ._precision import in_float64
from ._resampling import SSP as SSP
from ._resampling import AbstractResampler as AbstractResampler
from ._resampling import Multinomial as Multinomial
from ._resampling import Residual as Residual
from ._resampling import Stratified as Stratified
from ._resampling import Systematic as Systematic
from ._resampling import as_vector, check_vector, whole_weights

__all__ = [
    "SSP",
    "AbstractResampler",
    "Multinomial",
    "Residual",
    "Stratified",
    "Systematic",
    "effective_sample_size",
    "entropy",
    "log_mean",
    "mcse_of_mean",
    "normalise",
    "pareto_k",
    "smooth",
    "weighted_mean",
    "weighted_quantile",
    "weighted_sd",
]

_WIDEST_TAIL = 300.0  # nats: the generalised Pareto fit works with weights themselves, whose exponents end at 708


def normalise(log_weights: Float[ArrayLike, " n"]) -> Float[Array, " n"]:
    """The log-weights shifted so that the weights sum to one."""
    log_weights, shift, total = _sum(log_weights)
    return jnp.where(total == 0, -jnp.inf, log_weights - (shift + jnp.log(jnp.where(total == 0, 1, total))))


def log_mean(log_weights: Float[ArrayLike, " n"]) -> Float[Array, ""]:
    """Log of the mean weight, in nats: of weights p/q at draws from q, the log-evidence (or its increment).

    The mean itself is unbiased; its logarithm is low by about `1 / (2 effective_sample_size)`.
    """
    log_weights, shift, total = _sum(log_weights)
    log_total = shift + jnp.log(jnp.where(total == 0, 1, total)) - np.log(log_weights.size)
    return jnp.where(total == 0, -jnp.inf, log_total)


def effective_sample_size(log_weights: Float[ArrayLike, " n"]) -> Float[Array, ""]:
    r"""$1 / \sum_i W_i^2$, from 1 (one draw has all the weight) to n (equal weights). Source: Kong (1992).

    It sees only the weights at hand: it can be high where the draws miss a part of the target. Read
    `pareto_k` too.
    """
    weights = _weights(log_weights)
    squares = jnp.sum(weights**2)
    return jnp.where(squares == 0, 0, jnp.clip(1 / jnp.where(squares == 0, 1, squares), 1, weights.size))


def entropy(log_weights: Float[ArrayLike, " n"], normalised: bool = True) -> Float[Array, ""]:
    r"""Shannon entropy $-\sum_i W_i \log W_i$ of the weights, divided by $\log n$ if `normalised`.

    Normalised it runs from 0 (one draw has all the weight) to 1 (equal weights); a single draw has 1, its
    weights being equal. Otherwise it is in nats, from 0 to $\log n$.
    """
    weights = _weights(log_weights)
    n = weights.size
    value = jnp.clip(-jnp.sum(weights * jnp.log(jnp.where(weights == 0, 1, weights))), 0, np.log(n))
    if normalised:  # n = 1: the total is one, zero or NaN, as the answer should be
        value = value / np.log(n) if n > 1 else jnp.sum(weights)
    return value


def weighted_mean(values: PyTree, log_weights: Float[ArrayLike, " n"]) -> PyTree[Float[Array, "..."]]:
    """Mean of each leaf over its leading axis: the self-normalised importance sampling estimate.

    - `values`: arrays `(n, ...)`. Draws of no weight do not count, even where they are not finite.

    Raises `ValueError` for a leaf with another leading axis.
    """
    return _reduce(lambda x, _, weights: _total(weights, x), values, log_weights)


def weighted_sd(values: PyTree, log_weights: Float[ArrayLike, " n"]) -> PyTree[Float[Array, "..."]]:
    r"""Standard deviation of each leaf, $\sqrt{\sum_i W_i (x_i - \bar x)^2}$, of the weighted draws as they
    are.

    Not corrected for few draws: with equal weights it is NumPy's `std`. Arguments and errors as in
    `weighted_mean`.
    """
    return _reduce(lambda x, mean, weights: jnp.sqrt(_total(weights, (x - mean) ** 2)), values, log_weights)


def mcse_of_mean(values: PyTree, log_weights: Float[ArrayLike, " n"]) -> PyTree[Float[Array, "..."]]:
    r"""Monte Carlo standard error of `weighted_mean`, $\sqrt{\sum_i W_i^2 (x_i - \bar x)^2}$, for independent
    draws.

    The delta method for self-normalised importance sampling: right for many draws and weights of finite
    variance, far too small where few draws hold the weight (0 for a single one). Trust it only where
    `pareto_k` is below 0.7. Arguments and errors as in `weighted_mean`. Source: Geweke (1989),
    doi:10.2307/1913710; Owen (2013), eq. 9.9.
    """
    return _reduce(lambda x, mean, weights: jnp.sqrt(_total(weights**2, (x - mean) ** 2)), values, log_weights)


def weighted_quantile(values: PyTree, q: Float[ArrayLike, "*q"], log_weights: Float[ArrayLike, " n"]) -> PyTree[Array]:
    r"""The smallest draw $x$ with $\sum_{i: x_i \le x} W_i \ge q$, entry by entry: `(*q, ...)` for a leaf
    `(n, ...)`.

    The inverse of the weighted distribution function, with nothing interpolated: always one of the draws, the
    same whether a draw has double weight or occurs twice, NumPy's `method="inverted_cdf"`. q = 0 and 1 give
    the smallest and the largest draw that has weight. A sum short of q by a relative 2e-7 counts as q, so
    that rounding moves no tie. A leaf in which a NaN has weight gives NaN.

    - `values`: arrays `(n, ...)` of real numbers or booleans.
    - `q`: probabilities, of any shape.

    Raises `ValueError` for a `q` outside [0, 1] (NaN where it is traced), and as `weighted_mean`.
    """
    if not isinstance(q, Tracer) and not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
        raise ValueError(f"`q` must be probabilities, from 0 to 1; got {q}.")
    log_weights, q = as_vector(log_weights), jnp.asarray(q, jnp.result_type(float))
    valid = jnp.isfinite(jnp.max(log_weights))

    def one(x):
        order = jnp.argsort(x, axis=0)
        index = _quantile_index(jax.lax.stop_gradient(log_weights), order, jax.lax.stop_gradient(q.ravel()))
        found = jnp.take_along_axis(x, index, axis=0).reshape(q.shape + x.shape[1:])
        has_weight = (log_weights > -jnp.inf).reshape(-1, *[1] * (x.ndim - 1))
        good = valid & ~jnp.any(has_weight & jnp.isnan(x), axis=0)
        in_range = ((q >= 0) & (q <= 1)).reshape(q.shape + (1,) * (x.ndim - 1))
        return jnp.where(good & in_range, found, jnp.nan)

    return jax.tree.map(one, _floating(values, log_weights))


@in_float64
def _quantile_index(log_weights, order, q):
    amounts, _ = whole_weights(log_weights, 1, total=62)
    cumulative = jnp.cumsum(amounts[order], axis=0)
    wanted = jnp.ceil(q * (1 - 2.0**-22) * 2.0**62).astype(int)
    wanted = jnp.where(q >= 1, 2**62, jnp.maximum(wanted, 1))
    columns = cumulative.reshape(cumulative.shape[0], -1)
    rank = jax.vmap(lambda column: jnp.searchsorted(column, wanted), in_axes=1, out_axes=1)(columns)
    rank = rank.reshape(q.shape + order.shape[1:])
    return jnp.take_along_axis(order, jnp.minimum(rank, order.shape[0] - 1), axis=0)


def pareto_k(log_weights: Float[ArrayLike, " n"]) -> float:
    """The k-hat of Pareto-smoothed importance sampling: how heavy the tail of the weights is. NumPy, on the
    host.

    Below `min(0.7, 1 - 1 / log10(n))` weighted estimates can be trusted, from 1 on they have no mean.
    Estimated on the draws that have weight. Two values say more than a number:

    - `-inf`: no tail. The largest weight is shared by more draws than a tail has (equal weights, for
      instance).
    - NaN: cannot be said. Fewer than 25 draws have weight, or the tail has fewer than five different weights,
      or there is a NaN. Not below any threshold, so a test `k < 0.7` fails, as it should.

    Source: Vehtari et al. (2024), "Pareto smoothed importance sampling"; computed by ArviZ.
    """
    return smooth(log_weights)[1]


def smooth(log_weights: Float[ArrayLike, " n"]) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log-weights, `(n,)` in float64 and normalised, and `pareto_k`. NumPy, on the host.

    The largest weights are replaced by quantiles of the generalised Pareto distribution fitted to them, which
    trades a little bias for less variance. Draws without weight stay so. Where `pareto_k` is `-inf` or NaN,
    nothing is smoothed; nor where the tail spans more than 300 nats, too many for the fit: there k is Hill's
    estimate (1975), the mean of the tail's log-weights above its threshold, and far above 1.
    """
    given = np.asarray(log_weights, dtype=np.float64)
    check_vector(given.shape)
    largest = given.max()
    if not np.isfinite(largest):  # no weight, or not a weight
        return (given.copy() if largest == -np.inf else np.full_like(given, np.nan)), np.nan
    positive = given > -np.inf
    kept = given[positive] - largest
    ordered = np.sort(kept)
    tail = int(min(kept.size // 5, 3 * kept.size**0.5))
    smoothed, k = kept, np.nan
    if tail >= 5 and ordered[-tail - 1] == 0:
        k = -np.inf
    elif tail >= 5 and np.unique(ordered[-tail:]).size >= 5:
        if -ordered[-tail - 1] > _WIDEST_TAIL:
            attempt, k = kept, float(np.mean(ordered[-tail:] - ordered[-tail - 1]))
        else:
            attempt, k = psis(kept)
        smoothed = attempt if np.isfinite(k) else kept
        k = k if np.isfinite(k) else np.nan
    result = np.full_like(given, -np.inf)
    result[positive] = smoothed - np.logaddexp.reduce(smoothed)
    return result, k


def _sum(log_weights) -> tuple[Array, Array, Array]:
    """The log-weights, a shift that is safe to subtract, and the sum of the weights after it."""
    log_weights = as_vector(log_weights)
    largest = jax.lax.stop_gradient(jnp.max(log_weights))
    shift = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jnp.sum(jnp.exp(log_weights - shift))
    return log_weights, shift, jnp.where(largest == jnp.inf, jnp.nan, total)


def _weights(log_weights) -> Array:
    log_weights, shift, total = _sum(log_weights)
    return jnp.exp(log_weights - shift) / jnp.where(total == 0, 1, total)


def _total(weights, x):
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))
    return jnp.sum(weights * jnp.where(weights == 0, 0, x), axis=0)


def _reduce(statistic, values, log_weights):
    weights = _weights(log_weights)
    empty = jnp.sum(weights) == 0

    def one(x):
        return jnp.where(empty, jnp.nan, statistic(x, _total(weights, x), weights))

    return jax.tree.map(one, _floating(values, weights))


def _floating(values, weights):
    def one(path, x):
        x = jnp.asarray(x)
        if x.shape[:1] != weights.shape:
            where = "values" + jax.tree_util.keystr(path)
            raise ValueError(f"`{where}` must have a leading axis of {weights.size}, the weights; got {x.shape}.")
        return x.astype(jnp.promote_types(x.dtype, weights.dtype))

    return jax.tree_util.tree_map_with_path(one, values)
