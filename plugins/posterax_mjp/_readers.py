"""From CSV files and pandas frames to panel data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ._panel import ENTRY, EXACT, SNAPSHOT, Censored, PanelData, check_times


def read_panel(
    data: pd.DataFrame | str | os.PathLike,
    *,
    time: str,
    state: str | None = None,
    subject: str | None = None,
    signal: str | None = None,
    states: Sequence[Any] | None = None,
    covariates: Sequence[str] = (),
    exact: bool = False,
    entered: Sequence[Any] = (),
    censored: Censored | None = None,
    sort: bool = False,
) -> PanelData:
    """Panel data from a frame, or a CSV file with a header; one row an observation.

    - `time`, `state`, `subject`: names of columns. Without `subject` all rows are of one.
    - `signal`: a column of numbers in place of `state`.
    - `states`: the values of the states, in order; by default all that occur, sorted.
    - `covariates`: columns of numbers; they hold from their row on. Texts and categories become indicators of all
      their values but the first.
    - `exact`: all times are those of jumps, and states are held until then.
    - `entered`: states whose times are those of their entry, from whatever state: deaths.
    - `censored`: values that mean "one of these states", and which.
    - `sort`: sort the rows of each subject by time; without it, rows out of order are an error.

    A missing state is not known; a missing time, subject or covariate is an error.

    Raises `ValueError` that names row (counted from 0, as in `frame.iloc`) and column, `KeyError` for columns that are
    not there.
    """
    frame: Any = _frame(data)
    if (state is None) == (signal is None):
        raise ValueError("Give one of `state` and `signal`, the name of its column.")
    wanted = [name for name in (time, state, subject, signal, *covariates) if name is not None]
    if lacking := [name for name in wanted if name not in frame.columns]:
        raise KeyError(f"There is no column {', '.join(map(repr, lacking))}; there are {list(frame.columns)}.")
    if not len(frame):
        raise ValueError("The data have no rows.")
    who = pd.Series(np.zeros(len(frame), int)) if subject is None else frame[subject]
    if (lost := np.flatnonzero(who.isna())).size:
        raise ValueError(f"Row {lost[0]}, column {subject!r}: the subject is missing.")
    codes, subjects = pd.factorize(who)
    when = _numbers(frame[time], time)
    order = np.lexsort((when, codes)) if sort else np.argsort(codes, kind="stable")
    effects, names = _covariates(frame, covariates)
    values = (
        _States.none(frame[signal], str(signal)) if state is None else _States.of(frame[state], state, states, censored)
    )
    kind = np.full(len(frame), EXACT if exact else SNAPSHOT)
    if unknown := [value for value in entered if str(value) not in values.names]:
        raise ValueError(f"`entered` names {unknown}, which are no states; there are {list(values.names)}.")
    kind[np.isin(values.codes, [values.names.index(str(value)) for value in entered])] = ENTRY
    found = PanelData(
        subject=codes[order], time=when[order], state=values.codes[order], kind=kind[order], states=values.names,
        subjects=np.asarray(subjects), row=order, censored=values.sets, covariates=effects[order],
        covariate_names=names, signal=None if values.signal is None else values.signal[order],
    )  # fmt: skip
    label = "" if subject is None else " of subject {}"
    check_times(
        found, lambda n: f"Row {order[n]}, column {time!r}" + label.format(who.iloc[order[n]] if subject else "")
    )
    return found


def read_dwell_times(
    data: pd.DataFrame | str | os.PathLike, *, duration: str, state: str, states: Sequence[Any] | None = None
) -> PanelData:
    """Panel data from an idealised recording: one row a sojourn, with its length and its state; all jumps are seen.

    - `duration`, `state`: names of columns. `states`: the values of the states, in order.

    Successive rows with one state are one sojourn. The last sojourn is taken as cut off by the end of the recording.
    Nothing is done about sojourns too short to be seen: rates of fast jumps come out too low.

    Raises `ValueError` for lengths that are not positive, by row and column.
    """
    frame: Any = _frame(data)
    if lacking := [name for name in (duration, state) if name not in frame.columns]:
        raise KeyError(f"There is no column {', '.join(map(repr, lacking))}; there are {list(frame.columns)}.")
    length = _numbers(frame[duration], duration)
    if (bad := np.flatnonzero(~(length > 0))).size:
        raise ValueError(f"Row {bad[0]}, column {duration!r}: a length must be positive; got {length[bad[0]]}.")
    values = _States.of(frame[state], state, states, None)
    if (lost := np.flatnonzero(values.codes < 0)).size:
        raise ValueError(f"Row {lost[0]}, column {state!r}: the state is missing.")
    begins = np.flatnonzero(np.diff(values.codes, prepend=-1))
    times = np.append((np.cumsum(length) - length)[begins], length.sum())
    codes = np.append(values.codes[begins], values.codes[-1])
    none = np.zeros((len(times), 0))
    return PanelData(
        subject=np.zeros(len(times), int), time=times, state=codes, kind=np.full(len(times), EXACT),
        states=values.names, subjects=np.arange(1), row=np.append(begins, len(frame) - 1), censored=values.sets,
        covariates=none, covariate_names=(),
    )  # fmt: skip


class _States:
    """A column of states, coded."""

    def __init__(self, codes: np.ndarray, names: tuple[str, ...], sets: np.ndarray, signal: np.ndarray | None = None):
        self.codes, self.names, self.sets, self.signal = codes, names, sets, signal

    @classmethod
    def none(cls, column: Any, name: str) -> "_States":
        """A signal in place of states."""
        numbers = _numbers(column, name, missing=True)
        return cls(np.full(len(column), -1), (), np.zeros((0, 0), bool), numbers)

    @classmethod
    def of(cls, column: Any, name: str, states: Sequence[Any] | None, censored: Censored | None) -> "_States":
        """Values as numbers from 0; -1 where missing, from k on where censored."""
        sets = dict(censored or {})
        there = column.dropna()
        if states is None:
            found = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else sorted(there.unique())
            states = [value for value in found if value not in sets]
        if len(states) < 2 or len(set(states)) < len(states):
            raise ValueError(
                f"Column {name!r}: 2 different states are needed at least; there are {list(states)}. If others were "
                "not seen, name them all with `states=`."
            )
        codes = pd.Index([*states, *sets]).get_indexer(column)
        if (bad := np.flatnonzero((codes < 0) & column.notna().to_numpy())).size:
            raise ValueError(
                f"Row {bad[0]}, column {name!r}: {column.iloc[bad[0]]!r} is none of the states {list(states)}."
            )
        rows = np.zeros((len(sets), len(states)), bool)
        for row, (value, members) in zip(rows, sets.items(), strict=True):
            where = pd.Index(states).get_indexer(list(members))
            if (where < 0).any() or not len(where):
                raise ValueError(f"`censored[{value!r}]` must list states; got {list(members)} of {list(states)}.")
            row[where] = True
        return cls(codes, tuple(map(str, states)), rows)


def _frame(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, (str, os.PathLike)):
        if not Path(data).is_file():
            raise FileNotFoundError(f"There is no file {str(data)!r}.")
        return pd.read_csv(data)
    raise TypeError(f"`data` must be a pandas frame or the path of a CSV file; got {type(data).__name__}.")


def _numbers(column: Any, name: str, missing: bool = False) -> np.ndarray:
    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), float)
    bad = np.isnan(numbers) & ~(column.isna().to_numpy() & missing) | np.isinf(numbers)
    if (rows := np.flatnonzero(bad)).size:
        got = "a missing cell" if column.isna().iloc[rows[0]] else repr(column.iloc[rows[0]])
        raise ValueError(f"Row {rows[0]}, column {name!r}: a number is needed; got {got}.")
    return numbers


def _covariates(frame: Any, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers, and indicators of texts."""
    columns, told = [], []
    for name in names:
        column = frame[name]
        if column.isna().any():
            row = np.flatnonzero(column.isna())[0]
            raise ValueError(f"Row {row}, column {name!r}: a covariate is missing. Fill it, or drop the row.")
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            columns.append(_numbers(column, name))
            told.append(str(name))
            continue
        for value in sorted(column.unique(), key=str)[1:]:
            columns.append((column == value).to_numpy(float))
            told.append(f"{name}={value}")
    return np.stack(columns, 1) if columns else np.zeros((len(frame), 0)), tuple(told)
