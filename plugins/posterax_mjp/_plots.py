"""Pictures of estimates and of what was observed against what was expected."""

from typing import Any

import numpy as np
import pandas as pd


def plot_intervals(table: pd.DataFrame, level: float = 0.95) -> Any:
    """A matplotlib figure of estimates with their intervals, on a logarithmic axis; `table` as from `MJPLikelihood`."""
    from matplotlib.figure import Figure

    names = [str(which) for _, which in table.index]
    estimate, low, high = (table[name].to_numpy(float) for name in ("estimate", "lower", "upper"))
    figure = Figure(figsize=(6, 0.8 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    drawn = estimate > np.nanmax(estimate) * 1e-6
    axes.hlines(places[drawn], low[drawn], high[drawn], color="#1f77b4", lw=2)
    axes.plot(estimate[drawn], places[drawn], "o", color="#1f77b4")
    axes.set(
        xscale="log", yticks=places, yticklabels=names, xlabel=f"rate per unit of time, with {level:.0%} intervals"
    )
    _plain(axes)
    return figure


def plot_prevalence(table: pd.DataFrame) -> Any:
    """A matplotlib figure of shares in each state, observed and expected; `table` as from `prevalence`."""
    from matplotlib.figure import Figure

    states = list(dict.fromkeys(table["state"]))
    figure = Figure(figsize=(2.6 * len(states), 2.8), layout="constrained")
    for axes, state in zip(np.atleast_1d(figure.subplots(1, len(states), sharey=True)), states, strict=True):
        here = table["state"].to_numpy() == state
        time, risk, observed, expected = (
            table[name].to_numpy(float)[here] for name in ("time", "at_risk", "observed", "expected")
        )
        safe = np.where(risk > 0, risk, np.nan)
        axes.plot(time, observed / safe, "o", ms=3, color="#444444", label="observed")
        axes.plot(time, expected / safe, color="#1f77b4", label="expected")
        axes.set(title=f"state {state}", xlabel="time since the first row")
        _plain(axes)
    figure.axes[0].set_ylabel("share of those followed")
    figure.axes[0].legend(frameon=False)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
