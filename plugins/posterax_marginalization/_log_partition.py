"""log Z of an energy three ways, and draws weighted by it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from posterax import Draws
from posterax._labels import Labels
from posterax.weights import effective_sample_size, pareto_k

from ._columns import Columns
from ._energy import Energy
from ._law import completed
from ._marginals import Marginals


class LogPartition(NamedTuple):
    """Estimates of log Z, in nats.

    - `learned`: the network's log marginal of nothing; NaN where the objective does not learn it.
    - `lower_bound`: mean of log f - log q over draws of the conditionals q, with its standard error `bound_error`.
    - `importance`: log of the mean of f / q, unbiased for Z; `standard_error` from the weights' variance.
    - `ess`: effective sample size of these weights. `k_hat`: their Pareto k-hat; above 0.7 they cannot be trusted.
    """

    learned: float
    lower_bound: float
    bound_error: float
    importance: float
    standard_error: float
    ess: float
    k_hat: float


def weighted(
    model: Marginals, energy: Energy, x: Array, observed: Array, *, key: PRNGKeyArray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Completed rows, log f of them, and log weights log f - log q."""
    full, log_q = completed(model, x, observed, key=key)
    log_f = np.asarray(jax.jit(energy.__call__)(full), float)
    return np.asarray(full), log_f, log_f - np.asarray(log_q, float)


def log_partition(model: Marginals, energy: Energy, learned: float, num: int, *, key: PRNGKeyArray) -> LogPartition:
    """See `LogPartition`."""
    nothing = jnp.zeros((num, model.size), jnp.int32)
    _, _, logs = weighted(model, energy, nothing, nothing.astype(bool), key=key)
    top = logs.max()
    ratio = np.exp(logs - top)
    return LogPartition(
        learned,
        float(logs.mean()),
        float(logs.std(ddof=1) / np.sqrt(num)),
        float(top + np.log(ratio.mean())),
        float(ratio.std(ddof=1) / ratio.mean() / np.sqrt(num)),
        float(effective_sample_size(jnp.asarray(logs - top))),
        float(pareto_k(jnp.asarray(logs - top))),
    )


def corrected(
    model: Marginals, energy: Energy, columns: Columns, x: Array, observed: Array, *, key: PRNGKeyArray
) -> Draws:
    """Draws of the energy's law given some values, weighted; see `MarginalizationModel.corrected`."""
    full, log_f, logs = weighted(model, energy, x, observed, key=key)
    top = logs.max()
    return Draws(
        values={"x": full[None]},
        stats={},
        log_weights=logs[None],
        log_density=log_f[None],
        log_evidence=np.array([top + np.log(np.mean(np.exp(logs - top)))]),
        labels=labels_of(columns),
    )


def labels_of(columns: Columns) -> Labels:
    """Names of the variables, for ArviZ."""
    return Labels({"x": ["variable"]}, {"variable": list(columns.names)})
