"""Does the model fit? Prevalences, and jumps over several rows, observed against expected."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from posterax._precision import precision
from scipy.stats import chi2

from ._estimator import MJPLikelihood
from ._generators import transition_probs
from ._panel import SNAPSHOT, PanelData, as_panel


def prevalence(
    fitted: MJPLikelihood, data: PanelData, times: ArrayLike, until: ArrayLike | None = None
) -> pd.DataFrame:
    """How many subjects are in each state at some times since their first row, observed and expected.

    Observed: the state of the nearest row (an exact time counts from then on), of subjects whose last row is not past,
    or whose last state is never left. Expected: from their first states by the fitted rates, of as many. One row a time
    and state: "time", "state", "at_risk", "observed", "expected".

    - `until`: `(K,)`, how long each would have been followed, since its first row. Without it the dead count for ever
      and the living until they leave the study, so that late shares of the dead are too high.

    Raises `ValueError` for hidden states and for covariates.
    """
    panel, known = _plain(fitted, data), fitted.fitted()
    times = np.atleast_1d(np.asarray(times, float))
    first = np.flatnonzero(~panel.follows)
    last = np.append(first[1:], len(panel.time)) - 1
    since = panel.time - np.repeat(panel.time[first], last - first + 1)
    halfway = since - np.where(panel.follows & (panel.kind == SNAPSHOT), np.diff(since, prepend=0.0) / 2, 0.0)
    stays = fitted.rates.sum(1) == 0
    limit = np.broadcast_to(np.inf if until is None else np.asarray(until, float), len(last))
    with precision(64):
        steps = np.asarray(transition_probs(jnp.asarray(fitted.generator), jnp.asarray(times)))
    rows = []
    for time, step in zip(times, steps, strict=True):
        risk = ((since[last] >= time) | stays[panel.state[last]]) & (limit >= time)
        counted = np.add.reduceat((halfway <= time).astype(int), first)
        now = panel.state[first + counted - 1]
        observed = np.bincount(now[risk], minlength=len(known.states))
        expected = np.bincount(panel.state[first][risk], minlength=len(known.states)) @ step
        for state, seen, wanted in zip(known.states, observed, expected, strict=True):
            rows.append({"time": time, "state": state, "at_risk": int(risk.sum()), "observed": int(seen),
                         "expected": float(wanted)})  # fmt: skip
    return pd.DataFrame(rows)


def chapman_kolmogorov(fitted: MJPLikelihood, data: PanelData, steps: Sequence[int] = (1, 2, 4)) -> pd.DataFrame:
    """Jumps over some rows at once, that do not overlap: observed, and expected of a Markov process with these rates.

    One row a number of steps and pair of states: "steps", "from", "to", "observed", "expected", "z"; standard scores,
    normal where counts are not small. For data that were not fitted, or are many.

    Raises `ValueError` for hidden states, covariates, and exact times (these depend on the path).
    """
    panel, known = _plain(fitted, data), fitted.fitted()
    if (panel.kind != SNAPSHOT).any():
        raise ValueError("Exact times depend on the path: transitions over several rows have no simple expectation.")
    first = np.flatnonzero(~panel.follows)
    place = np.arange(len(panel.time)) - np.repeat(first, np.diff(np.append(first, len(panel.time))))
    size, rows = len(known.states), []
    for step in steps:
        ends = np.flatnonzero((place >= step) & (place % step == 0))
        starts = ends - step
        gaps, which = np.unique(np.round(panel.time[ends] - panel.time[starts], 12), return_inverse=True)
        with precision(64):
            probs = np.asarray(transition_probs(jnp.asarray(fitted.generator), jnp.asarray(gaps)))
        observed, expected, variance = (np.zeros((size, size)) for _ in range(3))
        np.add.at(observed, (panel.state[starts], panel.state[ends]), 1)
        each = probs[which.ravel(), panel.state[starts]]
        np.add.at(expected, panel.state[starts], each)
        np.add.at(variance, panel.state[starts], each * (1 - each))
        score = np.divide(observed - expected, np.sqrt(variance), where=variance > 0, out=np.zeros_like(variance))
        for i, j in np.ndindex(size, size):
            rows.append({"steps": step, "from": known.states[i], "to": known.states[j], "observed": int(observed[i, j]),
                         "expected": expected[i, j], "z": score[i, j]})  # fmt: skip
    return pd.DataFrame(rows)


def pearson(table: pd.DataFrame, least: float = 5.0) -> tuple[float, int, float]:
    """Pearson's statistic of a table of one number of steps, degrees of freedom without those of fitted rates, p-value.

    - `least`: rows expected less often are left out.
    """
    expected, observed = (table[name].to_numpy(float) for name in ("expected", "observed"))
    often = expected >= least
    statistic = float(((observed - expected)[often] ** 2 / expected[often]).sum())
    freedom = max(int(often.sum()) - len(set(table["from"].to_numpy()[often])), 1)
    return statistic, freedom, float(chi2.sf(statistic, freedom))


def _plain(fitted: MJPLikelihood, data: PanelData) -> PanelData:
    panel = as_panel(data, "data")
    known = fitted.fitted()
    if not panel.is_known:
        raise ValueError("States must be known at all rows; `likeliest_paths` tells them where they are hidden.")
    if known.covariate_names:
        raise ValueError("Rates depend on covariates: fit without them, or by group, for this table.")
    if panel.states != known.states:
        raise ValueError(f"`data` must have the states {list(known.states)}; got {list(panel.states)}.")
    return panel
