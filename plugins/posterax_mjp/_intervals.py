"""Panel data as what a likelihood needs: different steps of time, and who makes which."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._generators import transition_probs
from ._panel import ENTRY, EXACT, SNAPSHOT, PanelData


def roomy(size: int) -> int:
    """The next number with two leading binary digits: data of about one size share what was compiled."""
    step = 1 << max(size.bit_length() - 2, 0)
    return -(-size // step) * step


def _filled(array: np.ndarray, size: int, value: Any = None) -> Array:
    """To this length, by a value or the last entry."""
    rest = np.repeat(array[-1:], size - len(array), 0)
    return jnp.asarray(np.concatenate([array, rest if value is None else np.full_like(rest, value)]))


class Intervals(eqx.Module):
    """Steps between successive rows; equal ones once.

    - `gaps`, `designs`, `kinds`: `(T,)`: of each step its length, its row of `covariates` and what is at its end.
    - `covariates`: `(U, C)`, different ones; a column of 0 where there are none. `present`: kinds.
    """

    gaps: Float[Array, " T"]
    designs: Int[Array, " T"]
    kinds: Int[Array, " T"]
    covariates: Float[Array, "U C"]
    present: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def of(panel: PanelData) -> tuple["Intervals", Int[np.ndarray, " M"]]:
        """Steps, and which of them each row that follows another one ends."""
        follows = np.flatnonzero(panel.follows)
        values = panel.covariates if panel.covariates.shape[1] else np.zeros((len(panel.time), 1))
        rows, design = np.unique(values, axis=0, return_inverse=True)
        gaps, kinds = np.round(panel.gaps, 12), panel.kind[follows]
        triples = np.stack([gaps, design.ravel()[follows - 1], kinds], 1)
        unique, index = np.unique(triples, axis=0, return_inverse=True)
        size = roomy(len(unique))
        gaps, designs, kind = (_filled(column, size) for column in unique.T)
        covariates, present = _filled(rows, roomy(len(rows))), tuple(np.unique(kinds).tolist())
        found = Intervals(gaps, designs.astype(int), kind.astype(int), covariates, present)
        return found, index.ravel()

    def matrices(self, generators: Float[Array, "U k k"]) -> Float[Array, "T k k"]:
        """For each step the probability (density, where a time is exact) of what is at its end, row: from."""
        if not len(self.gaps):
            return jnp.zeros((0, *generators.shape[1:]))
        one = len(generators) == 1
        probs = transition_probs(generators[0] if one else generators, self.gaps, None if one else self.designs)
        if self.present == (SNAPSHOT,):
            return probs
        size = generators.shape[-1]
        each, eye = generators[self.designs], jnp.eye(size)
        off = each * (1 - eye)
        stays = jnp.exp(jnp.diagonal(each, axis1=-2, axis2=-1) * self.gaps[:, None])
        exact = stays[:, :, None] * (off + eye)
        kind = self.kinds[:, None, None]
        return jnp.where(kind == EXACT, exact, jnp.where(kind == ENTRY, probs @ off, probs))


class Transitions(eqx.Module):
    """Pairs of known states at both ends of steps, and how often each comes: `(P,)` each."""

    step: Int[Array, " P"]
    start: Int[Array, " P"]
    end: Int[Array, " P"]
    count: Float[Array, " P"]

    @staticmethod
    def of(panel: PanelData, steps: Int[np.ndarray, " M"], merged: bool = True) -> "Transitions":
        """All of them; `merged`: equal ones once, else row by row."""
        follows = np.flatnonzero(panel.follows)
        rows = np.stack([steps, panel.state[follows - 1], panel.state[follows]], 1)
        count = np.ones(len(rows))
        if merged:
            rows, count = np.unique(rows, axis=0, return_counts=True)
        size = roomy(len(rows))
        step, start, end = (_filled(column, size) for column in rows.T.astype(int))
        return Transitions(step, start, end, _filled(count.astype(float), size, 0.0))


class Sequences(eqx.Module):
    """Rows of each subject side by side, for the forward recursion.

    - `step`: `(L - 1, K)`, the step before each row but the first; `there`: `(L, K)`, whether a row is there at all.
    - `row`: `(L, K)`, its number.
    """

    step: Int[Array, "L-1 K"]
    there: Float[Array, "L K"]
    row: Int[Array, "L K"]

    @staticmethod
    def of(panel: PanelData, steps: Int[np.ndarray, " M"]) -> "Sequences":
        """Side by side."""
        number = np.zeros(len(panel.time), int)
        number[panel.follows] = steps
        row, step = panel.padded(np.arange(len(panel.time)), -1).T, panel.padded(number, 0).T
        room = tuple((0, roomy(size) - size) for size in row.shape)
        row, step = np.pad(row, room, constant_values=-1), np.pad(step, room)
        return Sequences(jnp.asarray(step[1:]), jnp.asarray(row >= 0), jnp.asarray(np.maximum(row, 0)))
