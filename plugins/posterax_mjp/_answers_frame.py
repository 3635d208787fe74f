"""Estimates with their intervals, as tables."""

from typing import Any

import jax
import numpy as np
import pandas as pd
from posterax import Draws
from scipy.special import expit
from scipy.stats import norm

from ._knowledge import Knowledge

_SCALES = {"rates": "log", "hazard_ratios": "log", "noise": "logit", "initial_law": "logit", "sds": "log"}


def interval_table(known: Knowledge, draws: Draws | None, level: float) -> pd.DataFrame:
    """One row a number: "estimate", "lower", "upper", indexed by ("what", "which")."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1; got {level!r}.")
    estimates = {name: np.asarray(value, float) for name, value in known.told(known.parameters).items()}
    bounds = _normal(known, level) if draws is None else _quantiles(draws, level)
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for name, estimate in estimates.items():
        low, high = (np.ravel(bound[name]) for bound in bounds)
        for which, value, lower, upper in zip(_which(known, name, estimate), estimate.ravel(), low, high, strict=True):
            rows[name, which] = {"estimate": value, "lower": lower, "upper": upper}
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(rows, names=["what", "which"])
    return found


def _normal(known: Knowledge, level: float) -> tuple[dict, dict]:
    """By the delta method on the scale on which a number is free."""
    vector, unravel = known.vector()
    reach = norm.ppf(0.5 + level / 2)

    def scaled(vector: Any) -> dict:
        told = known.told(unravel(vector))
        return {name: _free(name, value, jax.numpy) for name, value in told.items()}

    middle = {name: np.asarray(value, float) for name, value in scaled(vector).items()}
    slopes = jax.jacfwd(scaled)(vector)
    low, high = {}, {}
    for name, value in middle.items():
        slope = np.asarray(slopes[name], float)
        sd = np.sqrt(np.maximum(np.einsum("...p,pq,...q->...", slope, np.asarray(known.covariance), slope), 0.0))
        sd = np.where(sd > 0, sd, np.nan)
        low[name], high[name] = (_back(name, value + side * reach * sd) for side in (-1, 1))
    return low, high


def _quantiles(draws: Draws, level: float) -> tuple[dict, dict]:
    low, high = (draws.quantile((1 + side * level) / 2) for side in (-1, 1))
    return low, high


def _free(name: str, value: Any, numpy: Any) -> Any:
    scale = _SCALES.get(name)
    if scale == "log":
        return numpy.log(value)
    return numpy.log(value) - numpy.log1p(-value) if scale == "logit" else value


def _back(name: str, value: np.ndarray) -> np.ndarray:
    scale = _SCALES.get(name)
    return np.exp(value) if scale == "log" else expit(value) if scale == "logit" else value


def _which(known: Knowledge, name: str, value: np.ndarray) -> list[str]:
    if name == "rates":
        return list(known.edge_names)
    if name == "hazard_ratios":
        return [f"{edge}: {covariate}" for edge in known.edge_names for covariate in known.covariate_names]
    if value.shape == (len(known.states),):
        return list(known.states)
    return [str(n) if value.size > 1 else "" for n in range(value.size)]
