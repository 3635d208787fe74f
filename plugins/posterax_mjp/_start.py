"""Where searches begin: rates by counting, and what data cannot tell."""

import numpy as np
from jaxtyping import Bool, Float

from ._answers import reachable
from ._panel import EXACT, SNAPSHOT, PanelData


def crude_rates(panel: PanelData, num_states: int) -> Float[np.ndarray, "k k"]:
    """Pairs of successive states over the time spent in the first; what is unseen counts as a tenth of a jump."""
    levels = None if panel.signal is None else _levels(panel, num_states)
    state, ends = panel.state if levels is None else levels, panel.known_pairs(levels)
    gaps, starts = np.diff(panel.time, prepend=0.0)[ends], state[ends - 1]
    counts, time = np.zeros((num_states, num_states)), np.zeros(num_states)
    np.add.at(counts, (starts, state[ends]), 1.0)
    np.add.at(time, starts, gaps)
    typical = time.sum() / max(len(time), 1) or panel.horizon or 1.0
    rates = (counts + 0.1) / np.where(time > 0, time, typical)[:, None]
    np.fill_diagonal(rates, 0.0)
    return rates


def _levels(panel: PanelData, num_states: int) -> np.ndarray:
    signal = np.asarray(panel.signal)
    seen = np.isfinite(signal)
    edges = np.quantile(signal[seen], np.arange(1, num_states) / num_states)
    return np.where(seen, np.searchsorted(edges, np.where(seen, signal, 0.0)), -1)


def check_possible(panel: PanelData, allowed: Bool[np.ndarray, "k k"]) -> None:
    """Raise `ValueError` for the first pair of known rows that no path on the allowed edges can make."""
    size = len(allowed)
    reach = reachable(allowed)
    entered = (reach.astype(float) @ (allowed & ~np.eye(size, dtype=bool))) > 0
    jumps = allowed | np.eye(size, dtype=bool)
    now, ends = panel.state, panel.known_pairs()
    start, end, kind = now[ends - 1], now[ends], panel.kind[ends]
    fine = np.where(
        kind == EXACT, jumps[start, end], np.where(kind == SNAPSHOT, reach[start, end], entered[start, end])
    )
    if (bad := np.flatnonzero(~fine)).size:
        row, i, j = ends[bad[0]], panel.states[start[bad[0]]], panel.states[end[bad[0]]]
        raise ValueError(
            f"Row {panel.row[row]} (subject {panel.subjects[panel.subject[row]]}, time {panel.time[row]:g}): state "
            f"{j} after {i} is impossible on the allowed edges. Allow the jumps that lead there, or say that labels "
            "may be wrong: `emission=FlippedLabels()`."
        )


def undetermined_states(panel: PanelData, allowed: Bool[np.ndarray, "k k"]) -> list[str]:
    """States with exits in the model of which the data have no sojourn."""
    starts = panel.state[np.flatnonzero(panel.follows) - 1]
    never = ~np.isin(np.arange(len(allowed)), starts)
    return [panel.states[d] for d in np.flatnonzero(never & allowed.any(1))]
