"""coverage(): do regions that should hold the truth with some probability hold it that often?"""

import os
from typing import Any, NamedTuple

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from scipy import stats

from .._keys import check_key, named, numbered
from ._answers import place
from ._calibration import Method, Round, over_simulations
from ._joint import JointModel, simulate_many
from ._sbc import finding
from ._statistics import Tests, are_uniform

_NOMINAL = (0.5, 0.8, 0.9, 0.95)
_POOL = 1000  # simulated pairs to choose reference points from, at most
_BLOCK = 256
_NO_DENSITY = "The method gives draws and no density of them, so it has no regions of highest density."


class Coverage(NamedTuple):
    """What `coverage` finds.

    - `levels`: nominal probabilities, `(99,)`.
    - `hpd`: `(99,)`, how often the method's regions of highest density hold the truth; None without a density.
    - `tarp`: `(99,)`, the same for balls around random points.
    - `u`: the smallest level whose region holds the truth, `(num_simulations,)`, for "hpd" and "tarp": exactly uniform
      for a correct method.
    - `no_hpd`: why `hpd` is None; empty otherwise.
    - `tests`: of location, spread and shape of each `u`; p-values are exact.
    """

    levels: np.ndarray
    hpd: np.ndarray | None
    tarp: np.ndarray
    u: dict[str, np.ndarray]
    no_hpd: str
    tests: Tests

    @property
    def p_value(self) -> float:
        """Of all tests together, by Bonferroni; small where the posterior is wrong."""
        return self.tests.p_value

    @property
    def words(self) -> str:
        """What is wrong with the regions; or that nothing was found."""
        n = len(self.u["tarp"])
        p = dict(zip(self.u, np.reshape(self.tests.p_values, (3, -1)).T, strict=True))
        level, told = 0.01 / len(self.tests.p_values), []
        if "hpd" in p and p["hpd"].min() < level:
            off = float(np.mean(self.u["hpd"]) - 0.5)
            told.append("regions hold the truth too seldom" if off > 0 else "regions hold the truth too often")
        if p["tarp"].min() < level:
            words = finding(self.u["tarp"], p["tarp"], len(self.tests.p_values))
            side = {
                "draws lie too low": "draws too near the points",
                "draws lie too high": "draws too far from the points",
            }
            told.append("balls: " + ", ".join(side.get(part, part) for part in words.split(", ")))
        return f"{'; '.join(told) or f'Nothing found in {n} simulations'} (p = {self.p_value:.2g})."

    def summary(self):
        """How often regions of 50, 80, 90 and 95 % hold the truth: a pandas DataFrame.

        - `standard_error`: of each share, if the nominal one is right.
        """
        import pandas as pd

        n = len(self.u["tarp"])
        shares = {name: [float(np.mean(u <= level)) for level in _NOMINAL] for name, u in self.u.items()}
        errors = [float(np.sqrt(level * (1 - level) / n)) for level in _NOMINAL]
        return pd.DataFrame({**shares, "standard_error": errors}, index=pd.Index(_NOMINAL, name="nominal"))

    def band(self, probability: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper edges, `(99,)`, between which the whole curve of a correct method stays so often.

        Intervals of the binomial distribution at each level, all equally improbable; how improbable is found with
        4,000 simulated curves.

        Source: Säilynoja, Bürkner and Vehtari (2022), arXiv:2103.10522, section 2.
        """
        if not 0 < probability < 1:
            raise ValueError(f"`probability` must be between 0 and 1; got {probability!r}.")
        n, cells = len(self.u["tarp"]), np.diff(np.concatenate([[0.0], self.levels, [1.0]]))
        counts = np.cumsum(np.random.default_rng(0).multinomial(n, cells, size=4_000), axis=1)[:, :-1]
        tails = np.minimum(stats.binom.cdf(counts, n, self.levels), stats.binom.sf(counts - 1, n, self.levels))
        tail = np.quantile(tails.min(axis=1), 1 - probability)
        lower, upper = stats.binom.ppf(tail, n, self.levels), stats.binom.isf(tail, n, self.levels)
        return lower / n, upper / n

    def plot(self, path: str | os.PathLike) -> None:
        """Write a PNG: coverage against the nominal level, with the simultaneous 95 % band of a correct method."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(4.8, 4.5), layout="constrained")
        axes.fill_between(self.levels, *self.band(), color="0.85", label="95 % band if correct")
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8)
        if self.hpd is not None:
            axes.plot(self.levels, self.hpd, label="highest-density regions")
        axes.plot(self.levels, self.tarp, label="balls around random points")
        axes.set(xlabel="nominal level", ylabel="share of regions with the truth", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left", frameon=False)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def coverage(
    method: Method,
    joint: JointModel,
    *,
    num_simulations: int = 500,
    num_draws: int = 200,
    key: PRNGKeyArray,
    progress: bool | None = None,
) -> Coverage:
    """Expected coverage: does a region of posterior probability 0.9 hold the truth nine times in ten?

    Two families of regions over all parameters at once. Regions of highest density of the method's own posterior, where
    it gives a density: too narrow a posterior shows as a curve below the diagonal. And balls around random points
    (TARP), which need only draws. Each point is the parameter of another simulated pair, the one whose observations are
    nearest: it depends on the data, without which a method that returns the prior would pass, and not on the truth.
    Distances are in units of the prior's spread. Regions see width, and hardly a shift: `sbc` sees both.

    - `method`, `joint`, `num_simulations`, `num_draws`, `progress`: as in `sbc`. The simulator also makes up to 1,000
      pairs more for the points.

    Warns and raises as `sbc` does.

    Source: highest density: Hermans et al. (2022), arXiv:2110.06581; TARP: Lemos et al. (2023), arXiv:2302.03026.
    """
    key = check_key(key, "coverage")
    points: list[_Points] = []

    def reduce(made: Round, keys: Array) -> dict[str, np.ndarray]:
        if not points:
            points.append(_Points(joint, min(num_simulations, _POOL), named(key, "points")))
        uniform = np.asarray(jax.vmap(lambda key: jr.uniform(named(key, "ties"), (3,)))(keys))
        weights = None if made.log_weights is None else np.asarray(made.log_weights)
        truth, drawn = points[0].distances(made, uniform[:, 2])
        u = {"tarp": place(*_compare(drawn, truth), weights, uniform[:, :1])[:, 0]}
        if made.log_q is None or made.log_q_true is None:
            return u
        improbable = _compare(-np.asarray(made.log_q), -np.asarray(made.log_q_true))
        return {"hpd": place(*improbable, None, uniform[:, 1:2])[:, 0], **u}

    u = over_simulations(
        method, joint, reduce, num_simulations=num_simulations, num_draws=num_draws, key=key, progress=progress,
        title="coverage",
    )  # fmt: skip
    levels = np.arange(1, 100) / 100
    curves = {name: np.searchsorted(np.sort(x), levels, "right") / len(x) for name, x in u.items()}
    tests = are_uniform(["density" if name == "hpd" else "balls" for name in u], np.stack(list(u.values()), axis=1))
    return Coverage(levels, curves.get("hpd"), curves["tarp"], u, "" if "hpd" in u else _NO_DENSITY, tests)


def _compare(drawn: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (drawn < truth[:, None])[..., None], (drawn == truth[:, None])[..., None]


class _Points:
    """Reference points: parameters of other simulated pairs, chosen by the nearness of their observations."""

    def __init__(self, joint: JointModel, num: int, key: PRNGKeyArray):
        parameter, observed = simulate_many(joint, numbered(key, num))
        self.parameter, self.observed = _rows(parameter, 1), np.nan_to_num(_rows(observed, 1))
        self.scale, self.observed_scale = _spread(self.parameter), _spread(self.observed)

    def distances(self, made: Round, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From each simulation's point to the truth, `(n,)`, and to the draws, `(n, L)`."""
        point = self.parameter[self._nearest(np.nan_to_num(_rows(made.observed, 1)), uniform)] / self.scale
        truth, drawn = _rows(made.parameter, 1) / self.scale, _rows(made.draws, 2) / self.scale
        return np.linalg.norm(truth - point, axis=-1), np.linalg.norm(drawn - point[:, None], axis=-1)

    def _nearest(self, observed: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        pool, rows = self.observed / self.observed_scale, observed / self.observed_scale
        found = np.empty(len(rows), dtype=int)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            square = np.sum(block**2, axis=1)[:, None] - 2 * block @ pool.T + np.sum(pool**2, axis=1)
            near = square <= square.min(axis=1, keepdims=True)  # many, where observations are discrete
            rank = np.floor(uniform[start : start + _BLOCK] * near.sum(axis=1))[:, None]
            found[start : start + _BLOCK] = np.argmax((np.cumsum(near, axis=1) > rank) & near, axis=1)
        return found


def _rows(tree: Any, leading: int) -> np.ndarray:
    """The leaves of a PyTree beside each other, with `leading` axes kept."""
    leaves = [np.asarray(leaf, dtype=float) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:leading], -1) for leaf in leaves], axis=-1)


def _spread(rows: np.ndarray) -> np.ndarray:
    """Half the width of the middle 68 % of each column, which heavy tails do not move; 1 where nothing varies."""
    low, high = np.quantile(rows, [0.16, 0.84], axis=0)
    return np.where(high > low, (high - low) / 2, 1.0)
