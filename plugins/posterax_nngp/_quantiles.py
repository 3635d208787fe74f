"""Quantiles of predictive marginals: Student-t and normal by SciPy, mixtures by bisection."""

from typing import Any

import numpy as np
import numpyro.distributions as dist


def quantiles(marginals: Any, q: Any) -> np.ndarray:
    """`(*q.shape, *batch)` of a batch of laws of one number. Raises `ValueError` for probabilities outside (0, 1)."""
    from scipy import stats

    q = np.asarray(q, dtype=np.float64)
    if not np.all((q > 0) & (q < 1)):
        raise ValueError(f"`q` must be probabilities between 0 and 1; got {q}.")
    base = marginals
    column = q.reshape(q.shape + (1,) * len(base.batch_shape))
    if isinstance(base, dist.StudentT):
        found = stats.t.ppf(column, np.asarray(base.df), np.asarray(base.loc), np.asarray(base.scale))
    elif isinstance(base, dist.Normal):
        found = stats.norm.ppf(column, np.asarray(base.loc), np.asarray(base.scale))
    else:
        found = _of_mixture(base, column)
    return found


def _of_mixture(base: Any, q: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr, ndtri

    weights = np.exp(np.asarray(base.mixing_distribution.logits))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    loc, sd = (np.asarray(getattr(base.component_distribution, name)) for name in ("loc", "scale"))
    each = loc + sd * ndtri(q)[..., None]  # the mixture's quantile lies among those of its components
    low, high = each.min(axis=-1), each.max(axis=-1)
    for _ in range(60):
        middle = (low + high) / 2
        below = np.sum(weights * ndtr((middle[..., None] - loc) / sd), axis=-1) < q
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
