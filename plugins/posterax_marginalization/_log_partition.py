"""log Z of an energy three ways, and draws weighted by it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, PRNGKeyArray
from posterax import Draws
from posterax._labels import Labels
from scipy.special import logsumexp

from ._columns import Columns
from ._energy import Energy, log_weights
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


def log_partition(draws: Draws, learned: float) -> LogPartition:
    """Of draws of `corrected` of which nothing was given; see `LogPartition`."""
    assert draws.log_weights is not None
    assert draws.log_evidence is not None
    logs = draws.log_weights[0]
    ratio, root = np.exp(logs - draws.log_evidence[0]), np.sqrt(len(logs))
    return LogPartition(
        learned,
        float(logs.mean()),
        float(logs.std(ddof=1) / root),
        float(draws.log_evidence[0]),
        float(ratio.std(ddof=1) / root),
        draws.effective_sample_size(),
        draws.pareto_k(),
    )


def corrected(
    model: Marginals, energy: Energy, columns: Columns, x: Array, observed: Array, *, key: PRNGKeyArray
) -> Draws:
    """Draws of the energy's law given some values, weighted; see `MarginalizationModel.corrected`."""
    full, log_q = completed(model, x, observed, key=key)
    log_f = np.asarray(log_weights(energy, full), float)
    logs = log_f - np.asarray(log_q, float)
    return Draws(
        values={"x": np.asarray(full)[None]},
        stats={},
        log_weights=logs[None],
        log_density=log_f[None],
        log_evidence=np.array([logsumexp(logs) - np.log(len(logs))]),
        labels=labels_of(columns),
    )


def labels_of(columns: Columns) -> Labels:
    """Names of the variables, for ArviZ."""
    return Labels({"x": ["variable"]}, {"variable": list(columns.names)})
