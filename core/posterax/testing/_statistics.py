"""The tests behind the checks. Each gives a p-value per column; `smallest` joins them.

Quantities enter as ranks among draws of a reference sample, then as low Legendre polynomials of these: bounded, so that
sums of a thousand are normal far into the tails whatever the quantity's own tails are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Tests(NamedTuple):
    """Some tests made together.

    - `names`: what each looked at.
    - `z`: by how many standard errors each is off; NaN where it has no such number.
    - `p_values`: two-sided, one a test.
    """

    names: Sequence[str]
    z: np.ndarray
    p_values: np.ndarray

    @property
    def p_value(self) -> float:
        """Bonferroni's: the smallest, times their number."""
        if not len(self.p_values):
            return 1.0
        return float(min(1.0, len(self.p_values) * np.min(self.p_values)))

    @property
    def words(self) -> str:
        """The oddest of them."""
        worst = int(np.argmin(self.p_values))
        off = f"{self.z[worst]:+.1f} standard errors, " if np.isfinite(self.z[worst]) else ""
        return f"{self.names[worst]}: {off}p = {self.p_value:.2g} over {len(self.p_values)} tests"

    def __add__(self, other: "Tests") -> "Tests":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Tests([*self.names, *other.names], np.append(self.z, other.z), np.append(self.p_values, other.p_values))


def _z_tests(names: Sequence[str], estimate: np.ndarray, error: np.ndarray, freedom: float = np.inf) -> Tests:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(estimate == 0, 0.0, estimate / error)  # a constant that is right is right
    p_values = 2 * (stats.norm.sf(np.abs(z)) if np.isinf(freedom) else stats.t.sf(np.abs(z), freedom))
    return Tests(list(names), z, np.nan_to_num(p_values, nan=0.0))


def mean_is_zero(names: Sequence[str], x: np.ndarray, slack: float = 0.0) -> Tests:
    """Student's test that independent rows of `x`, (n, k), have mean zero, or at most `slack` off it."""
    n = len(x)
    mean = x.mean(axis=0)
    mean = np.sign(mean) * np.maximum(np.abs(mean) - slack, 0.0)
    return _z_tests(names, mean, x.std(axis=0, ddof=1) / np.sqrt(n), n - 1)


def mean_is_that_of(names: Sequence[str], x: np.ndarray, reference: np.ndarray) -> Tests:
    """Student's test that independent rows of `x`, (n, k), have the mean of `reference`, (m, k) with m far above n."""
    error = np.sqrt(x.var(axis=0, ddof=1) / len(x) + reference.var(axis=0, ddof=1) / len(reference))
    return _z_tests(names, x.mean(axis=0) - reference.mean(axis=0), error, len(x) - 1)


def same_mean(names: Sequence[str], before: np.ndarray, after: np.ndarray, reference: np.ndarray) -> Tests:
    """Whether columns of `after` have the mean of `reference`, with `before` as control variate.

    - `before`, `after`: (n, k), independent rows; row by row the two may depend on each other.
    - `reference`: (m, k), independent of both; under the null hypothesis all three have the same mean.

    The regression estimator: with slope b, mean(after - b before) - (1 - b) mean(reference). Where a chain has hardly
    moved b is near one, and the test sees the small average drift rather than the spread of the starting points.
    """
    n, m = len(after), len(reference)
    centred = before - before.mean(axis=0)
    spread = np.sum(centred**2, axis=0)
    slope = np.where(spread > 0, np.sum(centred * after, axis=0) / np.where(spread > 0, spread, 1.0), 0.0)
    slope = np.clip(slope, 0.0, 1.0)
    residual = after - slope * before
    estimate = residual.mean(axis=0) - (1 - slope) * reference.mean(axis=0)
    error = np.sqrt(residual.var(axis=0, ddof=2) / n + (1 - slope) ** 2 * reference.var(axis=0, ddof=1) / m)
    return _z_tests(names, np.where(np.abs(estimate) < 1e-9, 0.0, estimate), error, n - 2)


def are_uniform(names: Sequence[str], u: np.ndarray, slack: float = 0.0) -> Tests:
    """Whether independent rows of `u`, (n, k), are uniform on (0, 1), column by column.

    Three tests a column, all exact for any n: the mean of the normal scores (a shift), their sum of squares (too narrow
    or too wide), and Kolmogorov and Smirnov's (any other shape).

    - `slack`: tolerated bias, in standard deviations of the distribution that `u` ranks in: of its mean, and relatively
      of its standard deviation.
    """
    n = len(u)
    score = stats.norm.ppf(np.clip(u, 1e-12, 1 - 1e-12))
    shift = np.sqrt(n) * score.mean(axis=0)
    shift = np.sign(shift) * np.maximum(np.abs(shift) / (1 + slack) - np.sqrt(n) * slack, 0.0)
    square = np.sum(score**2, axis=0)
    wide = stats.chi2.sf(square / ((1 + slack) ** 2 + slack**2), n)
    narrow = stats.chi2.cdf(square / max(1e-9, 1 - slack) ** 2, n)
    scale = np.minimum(1.0, 2 * np.minimum(wide, narrow))
    grid = (np.arange(1, n + 1)[:, None] / n, np.arange(n)[:, None] / n)
    ordered = np.sort(u, axis=0)
    distance = np.maximum(np.abs(grid[0] - ordered), np.abs(ordered - grid[1])).max(axis=0)
    # A normal score shifted or scaled by `slack` moves its distribution function by at most 0.40 and 0.25 of that.
    shape = stats.kstwo.sf(np.maximum(distance - 0.65 * slack, 0.0), n)
    of_scale = stats.norm.isf(scale / 2) * np.where(wide < narrow, 1.0, -1.0)
    return (
        Tests([f"location of {name}" for name in names], shift, np.nan_to_num(2 * stats.norm.sf(np.abs(shift))))
        + Tests([f"spread of {name}" for name in names], of_scale, np.nan_to_num(scale))
        + Tests([f"shape of {name}" for name in names], np.full(u.shape[1], np.nan), np.nan_to_num(shape))
    )


class Functions:
    """Test functions of uniform numbers: location and spread of each column, and the dependence of each pair.

    Legendre polynomials of degree one and two, and products of those of degree one: of mean zero and variance one where
    the columns are independent and uniform.

    - `names`: of the columns; `labels`: of the functions.
    """

    def __init__(self, names: Sequence[str]):
        pairs = [(i, j) for i in range(len(names)) for j in range(i)]
        self._pairs = np.array(pairs, dtype=int).reshape(-1, 2)
        self.labels = [
            *(f"location of {name}" for name in names),
            *(f"spread of {name}" for name in names),
            *(f"dependence of {names[i]} and {names[j]}" for i, j in pairs),
        ]

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """The functions, `(n, f)`, of `u`, `(n, k)`."""
        first = np.sqrt(3.0) * (2 * u - 1)
        second = np.sqrt(5.0) * (6 * u**2 - 6 * u + 1)
        return np.concatenate([first, second, first[:, self._pairs[:, 0]] * first[:, self._pairs[:, 1]]], axis=1)


class Ranker:
    """Turns quantities into test functions, by their ranks in a reference sample.

    - `names`: of the columns; `reference`: `(m, k)`, independent draws.
    """

    def __init__(self, names: Sequence[str], reference: np.ndarray):
        self._sorted = np.sort(np.asarray(reference, dtype=float), axis=0)
        self._functions = Functions(names)
        self.labels = self._functions.labels

    def __call__(self, quantities: np.ndarray) -> np.ndarray:
        """The test functions, `(n, f)`, of quantities `(n, k)`."""
        columns = zip(self._sorted.T, np.asarray(quantities, dtype=float).T, strict=True)
        ranks = np.stack([_mid_rank(ordered, x) for ordered, x in columns], axis=1)
        return self._functions(ranks / len(self._sorted))


def _mid_rank(ordered: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Half-way between the ranks left and right of ties, so that discrete quantities are centred too.
    return 0.5 * (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right"))
