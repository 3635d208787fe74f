"""How wrong an answer may be: residuals by the size of the subset, swapped pairs, and slower estimates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.special import logsumexp

from ._law import completed
from ._marginals import Marginals
from ._orders import random_subsets
from ._sampling import log_prob_by_orders

_NEIGHBOURS = 8


class AnswerReport(eqx.Module):
    """Log marginals with what is known of their errors, one entry a query, all in nats.

    - `log_marginal`: the network's, in one pass. `by_orders`: of the average probability over chained conditionals in
      `num_orders` random orders, |S| passes each: slower, and by the other network. `order_sd`: between single orders.
    - `residual`: rms of $\\log p(x_{S'}) + \\log p(x_d | x_{S'}) - \\log p(x_{S' + d})$ at neighbours of the query.
    - `swap`: rms difference of two conditionals chained in either order, near the query; the marginals have no part.
    - `outside`: less likely than what training has seen of subsets of that size: a guess.
    - `num_observed`: |S|.
    """

    log_marginal: np.ndarray
    by_orders: np.ndarray
    order_sd: np.ndarray
    residual: np.ndarray
    swap: np.ndarray
    outside: np.ndarray
    num_observed: np.ndarray
    num_orders: int

    def frame(self) -> pd.DataFrame:
        """One row a query."""
        names = ("num_observed", "log_marginal", "by_orders", "order_sd", "residual", "swap", "outside")
        return pd.DataFrame({name: np.ravel(getattr(self, name)) for name in names})

    @property
    def words(self) -> str:
        """The gist in a sentence or two."""
        off = np.abs(self.log_marginal - self.by_orders)
        said = (
            f"{off.size} queries: one pass and {self.num_orders} orders differ by {np.median(off):.3g} nats (median), "
            f"{np.max(off):.3g} at most; residuals {np.median(self.residual):.3g}, swaps {np.median(self.swap):.3g}."
        )
        count = int(np.sum(self.outside))
        return said + (f" {count} are outside of what training has seen." if count else "")


def answer_errors(
    model: Marginals, x: Array, observed: Array, num_orders: int, *, key: PRNGKeyArray
) -> dict[str, np.ndarray]:
    """`by_orders`, `order_sd`, `residual` and `swap` of queries, `(n, D)`; see `AnswerReport`."""
    one, two, three = jr.split(key, 3)
    orders = np.asarray(by_orders(model, x, observed, num_orders, key=one), float)
    full = completed(model, x, observed, key=two)[0]
    residual, swap = _near(model, full, observed, key=three)
    return {
        "by_orders": logsumexp(orders, 0) - np.log(num_orders),
        "order_sd": orders.std(0, ddof=1) if num_orders > 1 else np.full(len(x), np.nan),
        "residual": np.sqrt(np.mean(np.asarray(residual, float) ** 2, 0)),
        "swap": np.sqrt(np.mean(np.asarray(swap, float) ** 2, 0)),
    }


def errors_by_size(
    model: Marginals, x: Int[Array, "n D"], log_weight: Any = None, *, key: PRNGKeyArray
) -> pd.DataFrame:
    """Root mean square residual and swap, by the number of variables observed: bins of at least D / 32 sizes.

    - `x`: full assignments, of which random subsets are looked at.
    """
    one, two = jr.split(key)
    observed = random_subsets(x.shape, key=one)
    residual, swap = (np.asarray(found, float) for found in _near(model, x, observed, key=two, log_weight=log_weight))
    size = np.asarray(observed).sum(-1)
    width = max(1, -(-x.shape[1] // 32))
    bins = size // width * width
    rows = []
    for start in np.unique(bins):
        rms = [float(np.sqrt(np.mean(found[:, bins == start] ** 2))) for found in (residual, swap)]
        rows.append({"num_observed": int(start), "residual": rms[0], "swap": rms[1]})
    return pd.DataFrame(rows)


@eqx.filter_jit
def by_orders(model: Marginals, x: Array, observed: Array, num: int, *, key: PRNGKeyArray) -> Array:
    """Log p(x_S) of rows along random orders, `(num, n)`."""
    return log_prob_by_orders(model, x, observed, jnp.zeros_like(observed), num, key=key)


@eqx.filter_jit
def _near(
    model: Marginals, x: Int[Array, "n D"], observed: Bool[Array, "n D"], *, key: PRNGKeyArray, log_weight: Any = None
) -> tuple[Float[Array, "m n"], Float[Array, "m n"]]:
    """Residuals of adding or removing a random variable, and swaps of a random pair, at each query."""

    def height(state):
        told = jax.vmap(model.log_marginal)(x, state)
        return told if log_weight is None else jnp.where(state.all(-1), log_weight(x), told)

    def conditional(state, d):
        logs = jax.vmap(model.log_probs)(x, state)
        at = jnp.arange(len(x))
        return logs[at, d, x[at, d]]

    def one(key):
        ranks = jnp.argsort(jr.uniform(key, x.shape), -1)
        d, e = ranks[:, 0], ranks[:, -1]
        columns = jnp.arange(x.shape[1])
        first, second = columns == d[:, None], columns == e[:, None]
        below = observed & ~first
        residual = height(below) + conditional(below, d) - height(below | first)
        base = observed & ~first & ~second
        one_way = conditional(base, d) + conditional(base | first, e)
        other_way = conditional(base, e) + conditional(base | second, d)
        return residual, jnp.where(d == e, 0.0, one_way - other_way)

    return jax.lax.map(one, jr.split(key, _NEIGHBOURS))
