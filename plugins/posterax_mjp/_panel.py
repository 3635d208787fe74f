"""Observations of Markov jump processes: who was seen in which state, and when."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

SNAPSHOT, EXACT, ENTRY = 0, 1, 2
"""How a time is to be read: the state was looked at; it was entered just then, and the one before was held until then;
it was entered just then from any state (a death)."""


class PanelData(eqx.Module):
    """Observations in rows, sorted by subject and time; made by `read_panel`, `from_paths` or `read_dwell_times`.

    - `subject`: `(N,)`, 0, 1, ... `time`: `(N,)`. `state`: `(N,)`, from 0; -1 where it is not known; k + s where it is
      one of the set s of `censored`.
    - `kind`: `(N,)`, how the time is to be read: 0 a snapshot; 1 an exactly observed jump; 2 an exactly observed entry.
    - `states`: names. `subjects`: their identifiers. `row`: `(N,)`, where each came from, for messages.
    - `censored`: `(S, k)`, sets of states. `covariates`: `(N, C)`, and `covariate_names`; they hold from their row on
      until the next.
    - `signal`: `(N,)`, a continuous signal in place of states, or None.
    """

    subject: Int[np.ndarray, " N"]
    time: Float[np.ndarray, " N"]
    state: Int[np.ndarray, " N"]
    kind: Int[np.ndarray, " N"]
    states: tuple[str, ...] = eqx.field(static=True)
    subjects: np.ndarray
    row: np.ndarray
    censored: Bool[np.ndarray, "S k"]
    covariates: Float[np.ndarray, "N C"]
    covariate_names: tuple[str, ...] = eqx.field(static=True)
    signal: Float[np.ndarray, " N"] | None = None

    @staticmethod
    def from_paths(
        states: Any, times: Any, *, num_states: int | None = None, names: Sequence[str] | None = None
    ) -> "PanelData":
        """From an array of labels.

        - `states`: `(K, L)`, labels from 0; -1 where nothing was seen. `times`: `(L,)`, the same for all, or `(K, L)`.
        - `num_states`: the largest label and one, by default. `names`: of the states.

        Raises `ValueError` for labels out of range and times that do not increase, by path and place.
        """
        states = np.asarray(states)
        if states.ndim != 2 or not np.issubdtype(states.dtype, np.integer):
            raise ValueError(
                f"`states` must be integers of shape (paths, times); got {states.dtype} of shape {states.shape}."
            )
        times = np.asarray(times, float)
        if times.shape not in (states.shape, states.shape[1:]):
            raise ValueError(f"`times` must have shape {states.shape[1:]} or {states.shape}; got {times.shape}.")
        seen = states >= 0
        if not seen.any():
            raise ValueError("`states` has no label in it: all are -1.")
        size = _number_of(num_states, names, int(states.max()) + 1)
        if (over := np.argwhere(states >= size)).size:
            path, place = over[0]
            raise ValueError(f"`states[{path}, {place}]` is {states[path, place]}; there are {size} states, from 0 on.")
        subject, place = np.nonzero(seen)
        names = tuple(names) if names is not None else tuple(map(str, range(size)))
        found = PanelData(
            subject=subject, time=np.broadcast_to(times, states.shape)[seen], state=states[seen].astype(int),
            kind=np.zeros(len(subject), int), states=names, subjects=np.arange(len(states)), row=place,
            censored=np.zeros((0, size), bool), covariates=np.zeros((len(subject), 0)), covariate_names=(),
        )  # fmt: skip
        check_times(found, lambda row: f"`times` of path {subject[row]}, place {place[row]}")
        return found

    @property
    def num_states(self) -> int:
        """How many."""
        return len(self.states)

    @property
    def num_subjects(self) -> int:
        """How many, those with a single row included."""
        return len(self.subjects)

    @property
    def follows(self) -> Bool[np.ndarray, " N"]:
        """Whether a row has one before it, of the same subject."""
        return np.concatenate([[False], self.subject[1:] == self.subject[:-1]])

    @property
    def gaps(self) -> Float[np.ndarray, " M"]:
        """Time since the row before, of rows that have one."""
        return np.diff(self.time, prepend=0.0)[self.follows]

    @property
    def horizon(self) -> float:
        """The longest time from the first row of a subject to its last."""
        first = np.flatnonzero(~self.follows)
        last = np.append(first[1:], len(self.time)) - 1
        return float((self.time[last] - self.time[first]).max())

    @property
    def is_known(self) -> bool:
        """Whether every state is: nothing missing, censored or seen through a signal."""
        return self.signal is None and bool(((self.state >= 0) & (self.state < self.num_states)).all())

    def possible(self) -> Bool[np.ndarray, "N k"]:
        """Which states each row allows."""
        sets = np.concatenate([np.eye(self.num_states, dtype=bool), self.censored, np.ones((1, self.num_states), bool)])
        return sets[self.state]

    def padded(self, values: np.ndarray, fill: Any) -> np.ndarray:
        """One value a row as `(subjects, longest, ...)`."""
        first = np.flatnonzero(~self.follows)
        place = np.arange(len(self.time)) - np.repeat(first, np.diff(np.append(first, len(self.time))))
        filled = np.full((self.num_subjects, place.max() + 1, *values.shape[1:]), fill, values.dtype)
        filled[self.subject, place] = values
        return filled

    def of(self, subjects: Any) -> "PanelData":
        """Of some subjects only: their numbers, in any order, or one boolean each."""
        chosen = np.arange(self.num_subjects)[np.asarray(subjects)]
        new = np.full(self.num_subjects, -1)
        new[chosen] = np.arange(len(chosen))
        keep = np.flatnonzero(new[self.subject] >= 0)
        keep = keep[np.argsort(new[self.subject[keep]], kind="stable")]
        rows = {name: getattr(self, name)[keep] for name in ("time", "state", "kind", "row", "covariates")}
        signal = None if self.signal is None else self.signal[keep]
        return PanelData(
            **rows, subject=new[self.subject[keep]], states=self.states, subjects=self.subjects[chosen],
            censored=self.censored, covariate_names=self.covariate_names, signal=signal,
        )  # fmt: skip

    def counts(self) -> Int[np.ndarray, "k k"]:
        """Successive pairs of known states."""
        ends = self.known_pairs()
        found = np.zeros((self.num_states, self.num_states), int)
        np.add.at(found, (self.state[ends - 1], self.state[ends]), 1)
        return found

    def known_pairs(self, state: Int[np.ndarray, " N"] | None = None) -> Int[np.ndarray, " M"]:
        """Rows of a known state after another one of the same subject; `state`: in place of the panel's."""
        known = (self.state >= 0) & (self.state < self.num_states) if state is None else state >= 0
        return np.flatnonzero(self.follows & known & np.concatenate([[False], known[:-1]]))

    def __repr__(self):
        kinds = {SNAPSHOT: "snapshots", EXACT: "exact jumps", ENTRY: "exact entries"}
        told = ", ".join(f"{np.sum(self.kind == k)} {word}" for k, word in kinds.items() if (self.kind == k).any())
        what = f"{self.num_states} states" if self.signal is None else "a signal"
        return f"PanelData({self.num_subjects} subjects, {len(self.time)} rows of {what}: {told})"


def check_times(panel: PanelData, where: Any) -> None:
    """Raise `ValueError` where the times of a subject do not increase; `where(row)` names the place."""
    gaps = np.where(panel.follows, np.diff(panel.time, prepend=0.0), 1.0)
    if (bad := np.flatnonzero(~np.isfinite(panel.time))).size:
        raise ValueError(f"{where(bad[0])}: the time must be a finite number; got {panel.time[bad[0]]}.")
    if (bad := np.flatnonzero(gaps <= 0)).size:
        row = bad[0]
        how = "is there twice" if gaps[row] == 0 else f"comes after {panel.time[row - 1]:g}"
        raise ValueError(
            f"{where(row)}: time {panel.time[row]:g} {how}. Times of one subject must increase: sort the rows, or drop "
            "duplicates."
        )


def _number_of(num_states: int | None, names: Sequence[str] | None, found: int) -> int:
    size = num_states if num_states is not None else (len(names) if names is not None else max(found, 2))
    if names is not None and len(names) != size:
        raise ValueError(f"`names` must name all {size} states; got {list(names)}.")
    if size < 2:
        raise ValueError(f"`num_states` must be 2 or more; got {size}.")
    return size


def as_panel(data: Any, name: str) -> PanelData:
    """Raise `TypeError` for what is not panel data."""
    if isinstance(data, PanelData):
        return data
    raise TypeError(
        f"`{name}` must be PanelData; got {type(data).__name__}. Make it with `read_panel(frame, ...)` or "
        "`PanelData.from_paths(states, times)`."
    )


Censored = Mapping[Any, Sequence[Any]]
