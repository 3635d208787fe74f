"""Tables and arrays as assignments of integers, and back."""

from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

_MOST_VALUES = 1000
_PLAIN = (str, int, float, bool)

Coded = tuple[Int[np.ndarray, "... D"], Bool[np.ndarray, "... D"]]


class Columns(eqx.Module):
    """The variables: their names and what their values 0, ..., K - 1 stand for.

    - `names`: of the columns. `values`: of each column, in order. `table`: whether they came as a pandas frame.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    values: tuple[tuple, ...] = eqx.field(static=True)
    table: bool = eqx.field(static=True, default=True)

    @property
    def num_values(self) -> tuple[int, ...]:
        """K of each column."""
        return tuple(map(len, self.values))

    @staticmethod
    def of(data: Any, num_values: tuple[int, ...] | None = None) -> "Columns":
        """The columns of a frame, or of an array of integers from 0 with -1 or NaN for what is missing.

        - `num_values`: of an array's columns; the largest value in each, and one, by default.

        Raises `ValueError` or `TypeError` for columns that are not categorical, or hold nothing.
        """
        if isinstance(data, pd.DataFrame):
            if num_values is not None:
                raise ValueError("`num_values` is for arrays; a frame's columns say it by their categories.")
            if not data.columns.is_unique or data.shape[1] == 0:
                raise ValueError(f"`data` must have columns of different names; got {list(data.columns)}.")
            values = tuple(_values_of(pd.Series(data[name])) for name in data.columns)
            return Columns(tuple(map(str, data.columns)), values)
        array = _integers(data)
        if num_values is None:
            if (array.reshape(-1, array.shape[-1]).max(0, initial=-1) < 0).any():
                raise ValueError("`data` has a column without any value. Leave it out, or pass `num_values`.")
            num_values = tuple(int(k) for k in array.reshape(-1, array.shape[-1]).max(0) + 1)
        if len(num_values) != array.shape[-1]:
            raise ValueError(f"`num_values` must have one entry a column, {array.shape[-1]}; got {len(num_values)}.")
        return Columns.of_integers(num_values)

    @staticmethod
    def of_integers(num_values: tuple[int, ...], names: tuple[str, ...] | None = None) -> "Columns":
        """Columns whose values are the integers themselves; named x0, x1, ... by default."""
        names = tuple(f"x{d}" for d in range(len(num_values))) if names is None else names
        return Columns(names, tuple(tuple(range(k)) for k in num_values), table=False)

    def encode(self, data: Any, name: str = "x") -> Coded:
        """Integers, and which of them are there; 0 stands where a value is missing.

        - `data`: a frame with these columns in any order (those it lacks are missing); a mapping from names to values,
          one row; or an array whose last axis is the columns, with -1 or NaN for what is missing.

        Raises `ValueError` for unknown columns and values that no column has.
        """
        if isinstance(data, (pd.Series, dict)):
            x, there = self.encode(pd.DataFrame([dict(data)]), name)
            return x[0], there[0]
        if isinstance(data, pd.DataFrame):
            return self._encode_frame(data, name)
        x = _integers(data, name)
        if x.shape[-1] != len(self.names):
            raise ValueError(f"`{name}` must have {len(self.names)} columns; got shape {x.shape}.")
        high = np.array(self.num_values)
        if (bad := (x < -1) | (x >= high)).any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"`{name}` must hold integers from 0 to one less than the number of values of each column, or -1 where "
                f"a value is missing; got {x[at]} in column {self.names[at[-1]]!r}, which has {high[at[-1]]} values."
            )
        return np.maximum(x, 0), x >= 0

    def _encode_frame(self, data: pd.DataFrame, name: str) -> Coded:
        if unknown := [str(c) for c in data.columns if str(c) not in self.names]:
            raise ValueError(f"`{name}` has columns {unknown} that were not in training; those are {list(self.names)}.")
        x = np.zeros((len(data), len(self.names)), np.int32)
        there = np.zeros(x.shape, bool)
        for column in data.columns:
            d = self.names.index(str(column))
            cells = np.asarray(data[column], dtype=object)
            codes = pd.Index(list(self.values[d]), dtype=object).get_indexer(cells)
            there[:, d] = ~np.asarray(pd.isna(cells), bool)
            if (unknown := there[:, d] & (codes < 0)).any():
                raise ValueError(
                    f"`{name}` has the value {cells[unknown][0]!r} in column {self.names[d]!r}, which training has not "
                    f"seen; its values are {list(self.values[d])}. Declare it as a category before fitting, or leave "
                    "it missing."
                )
            x[:, d] = np.maximum(codes, 0)
        return x, there

    def decode(self, x: Int[np.ndarray, "n D"]) -> Any:
        """Assignments in the form the data came in: a frame, or integers."""
        x = np.asarray(x)
        if not self.table:
            return x
        columns = {}
        for d, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            column = [values[k] for k in x[:, d]]
            columns[name] = pd.Categorical(column, categories=list(values)) if isinstance(values[0], str) else column
        return pd.DataFrame(columns)

    def nothing(self) -> Int[np.ndarray, " D"]:
        """A row of which nothing is observed."""
        return np.full(len(self.names), -1, np.int32)

    def order(self, order: Any) -> Int[np.ndarray, " D"] | None:
        """Places of all columns in the order asked for, by names or places; None stays None."""
        if order is None:
            return None
        places = [self.names.index(one) if one in self.names else one for one in list(order)]
        if not all(isinstance(one, (int, np.integer)) for one in places) or sorted(places) != list(
            range(len(self.names))
        ):
            raise ValueError(f"`order` must hold each of the {len(self.names)} columns once; got {list(order)}.")
        return np.array(places, np.int32)

    def mask(self, which: Any, shape: tuple[int, ...], name: str) -> Bool[np.ndarray, "... D"]:
        """Which columns are meant: by names, or by booleans; brought to `shape`, or to what both broadcast to."""
        if isinstance(which, str):
            which = [which]
        if isinstance(which, (list, tuple)) and all(isinstance(one, str) for one in which):
            if unknown := [one for one in which if one not in self.names]:
                raise ValueError(f"`{name}` names {unknown}; the columns are {list(self.names)}.")
            which = np.isin(self.names, which)
        which = np.asarray(which)
        if which.dtype != bool or which.shape[-1:] != (len(self.names),):
            raise ValueError(
                f"`{name}` must be names of columns or booleans, one a column ({len(self.names)}); got "
                f"{which.dtype} of shape {which.shape}."
            )
        return np.broadcast_to(which, np.broadcast_shapes(which.shape, shape))


def _values_of(series: pd.Series) -> tuple:
    if isinstance(series.dtype, pd.CategoricalDtype):
        values = [_plain(value) for value in series.cat.categories]
    else:
        values = [_plain(value) for value in series.dropna().unique()]
        try:
            values = sorted(values)
        except TypeError:
            raise ValueError(f"Column {series.name!r} mixes types: {values[:5]}. Make it of one type.") from None
    if not values:
        raise ValueError(f"Column {series.name!r} has no value at all. Leave it out.")
    if odd := [value for value in values if not isinstance(value, _PLAIN)]:
        raise TypeError(
            f"Column {series.name!r} holds {type(odd[0]).__name__} values such as {odd[0]!r}; categories must be "
            "strings, numbers or booleans. Convert it with `.astype(str)`, or give `pandas.cut` its `labels`."
        )
    if len(values) > _MOST_VALUES:
        raise ValueError(
            f"Column {series.name!r} has {len(values)} different values; a category may have {_MOST_VALUES}. Bin it, "
            "for instance with `pandas.qcut(column, 10, labels=False)`."
        )
    return tuple(values)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _integers(data: Any, name: str = "data") -> Int[np.ndarray, "... D"]:
    array = np.asarray(data)
    if array.ndim < 1 or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be a frame, or an array of integers of shape (..., columns) that is not empty; got "
            f"{array.dtype} of shape {array.shape}."
        )
    if array.dtype.kind == "f":
        whole = np.where(np.isnan(array), -1, array)
        if not np.all(np.isfinite(whole) & (whole == np.round(whole))):
            raise ValueError(f"`{name}` must hold whole numbers, or NaN where a value is missing. Bin it first.")
        array = whole
    return array.astype(np.int32)
