"""Summaries of panel data, as the network was trained on them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ._denoise import Paths, expected_transitions
from ._intervals import roomy
from ._panel import SNAPSHOT, PanelData
from ._summaries import Summaries, summarise

_MOST_GAPS = 64  # different ones; more are put together


def readable(panel: PanelData) -> PanelData:
    """Rows whose state is known.

    Raises `ValueError` for signals, censored states and exact times, of which a network has seen none, and where
    nothing is told about rates.
    """
    if panel.signal is not None:
        raise ValueError("The network reads labels: turn the signal into states, or use MJPLikelihood.")
    if (panel.kind != SNAPSHOT).any():
        row = np.flatnonzero(panel.kind != SNAPSHOT)[0]
        raise ValueError(
            f"Row {panel.row[row]} (subject {panel.subjects[panel.subject[row]]}) has an exact time: the network reads "
            "snapshots alone. Use MJPLikelihood for exactly timed jumps and deaths."
        )
    if (panel.state >= panel.num_states).any():
        row = np.flatnonzero(panel.state >= panel.num_states)[0]
        raise ValueError(
            f"Row {panel.row[row]} (subject {panel.subjects[panel.subject[row]]}) is censored: the network has seen no "
            "such rows. Use MJPLikelihood."
        )
    panel = _without_missing(panel)
    if not panel.follows.any():
        raise ValueError("No subject was seen twice: nothing is told about rates. Two rows of one are needed.")
    return panel


def summaries_of_panel(panel: PanelData, noise: float | None) -> Summaries:
    """In units of the panel's horizon; its rows must be `readable`.

    - `noise`: the share of wrong labels; None to estimate it.
    """
    size = panel.num_states
    gaps, which = _binned(panel.gaps / panel.horizon)
    ends = np.flatnonzero(panel.follows)
    counts = np.zeros((roomy(len(gaps)), size, size), np.float32)
    np.add.at(counts, (which, panel.state[ends - 1], panel.state[ends]), 1.0)
    firsts = np.bincount(panel.state[~panel.follows], minlength=size).astype(np.float32)
    padded = jnp.asarray(np.pad(gaps, (0, len(counts) - len(gaps)), mode="edge"), jnp.float32)
    if noise == 0:
        return eqx.filter_jit(summarise)(jnp.asarray(counts), padded, jnp.asarray(firsts), jnp.zeros(()))
    number = np.zeros(len(panel.time), int)
    number[ends] = which
    fill = lambda values, value: _roomy_paths(panel.padded(values, value), value)  # noqa: E731
    paths = Paths(fill(number, 0), fill(np.ones(len(panel.time), bool), False), fill(panel.state, 0))
    share = jnp.asarray(0.02 if noise is None else noise, jnp.float32)
    return _denoised(paths, padded, jnp.asarray(counts), share, noise is None)


def _without_missing(panel: PanelData) -> PanelData:
    """Rows whose state is not known tell nothing; subjects keep their numbers."""
    keep = panel.state >= 0
    rows = {name: getattr(panel, name)[keep] for name in ("subject", "time", "state", "kind", "row", "covariates")}
    return eqx.tree_at(lambda p: [getattr(p, name) for name in rows], panel, list(rows.values()))


def _binned(gaps: Float[np.ndarray, " M"]) -> tuple[np.ndarray, np.ndarray]:
    """Different gaps, or means of gaps of about one size, and which of them each is."""
    unique, which = np.unique(np.round(gaps, 9), return_inverse=True)
    if len(unique) <= _MOST_GAPS:
        return unique, which
    logs = np.log(gaps)
    width = (logs.max() - logs.min()) / (_MOST_GAPS - 1)
    _, which = np.unique(np.floor((logs - logs.min()) / width), return_inverse=True)
    return np.bincount(which, gaps) / np.bincount(which), which


def _roomy_paths(values: np.ndarray, fill) -> jnp.ndarray:
    room = [(0, roomy(size) - size) for size in values.shape]
    return jnp.asarray(np.pad(values, room, constant_values=fill).T)


@eqx.filter_jit
def _denoised(paths: Paths, gaps, counts, noise, estimate: bool) -> Summaries:
    found = expected_transitions(paths, gaps, counts, noise, estimate)
    return summarise(found.counts, gaps, found.firsts, found.noise)
