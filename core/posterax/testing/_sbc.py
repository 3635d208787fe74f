"""sbc(): simulation-based calibration. Ranks of true parameters among posterior draws must be uniform."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from scipy import stats

from .._arviz import pit_tree, save_plot
from .._errors import SamplingError
from .._keys import named
from ._answers import place
from ._calibration import Method, Round, over_simulations
from ._invariance import scalars
from ._joint import JointModel
from ._statistics import Tests, are_uniform

_LEVEL = 0.01  # of all tests together, for the words
_MOST = 16  # panels of a plot


class SBC(NamedTuple):
    """What `sbc` finds.

    - `ranks`: by quantity, `(num_simulations,)`: how many of `num_draws` draws lie below the truth, ties broken at
      random; of weighted draws their weight below it, as a rank.
    - `u`: by quantity, `(num_simulations,)`: the same on (0, 1), exactly uniform for a correct method.
    - `num_draws`: draws that each truth was ranked among.
    - `tests`: of location, spread and shape for each quantity; p-values are exact whatever the number of simulations.
    """

    ranks: dict[str, np.ndarray]
    u: dict[str, np.ndarray]
    num_draws: int
    tests: Tests

    @property
    def p_value(self) -> float:
        """Of all tests together, by Bonferroni; small where the posterior is wrong."""
        return self.tests.p_value

    @property
    def words(self) -> str:
        """What is wrong with the posterior, the clearest fault first; or that nothing was found."""
        table = self.summary()
        faults = table[table["finding"] != "nothing found"]
        if faults.empty:
            return f"Nothing found in {len(next(iter(self.u.values())))} simulations, p = {self.p_value:.2g}."
        told = [f"{name}: {row['finding']}" for name, row in faults.head(3).iterrows()]
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        return f"{'; '.join(told)}{more} (p = {self.p_value:.2g})."

    def summary(self):
        """One row a quantity, the oddest first: a pandas DataFrame.

        - `mean_score`: mean of the normal scores of `u`, 0 if right: by how many posterior standard deviations the
          truth lies above the draws, about.
        - `sd_score`: their standard deviation around 0, 1 if right, above 1 where the posterior is too narrow.
        - `p_location`, `p_spread`, `p_shape`: of the three tests.
        - `finding`: in words, at a level of 0.01 for all tests together.
        """
        import pandas as pd

        p = np.reshape(self.tests.p_values, (3, -1)).T
        rows = {}
        for (name, u), p_values in zip(self.u.items(), p, strict=True):
            score = scores(u)
            rows[name] = {
                "mean_score": float(score.mean()), "sd_score": float(np.sqrt(np.mean(score**2))),
                "p_location": p_values[0], "p_spread": p_values[1], "p_shape": p_values[2],
                "finding": finding(u, p_values, p.size),
            }  # fmt: skip
        table = pd.DataFrame.from_dict(rows, orient="index")
        return table.iloc[np.argsort(p.min(axis=1), kind="stable")]

    def to_datatree(self):
        """The values `u` as ArviZ's group `prior_sbc`, for `arviz_plots.plot_ecdf_pit`."""
        return pit_tree(self.u)

    def plot(self, path: str | os.PathLike, *, names: Sequence[str] | None = None) -> None:
        """Write a PNG: distribution function of `u` less that of the uniform, with simultaneous 99 % bands, by ArviZ.

        A curve that leaves the band: an S that first rises and then falls below is a posterior that is too narrow, its
        mirror image one too wide, an arch above draws that lie too high, below too low.

        - `names`: which quantities; by default all, or the 16 oddest.

        Source: Säilynoja, Bürkner and Vehtari (2022), arXiv:2103.10522.
        """
        chosen = list(self.summary().index[:_MOST]) if names is None else list(names)
        if unknown := sorted(set(chosen) - set(self.u)):
            raise ValueError(f"`names` has {unknown}; the quantities are {list(self.u)}.")
        save_plot(pit_tree({name: u for name, u in self.u.items() if name in chosen}), "ecdf_pit", path)


def finding(u: np.ndarray, p_values: np.ndarray, num_tests: int) -> str:
    """What three p-values (location, spread, shape) of one quantity's `u` say, with `num_tests` in all."""
    score, level = scores(u), _LEVEL / num_tests
    mean, sd = float(score.mean()), float(score.std())
    words = []
    # Scores that are too wide have a mean that strays: only what strays beyond that is out of place.
    if p_values[0] < level and abs(mean) * np.sqrt(len(u)) > max(1.0, sd) * stats.norm.isf(level / 2):
        words.append("draws lie too low" if mean > 0 else "draws lie too high")
    if p_values[1] < level and (not words or not 0.9 < sd < 1.1):
        words.append("posterior too narrow" if sd > 1 else "posterior too wide")
    if not words and min(p_values) < level:
        words.append("posterior of the wrong shape")
    return ", ".join(words) or "nothing found"


def scores(u: np.ndarray) -> np.ndarray:
    """The normal scores of values on (0, 1)."""
    return stats.norm.ppf(np.clip(u, 1e-12, 1 - 1e-12))


def sbc(
    method: Method,
    joint: JointModel,
    *,
    num_simulations: int = 500,
    num_draws: int = 99,
    quantities: Callable[[dict[str, Array], Any], Mapping[str, Array]] | None = None,
    key: PRNGKeyArray,
    progress: bool | None = None,
) -> SBC:
    """Simulation-based calibration: is the posterior right, on average over data sets that the model itself makes?

    A parameter is drawn from the prior and data given it. If the method is right, the parameter is one more draw from
    the posterior of these data: its rank among the method's draws is uniform. This is looked at for each scalar of the
    parameter, and for the log-likelihood of the data where the joint has a posterior: a method that ignores the data
    and returns the prior passes on the parameter alone, and fails there.

    - `method`: a `Sampler` or `PopulationSampler`, which `posterax.sample` runs on the posterior of each data set (four
      chains, lengthened until they are worth `num_draws` independent draws, and thinned to these; or one population);
      a fitted `Estimator`; or a function of (observed, key) that returns a distribution, `Draws`, or arrays of draws by
      name: for other settings, plans or pipelines. Estimators and functions are run inside `vmap` where that works.
    - `joint`: prior, simulator and, for samplers, posterior.
    - `num_simulations`: data sets. 500 nearly always find an sd that is off by 15 %, or a mean by 0.2 sd.
    - `num_draws`: draws that each truth is ranked among.
    - `quantities`: function of (parameter, observed), more scalars by name. Those that depend on the data see faults
      that parameters alone hide.
    - `progress`: a progress bar; None shows one where somebody looks.

    Warns where draws are worth too few independent ones. Raises `SamplingError`, which names the simulation, where
    draws or quantities are not finite or a run breaks; `ValueError` and `TypeError` for arguments and answers out of
    place.

    Source: Talts et al. (2018), arXiv:1804.06788; quantities that depend on the data: Modrák et al. (2022),
    arXiv:2211.02383.
    """

    def reduce(made: Round, keys: Array) -> dict[str, np.ndarray]:
        truth, drawn = jax.tree.map(np.asarray, _quantities(joint, quantities, *made[:3]))
        names = list(truth)
        true, values = (np.stack([table[name] for name in names], axis=-1) for table in (truth, drawn))
        if (bad := np.isnan(true) | np.isnan(values).any(axis=1)).any():
            which = sorted({names[column] for column in np.argwhere(bad)[:, 1]})
            raise SamplingError(f"`quantities` gave NaN for {which} at the parameter or at draws of the method.")
        uniform = np.asarray(jax.vmap(lambda key: jr.uniform(named(key, "ties"), (len(names),)))(keys))
        weights = None if made.log_weights is None else np.asarray(made.log_weights)
        u = place(values < true[:, None], values == true[:, None], weights, uniform)
        return dict(zip(names, u.T, strict=True))

    u = over_simulations(
        method, joint, reduce, num_simulations=num_simulations, num_draws=num_draws, key=key, progress=progress,
        title="sbc",
    )  # fmt: skip
    ranks = {name: np.floor(values * (num_draws + 1)).astype(int) for name, values in u.items()}
    return SBC(ranks, u, num_draws, are_uniform(list(u), np.stack(list(u.values()), axis=1)))


@eqx.filter_jit
def _quantities(joint: JointModel, extra: Any, parameter, observed, draws):
    """Quantities of the parameters, `(n,)`, and of the draws, `(n, L)`."""

    def one(pair):
        parameter, observed, draws = pair

        def of(values):
            found = scalars(values)
            if joint.posterior is not None:
                found |= _log_likelihood(joint, values, observed)
            return found if extra is None else {**found, **extra(values, observed)}

        return of(parameter), jax.vmap(of)(draws)

    return jax.lax.map(one, (parameter, observed, draws), batch_size=64)


def _log_likelihood(joint: JointModel, values, observed) -> dict[str, Array]:
    target = joint.target(observed)
    terms = target.density.terms(target.unconstrain(values))
    known = terms.log_prior is not None
    term = jnp.asarray(terms.log_likelihood if known else terms.log_joint)
    term = jnp.where(jnp.isnan(term), -jnp.inf, term)  # a draw outside the support
    return {"log-likelihood" if known else "log density": term}
