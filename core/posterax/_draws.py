"""Draws: the currency. What samplers return, pipelines pass on, and ArviZ reads."""

import enum
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray
from scipy.special import logsumexp

from ._keys import check_key, named, restore_key
from ._labels import Labels


class Result(enum.Enum):
    """How a run ended."""

    SUCCESSFUL = "successful"
    INTERRUPTED = "interrupted"  # by Ctrl-C: the draws made so far, all valid
    NONFINITE = "nonfinite"  # a position or statistic became NaN or infinite

    @property
    def words(self) -> str:
        """What it means."""
        return {
            "successful": "The run reached its end.",
            "interrupted": "The run was interrupted; it holds the draws made until then.",
            "nonfinite": "A position or the log density became NaN; the draws before that are good.",
        }[self.value]


class Draws(eqx.Module):
    """Draws of named values, weighted or not, with what is known of where they come from.

    Arrays are NumPy's, so that results of a float64 run keep their digits in a float32 program. All have the leading
    axes (chain, draw); for populations a chain is an independent population and a draw one of its particles.

    - `values`: constrained values by name, `(chain, draw, *event)`, deterministic quantities included.
    - `stats`: sample statistics by name: `(chain, draw, ...)` for chains, `(chain, step, ...)` for populations.
    - `log_weights`: `(chain, draw)` with any constant, or None when unweighted.
    - `log_density`: `(chain, draw)`, the log density of the values that the weighted draws target, up to a constant; or
      None where it is not known.
    - `log_evidence`: `(chain,)`, an estimate of the log of that density's integral, or None.
    - `no_evidence`: why `log_evidence` is None.
    - `dependent`: True where resampling has made draws of one chain copies of each other.
    - `result`: how the run ended.
    - `history`: the steps that made these draws, as plain data: component, settings, key, plan, versions, figures.
    - `labels`: axis names and labels.
    """

    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    log_weights: np.ndarray | None = None
    log_density: np.ndarray | None = None
    log_evidence: np.ndarray | None = None
    no_evidence: str = "It was not asked for."
    dependent: bool = False
    result_code: str = "successful"
    history: tuple = ()
    labels: Labels = eqx.field(static=True, default_factory=Labels)

    def __check_init__(self):
        shapes = {name: np.shape(value)[:2] for name, value in self.values.items()}
        if not shapes or any(len(shape) < 2 for shape in shapes.values()) or len(set(shapes.values())) > 1:
            raise ValueError(f"`values` must be arrays of equal leading axes (chain, draw); got {shapes}.")
        for name in ("log_weights", "log_density"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != self.shape:
                raise ValueError(f"`{name}` must have shape {self.shape}, as the values; got {np.shape(array)}.")

    @property
    def shape(self) -> tuple[int, int]:
        """(number of chains, number of draws)."""
        num_chains, num_draws = np.shape(next(iter(self.values.values())))[:2]
        return num_chains, num_draws

    @property
    def num_chains(self) -> int:
        """Number of chains, or of independent populations."""
        return self.shape[0]

    @property
    def num_draws(self) -> int:
        """Draws in each chain."""
        return self.shape[1]

    @property
    def result(self) -> Result:
        """How the run ended; `.words` says what that means."""
        return Result(self.result_code)

    @property
    def next_key(self) -> PRNGKeyArray:
        """A key for whatever comes next, independent of every key that made these draws."""
        described = next((step["key"] for step in reversed(self.history) if "key" in step), None)
        if described is None:
            raise ValueError("These draws do not record a key. Make one with `jax.random.key(...)`.")
        return named(restore_key(described), "next")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise KeyError(f"No values {name!r}; there are {sorted(self.values)}.")
        return self.values[name]

    def __repr__(self):
        weighted = "weighted, " if self.log_weights is not None else ""
        ended = "" if self.result is Result.SUCCESSFUL else f", {self.result.value}"
        names = ", ".join(f"{name}{list(value.shape[2:]) or ''}" for name, value in self.values.items())
        return f"Draws({weighted}{self.num_chains} chains x {self.num_draws} draws of {names}{ended})"

    def mean(self) -> dict[str, np.ndarray]:
        """Weighted mean of each value over all chains and draws."""
        return self._summarise(lambda x, lw, weights: weights.weighted_mean(x, lw))

    def sd(self) -> dict[str, np.ndarray]:
        """Weighted standard deviation of each value over all chains and draws."""
        return self._summarise(lambda x, lw, weights: weights.weighted_sd(x, lw))

    def quantile(self, q) -> dict[str, np.ndarray]:
        """Weighted quantiles of each value over all chains and draws; for an array `q`, its axes come first."""
        return self._summarise(lambda x, lw, weights: weights.weighted_quantile(x, q, lw))

    def _summarise(self, statistic) -> dict[str, np.ndarray]:
        from . import weights
        from ._precision import precision

        with precision(64):
            flat = self.flat_log_weights()
            return {
                name: np.asarray(statistic(value.reshape(-1, *value.shape[2:]).astype(float), flat, weights))
                for name, value in self.values.items()
            }

    def flat_log_weights(self) -> np.ndarray:
        """Log-weights of all draws in one row, `(chain * draw,)`: zeros when unweighted.

        Independent populations count by their evidence where it is known, else equally.
        """
        if self.log_weights is None:
            return np.zeros(self.num_chains * self.num_draws)
        rows = np.asarray(self.log_weights, dtype=float)
        total = np.asarray(logsumexp(rows, axis=1, keepdims=True))
        rows = rows - np.where(np.isneginf(total), 0.0, total)  # a population without any weight stays without
        if self.log_evidence is not None:
            rows = rows + np.asarray(self.log_evidence, dtype=float)[:, None]
        return rows.ravel()

    def effective_sample_size(self) -> float:
        """Kish's effective size of the weights, 1 / sum of squares: what weighting has left of the draws."""
        from . import weights
        from ._precision import precision

        with precision(64):
            return float(weights.effective_sample_size(self.flat_log_weights()))

    def pareto_k(self) -> float:
        """Pareto k-hat of the weights: below 0.7 weighted means can be trusted. NaN after resampling."""
        from . import weights

        if self.dependent:
            return float("nan")
        return float(weights.pareto_k(self.flat_log_weights()))

    def resample(self, num_draws: int | None = None, *, key: PRNGKeyArray) -> "Draws":
        """Unweighted draws by systematic resampling of all chains together, as one chain.

        - `num_draws`: how many; by default about the effective sample size.
        """
        from . import weights
        from ._precision import precision

        key = check_key(key, "Draws.resample")
        size = max(1, round(self.effective_sample_size())) if num_draws is None else num_draws
        with precision(64):
            index = np.asarray(weights.Systematic()(self.flat_log_weights(), key=key, num=size))
        if (index < 0).any():
            raise ValueError("No draw has any weight, or a weight is NaN: there is nothing to resample from.")
        values = {name: value.reshape(-1, *value.shape[2:])[index][None] for name, value in self.values.items()}
        return self.replace(
            values=values,
            stats={},
            log_weights=None,
            log_density=None if self.log_density is None else self.log_density.ravel()[index][None],
            log_evidence=None,
            no_evidence="Resampling joined the chains.",
            dependent=True,
        )

    def replace(self, **changes: Any) -> "Draws":
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in type(self).__dataclass_fields__}
        return Draws(**{**fields, **changes})

    def recorded(self, step: str, **facts: Any) -> "Draws":
        """A copy with one more step in its history."""
        return self.replace(history=(*self.history, {"step": step, **facts}))

    def summary(self):
        """Mean, sd, quantiles and how far to trust them, one row a scalar: a pandas DataFrame.

        Unweighted chains: MCSE, bulk and tail ESS and R-hat by ArviZ. Weighted draws: the weights' ESS and k-hat.
        """
        from ._arviz import summary

        return summary(self)

    def to_datatree(
        self,
        target: Any = None,
        *,
        log_likelihood: bool = False,
        prior: int = 0,
        posterior_predictive: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        """The draws as an xarray `DataTree` in ArviZ's schema.

        `posterior` is always valid unweighted: weighted draws go to `weighted_posterior` with their `log_weights`, and
        a systematic resample of them, recorded in its attributes, to `posterior`.

        - `target`: needed for the groups below; also gives the group `observed_data`.
        - `log_likelihood`: add the pointwise log-likelihood, as `arviz_stats.loo` needs it.
        - `prior`: how many draws from the prior to add, with their predictions, as `prior` and `prior_predictive`.
        - `posterior_predictive`: add observations simulated at each draw.
        - `key`: needed where something is drawn, resampling included.
        """
        from ._arviz import to_datatree

        return to_datatree(
            self,
            target,
            log_likelihood=log_likelihood,
            prior=prior,
            posterior_predictive=posterior_predictive,
            key=key,
        )

    def to_arviz(self, target: Any = None, **groups: Any):
        """What the installed `import arviz as az` works on: `az.summary(draws.to_arviz())`. As `to_datatree`."""
        from ._arviz import for_installed_arviz

        return for_installed_arviz(self.to_datatree(target, **groups))


def flatten_chains(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values with chains and draws in one leading axis."""
    return {name: np.reshape(value, (-1, *np.shape(value)[2:])) for name, value in values.items()}
