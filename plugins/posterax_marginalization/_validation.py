"""Settings checked: each error names the setting, what it must be, and what came."""

from typing import Any

import numpy as np


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise `ValueError` where `value` is no integer or too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be an integer, {least} or more; got {value!r}.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` where `value` is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def check_span(span: Any, decay: Any) -> None:
    """Raise `ValueError` for a window without steps or weights that grow with distance; None is the whole order."""
    if span is not None:
        check_integer("span", span, 1)
    if not 0 < decay <= 1:
        raise ValueError(f"`decay` must be above 0 and at most 1; got {decay!r}.")


def check_num_values(num_values: Any) -> None:
    """Raise `ValueError` where these are not numbers of values, one for each variable."""
    good = isinstance(num_values, tuple) and num_values
    if not good or not all(isinstance(k, (int, np.integer)) and k >= 1 for k in num_values):
        raise ValueError(f"`num_values` must be a tuple of integers, 1 or more, one a variable; got {num_values!r}.")
