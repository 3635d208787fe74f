"""Markov jump processes by their exact likelihood."""

import dataclasses
import warnings
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Draws, Estimator, PosteraxWarning, check_key
from posterax._precision import precision

from ._answers_frame import interval_table
from ._emissions import Emission, GaussianSignal, TrueLabels
from ._fit import Posterior, covariance, maximise
from ._knowledge import Knowledge
from ._likelihood import INITIAL, Likelihood
from ._panel import PanelData, as_panel
from ._posterior_draws import normal_draws, nuts_draws
from ._prior_rates import LogNormalRates, RatePrior
from ._rate_model import RateModel
from ._start import check_possible, crude_rates, undetermined_states

METHODS = ("ml", "map", "laplace", "nuts")


class MJPLikelihood(Estimator):
    r"""Rates of a Markov jump process from panel data, by its exact likelihood, in double precision.

    Successive snapshots count by $e^{Q d}$, exactly timed jumps and deaths by their densities, hidden states by the
    forward recursion.

    - `method`: "ml": the largest likelihood, and the normal law that its curvature gives. "map": the same with a prior.
      "laplace": that normal law's draws, weighted to the posterior. "nuts": draws by NUTS.
    - `edges`: `(k, k)` booleans, the jumps that can be made; all by default. A state whose row is empty is absorbing.
    - `reversible`: rates in detailed balance.
    - `emission`: `TrueLabels()`; `FlippedLabels()`, whose share may be estimated; `ConfusedLabels(matrix)`;
      `GaussianSignal()`.
    - `initial`: the law of the first states: "given": they are conditioned on; "stationary"; "estimated"; or
      probabilities. By default given where labels are true, else estimated.
    - `prior`: of the rates, in units of 1 / horizon, the longest time that a subject was followed; log-normal by
      default, unless the method is "ml". Rates are those at the covariates' means; of reversible ones it is the law of
      $\sqrt{q_{ij} q_{ji}}$.
    - `num_states`: for signals; else the data know.
    - `max_steps`: of L-BFGS. `num_warmup`, `num_draws`, `num_chains`: of NUTS; `num_draws` of the other methods too.

    Fitted fields: `known` (parameters, their covariance, rate model), `draws` (of NUTS), `report`: "log_likelihood",
    "num_parameters", "num_evaluations", "converged", "horizon", and "not_determined", names of parameters.

    Source: Kalbfleisch and Lawless (1985), JASA 80(392); Jackson (2011), doi:10.18637/jss.v038.i08.
    """

    method: Literal["ml", "map", "laplace", "nuts"] = eqx.field(static=True, default="ml")
    edges: tuple[tuple[bool, ...], ...] | None = eqx.field(
        static=True, default=None, converter=lambda e: None if e is None else _booleans(e)
    )
    reversible: bool = eqx.field(static=True, default=False)
    emission: Emission = TrueLabels()
    initial: str | tuple[float, ...] | None = eqx.field(
        static=True, default=None, converter=lambda v: v if v is None or isinstance(v, str) else tuple(map(float, v))
    )
    prior: RatePrior | None = None
    num_states: int | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=500)
    num_draws: int = eqx.field(static=True, default=1000)
    num_chains: int = eqx.field(static=True, default=4)
    known: Knowledge | None = None
    draws: Draws | None = None
    report: dict[str, Any] | None = None
    infers: ClassVar = "draws"
    precision: ClassVar = 64

    def __check_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}; got {self.method!r}.")
        if isinstance(self.initial, str) and self.initial not in INITIAL:
            raise ValueError(f"`initial` must be one of {', '.join(INITIAL)}, or probabilities; got {self.initial!r}.")
        if not isinstance(self.emission, Emission):
            raise TypeError(f"`emission` must be an Emission such as FlippedLabels(); got {self.emission!r}.")
        if self.prior is not None and not isinstance(self.prior, RatePrior):
            raise TypeError(f"`prior` must be a RatePrior such as LogNormalRates(); got {self.prior!r}.")
        for name in ("max_steps", "num_warmup", "num_draws", "num_chains"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)!r}.")

    def fit(
        self, data: PanelData, *, key: PRNGKeyArray, start: Float[np.ndarray, "k k"] | None = None,
        progress: bool | None = None,
    ) -> "MJPLikelihood":  # fmt: skip
        """A copy fitted to panel data.

        - `start`: rates to begin the search at; by default counted ones. `key` and `progress` are for NUTS.

        Raises `ValueError` for data that the model cannot make, or that cannot tell its rates; warns where a state was
        never left.
        """
        key = check_key(key, "MJPLikelihood.fit")
        panel = as_panel(data, "data")
        with precision(64):
            posterior, begin = self._posterior(panel, start)
            found = maximise(posterior, begin, self.max_steps)
            spread, fixed = covariance(posterior, found.parameters)
            known = Knowledge.of(posterior, found.parameters, spread, panel)
            draws = None
            if self.method == "nuts":
                draws = nuts_draws(known, self.num_warmup, self.num_draws, self.num_chains, key=key, progress=progress)
            report = {
                "log_likelihood": found.value - float(posterior.log_prior(found.parameters)),
                "num_parameters": len(spread), "num_evaluations": found.num_evaluations,
                "converged": found.converged, "horizon": panel.horizon, "not_determined": known.names_of(fixed),
            }  # fmt: skip
        if report["not_determined"] and self.method == "ml":
            warnings.warn(
                f"The data do not bound {', '.join(report['not_determined'])} from below, or not at all: no interval "
                'is given. With a prior (`method="map"`) there is one.', PosteraxWarning, stacklevel=2,
            )  # fmt: skip
        return dataclasses.replace(self, known=known, draws=draws, report=report)

    def infer(self, observed: PanelData | None = None, *, prior: Any = None, key: PRNGKeyArray | None = None) -> Draws:
        """Draws of "rates", `(edge,)`, and of all else that was estimated, given the data it was fitted to.

        - `observed`: other data, to which the same model is fitted first. `prior`: another prior of the rates.
        - `key`: for the draws; needed unless the method is "nuts".
        """
        if prior is not None or observed is not None:
            if observed is None:
                raise ValueError("`prior` changes the fit: give the data too, as `observed`.")
            key = check_key(key, "MJPLikelihood.infer")
            fitted = dataclasses.replace(self, prior=prior or self.prior).fit(observed, key=key)
            return fitted.infer(key=key)
        known = self.fitted()
        if self.draws is not None:
            return self.draws
        key = check_key(key, "MJPLikelihood.infer")
        with precision(64):
            return normal_draws(known, self.num_draws, weighted=self.method == "laplace", key=key)

    @property
    def rates(self) -> Float[np.ndarray, "k k"]:
        """Rates of largest likelihood or posterior density, covariates at their means; 0 off the edges."""
        with precision(64):
            return np.asarray(self.fitted().rates(), float)

    @property
    def generator(self) -> Float[np.ndarray, "k k"]:
        """The same with the diagonal that makes rows sum to 0: what `entropy_production` and its kin take."""
        return self.rates - np.diag(self.rates.sum(1))

    def table(self, level: float = 0.95, *, key: PRNGKeyArray | None = None) -> pd.DataFrame:
        """Everything estimated, with intervals of this level: one row a number.

        Normal on the scale of the logarithm (or log odds) for "ml" and "map"; quantiles of draws for the others, for
        which "laplace" needs a `key`.
        """
        draws = None
        if self.method in ("laplace", "nuts"):
            draws = self.infer(key=key)
        with precision(64):
            return interval_table(self.fitted(), draws, level)

    def log_likelihood(self, data: PanelData) -> Float[np.ndarray, " K"]:
        """Log-likelihood of each subject of these data at the fitted parameters, in nats: held-out ones, for instance.

        Covariates must be those that were fitted.
        """
        with precision(64):
            return np.asarray(self.fitted().log_likelihood(as_panel(data, "data")), float)

    def fitted(self) -> Knowledge:
        """What was learned; raises `ValueError` where nothing was."""
        if self.known is None:
            raise ValueError("This MJPLikelihood has not been fitted: call `fit(panel, key=...)` first.")
        return self.known

    def _posterior(self, panel: PanelData, start: Any) -> tuple[Posterior, dict[str, Array]]:
        size = self.num_states if panel.signal is not None else panel.num_states
        if size is None:
            raise ValueError("A signal does not tell how many states there are: set `num_states`.")
        if panel.signal is not None and not isinstance(self.emission, GaussianSignal):
            raise ValueError("These data are a signal: set `emission=GaussianSignal()`.")
        if not panel.follows.any():
            raise ValueError("No subject was seen twice: nothing is told about rates. Two rows of one are needed.")
        allowed = np.ones((size, size), bool) if self.edges is None else np.array(self.edges)
        if allowed.shape != (size, size):
            raise ValueError(f"`edges` must have shape ({size}, {size}), one row a state; got {allowed.shape}.")
        allowed = allowed & ~np.eye(size, dtype=bool)
        true = isinstance(self.emission, TrueLabels)
        if true:
            check_possible(panel, allowed)
            if (never := undetermined_states(panel, allowed)) and self.method == "ml":
                raise ValueError(
                    f"No subject was followed from state {', '.join(never)} on: the likelihood says nothing of its "
                    'exits. Set `method="map"`, leave its row of `edges` empty, or leave the state out.'
                )
        model = RateModel.of(allowed, self.reversible, panel.covariates.mean(0), panel.states)
        initial = self.initial or ("given" if true else "estimated")
        likelihood = Likelihood.of(panel, model, self.emission, initial)
        rates = crude_rates(panel, size) if start is None else np.asarray(start, float)
        prior = None if self.method == "ml" else (self.prior or LogNormalRates())
        if prior is not None:
            rates = prior.inside(rates * panel.horizon) / panel.horizon
        begin = likelihood.start(np.maximum(rates, 1e-12))
        spread = np.maximum(panel.covariates.std(0), 1e-12)
        scales = {name: jnp.full(jnp.shape(value), 3.0) for name, value in begin.items()}
        if "effects" in scales:
            scales["effects"] = scales["effects"] / spread
        if "levels" in scales:
            scales["levels"] = scales["levels"] * np.nanstd(np.asarray(panel.signal))
        return Posterior(likelihood, prior, begin, scales, jnp.asarray(panel.horizon)), begin


def _booleans(edges: Any) -> tuple[tuple[bool, ...], ...]:
    return tuple(map(tuple, np.asarray(edges, bool).tolist()))
