"""Marginalization models: any marginal of a discrete law in one pass of a network."""

import dataclasses
import os
import warnings
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
from jaxtyping import Array, PRNGKeyArray
from posterax import Checkpoint, Draws, Estimator, Objective, PosteraxWarning, check_key
from posterax._keys import named

from ._architectures import Architecture, Dense
from ._checks import AnswerReport, answer_errors, by_orders
from ._columns import Columns
from ._energy import Energy, log_weights
from ._gibbs import run_chains
from ._law import ConditionalLaw, log_marginals, log_probs
from ._log_partition import LogPartition, corrected, labels_of, log_partition
from ._marginals import Marginals
from ._settings import check_settings
from ._stages import completed
from ._support import Support
from ._train import Fitted, fit_data, fit_energy

_IMPOSSIBLE = 20.0  # nats below the least likely subset seen: as good as never


class MarginalizationModel(Estimator):
    r"""Marginals of any subset, conditionals in any order, of a law over discrete variables.

    Learned from a table, from integers, or from an energy. $\log p(x_S)$ costs one pass of a network, whatever S;
    draws cost one pass a missing variable. Both networks are approximations, and not exactly consistent with each
    other: `error_report` says how far off an answer may be, and `log_marginal_by_orders`, `corrected` and
    `log_partition` are the slower checks.

    - `architecture`: `Dense`, `Lattice`, `Sequence`, or one of yours. `marginal_architecture`: of marginals, if other.
    - `objective`: None for the default; for data a `SelfConsistency`; for energies "db", "kl", or a `DetailedBalance`
      or `KullbackLeibler` with settings of its own (their energy is replaced by what is fitted).
    - `joint`: for data: both networks at once instead of two stages; rows must then be complete.
    - `num_steps`: of Adam; for data of the first stage, `marginal_steps` of the second. `batch_size`: rows in a step.
    - `learning_rate`: it rises over a twentieth of the steps, then falls to 0 as a cosine. `weight_decay`: of the
      conditionals, where they are learned from data.
    - `num_imagined`: draws of the conditionals that the second stage learns from beside the data.
    - `max_skipped`: steps that may be skipped, because of losses that are not finite, before training fails.

    Fitted fields: `model`, the networks, whose methods can be jitted; `columns`; `energy`; `support`, what training has
    seen; `report`, a dictionary: "consistency", rms residual and swap by the number of variables observed, as a list of
    rows; "loss", "residual", "num_steps", "num_skipped", "num_weights", "result_code", "history", and of data
    "num_rows", those with any value.

    Source: Liu, Ramadge and Adams (2024), "Generative Marginalization Models", arXiv:2310.12920.
    """

    architecture: Architecture = dataclasses.field(default_factory=Dense)
    marginal_architecture: Architecture | None = None
    objective: str | Objective | None = None
    joint: bool = eqx.field(static=True, default=False)
    num_steps: int = eqx.field(static=True, default=3000)
    marginal_steps: int = eqx.field(static=True, default=2000)
    batch_size: int = eqx.field(static=True, default=128)
    learning_rate: float = eqx.field(static=True, default=2e-3)
    weight_decay: float = eqx.field(static=True, default=0.1)
    num_imagined: int = eqx.field(static=True, default=8192)
    max_skipped: int = eqx.field(static=True, default=0)
    model: Marginals | None = None
    columns: Columns | None = None
    energy: Energy | None = None
    support: Support | None = None
    report: dict[str, Any] | None = None
    infers: ClassVar = "distribution"

    def __check_init__(self):
        check_settings(self)

    # Learning

    def fit(
        self,
        data: Any,
        *,
        key: PRNGKeyArray,
        num_values: tuple[int, ...] | None = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ) -> "MarginalizationModel":
        """A copy that has learned a law.

        - `data`: a pandas frame with categorical columns (or ones with few values), NaN where a value is missing; an
          array `(n, D)` of integers from 0, with -1 or NaN where a value is missing; or an `Energy`.
        - `num_values`: of each column of an array; the largest value in it, and one, by default.
        - `checkpoint`, `progress`: as in `posterax.train`. A killed training goes on from its checkpoint.

        Raises `ValueError` or `TypeError` for data that are not discrete, and for energies that are NaN, +inf, or not
        written in JAX; `TrainingError` where more than `max_skipped` steps were not finite.
        """
        key = check_key(key, "MarginalizationModel.fit")
        run = {"checkpoint": checkpoint, "progress": progress, "max_skipped": self.max_skipped}
        if isinstance(data, Energy):
            if num_values is not None:
                raise ValueError("`num_values` is for arrays; an Energy has its own.")
            fitted: Fitted = fit_energy(self, data, key=key, **run)
        else:
            columns = Columns.of(data, num_values)
            fitted = fit_data(self, columns, *columns.encode(data, "data"), key=key, **run)
        return dataclasses.replace(self, **fitted._asdict())

    # Answers in one or two passes

    def log_marginal(self, x: Any, observed: Any = None, *, check: bool = True) -> np.ndarray:
        """Log p(x_S) in nats, approximately, from one pass of the network.

        - `x`: rows, as a frame, a mapping or integers; missing values are summed out.
        - `observed`: names of columns, or booleans that broadcast with `x`: only these count; by default all that are
          there.
        - `check`: warn where a query is less likely than anything training has seen.

        Shape `(...,)` as the rows. 0 where nothing is observed. An energy's value where everything is: log f - log Z.
        """
        x, there = self._given(x, observed, "observed")
        found = self._heights(x, there)
        if check and (outside := self._support().outside(x, there, found)).any():
            warnings.warn(
                f"{outside.sum()} of {outside.size} queries are less likely than anything training has seen, or hold "
                "values that never came: their log marginals are guesses. `error_report` tells how far off.",
                PosteraxWarning, stacklevel=2,
            )  # fmt: skip
        return found

    def log_conditional(self, x: Any, of: Any, given: Any, *, check: bool = True) -> np.ndarray:
        """Log p(x_A | x_B) in nats, approximately, from two passes: the difference of two log marginals.

        - `x`: rows with values for A and B. `of`, `given`: A and B, names of columns or booleans. What is in both
          counts as given.

        Raises `ValueError` where values are missing, or the evidence x_B has probability zero.
        """
        x, there = self._given(x, None, "x")
        columns = self.fitted()[1]
        target, known = (columns.mask(m, there.shape, name) for m, name in ((of, "of"), (given, "given")))
        if lacks := [columns.names[d] for d in np.unique(np.nonzero((target | known) & ~there)[-1])]:
            raise ValueError(f"`x` has no value for {lacks}, which `of` or `given` name.")
        evidence = self._heights(x, known)
        never = np.asarray(~(evidence > self._support().least[known.sum(-1)] - _IMPOSSIBLE))
        if never.any():
            raise ValueError(
                f"The evidence of {never.sum()} of {never.size} queries has probability zero, as far as the model "
                "knows: nothing can be conditioned on it."
            )
        return self.log_marginal(np.where(there, x, -1), target | known, check=check) - evidence

    def probs(self, x: Any, observed: Any = None) -> np.ndarray:
        """Probabilities of every variable's values given what is observed, `(..., D, K)`, from one pass.

        Observed variables have probability 1 at their values. See `log_marginal` for `x` and `observed`.
        """
        model, columns = self.fitted()
        x, there = self._given(x, observed, "observed")
        found = np.exp(np.asarray(log_probs(model, _rows(x), _rows(there)))).reshape(*x.shape, -1)
        return np.where(there[..., None], np.arange(max(columns.num_values)) == x[..., None], found)

    def is_outside(self, x: Any, observed: Any = None) -> np.ndarray:
        """Whether queries hold values that never came, or are 3 nats less likely than what was seen of their size."""
        x, there = self._given(x, observed, "observed")
        return self._support().outside(x, there, self._heights(x, there))

    # Draws, a pass for each missing variable

    def infer(
        self, observed: Any = None, *, prior: Any = None, key: PRNGKeyArray | None = None, order: Any = None
    ) -> ConditionalLaw:
        """The law of rows given some of their values: `sample(key, shape)` and `log_prob(value)`, in integers.

        - `observed`: rows with missing values; None: nothing is given.
        - `key`: for a random order of the missing variables; by default the order of the columns.
        - `order`: names or places of all columns, the order in which missing ones are drawn.
        """
        if prior is not None:
            raise ValueError("`prior` is not for marginalization models: the law was learned as it is.")
        model, columns = self.fitted()
        x, there = self._given(columns.nothing() if observed is None else observed, None, "observed")
        order = columns.order(order)
        if order is None:
            order = jnp.arange(model.size) if key is None else jr.permutation(check_key(key, "infer"), model.size)
        return ConditionalLaw(model, jnp.asarray(x), jnp.asarray(there), jnp.asarray(order))

    def sample(self, num: int, *, key: PRNGKeyArray, given: Any = None, order: Any = None) -> Any:
        """Rows drawn given some values: a frame where a frame was learned, else integers `(num, D)`.

        - `given`: one row with missing values, or a mapping from names to values; None: nothing is given.
        - `order`: names or places of all columns; by default each row has a random order of its own.
        """
        columns, key = self.fitted()[1], check_key(key, "MarginalizationModel.sample")
        x, there = (np.broadcast_to(a, (num, len(a))) for a in self._one_row(given))
        return columns.decode(np.asarray(self._completed(x, there, order, key)))

    def impute(self, data: Any, *, key: PRNGKeyArray, order: Any = None) -> Any:
        """The same rows with missing values drawn given the others, in the form of `data`.

        Draws, not best guesses: call it with several keys for multiple imputation, or look at `probs`.
        """
        columns, key = self.fitted()[1], check_key(key, "MarginalizationModel.impute")
        x, there = self._given(data, None, "data")
        full = np.asarray(self._completed(_rows(x), _rows(there), order, key)).reshape(x.shape)
        if isinstance(data, pd.DataFrame):
            return columns.decode(full).set_index(data.index)
        return full

    # Checks

    def log_marginal_by_orders(
        self, x: Any, observed: Any = None, *, num_orders: int = 10, key: PRNGKeyArray
    ) -> np.ndarray:
        """Log p(x_S) by chained conditionals in random orders, `(num_orders, ...)`: |S| passes each.

        Orders differ by as much as the conditionals lack in consistency. The log of the mean of probabilities is the
        estimate of an ensemble; the mean of logs is lower.
        """
        key = check_key(key, "MarginalizationModel.log_marginal_by_orders")
        x, there = self._given(x, observed, "observed")
        found = by_orders(self.fitted()[0], _rows(x), _rows(there), num_orders, key=key)
        return np.asarray(found).reshape(num_orders, *x.shape[:-1])

    def error_report(self, x: Any, observed: Any = None, *, num_orders: int = 10, key: PRNGKeyArray) -> AnswerReport:
        """Log marginals with what is known of their errors: residuals, swapped pairs, orders; see `AnswerReport`."""
        key = check_key(key, "MarginalizationModel.error_report")
        x, there = self._given(x, observed, "observed")
        x, there = (a.reshape(-1, a.shape[-1]) for a in (x, there))
        found = answer_errors(self.fitted()[0], _rows(x), _rows(there), num_orders, key=key)
        heights, sizes = self._heights(x, there), there.sum(-1)
        outside = self._support().outside(x, there, heights)
        return AnswerReport(log_marginal=heights, outside=outside, num_observed=sizes, num_orders=num_orders, **found)

    def log_partition(self, num_draws: int = 4000, *, key: PRNGKeyArray) -> LogPartition:
        """Log Z of the energy: as learned, as a lower bound, and by importance sampling with its effective size."""
        key = check_key(key, "MarginalizationModel.log_partition")
        draws = self._weighted(None, num_draws, "log_partition", key)
        return log_partition(draws, float("nan") if self._anchored() else float(self.fitted()[0].log_partition))

    def corrected(self, num_draws: int = 4000, *, key: PRNGKeyArray, given: Any = None) -> Draws:
        """Weighted draws of the energy's law given some values: drawn by the conditionals, weighted by f.

        Integers, as the values "x". Their log evidence is that of Z p(given), without bias.
        """
        key = check_key(key, "MarginalizationModel.corrected")
        draws = self._weighted(given, num_draws, "corrected", key)
        return draws.recorded("corrected", component="marginalization-model", num_draws=num_draws)

    def chains(
        self, num_draws: int = 512, *, key: PRNGKeyArray, num_chains: int = 4, refresh: int = 4, threshold: float = 1.1
    ) -> Draws:
        """Block Gibbs: `refresh` variables of each chain are erased and drawn anew at a step.

        For an energy a Metropolis step makes f / Z invariant exactly; a law learned from data is that of its
        conditionals. Chains start at independent draws. Where split R-hat over 64 draws exceeds `threshold` all
        variables are proposed anew; the statistic "accepted" and the history tell.
        """
        model, columns = self.fitted()
        key = check_key(key, "MarginalizationModel.chains")
        nothing = np.zeros((num_chains, model.size), np.int32)
        first = self._completed(nothing, nothing.astype(bool), None, named(key, "first"))
        x, log_f, accepted, renewed = run_chains(
            model, first, num_draws, min(refresh, model.size), threshold, self.energy, key=key
        )
        draws = Draws(
            values={"x": x}, stats={"accepted": accepted}, labels=labels_of(columns),
            log_density=None if self.energy is None else log_f,
        )  # fmt: skip
        return draws.recorded("chains", component="marginalization-model", refresh=refresh, rejuvenated_after=renewed)

    # Within

    def fitted(self) -> tuple[Marginals, Columns]:
        """Networks and columns; raises `ValueError` where nothing has been learned."""
        if self.model is None or self.columns is None:
            raise ValueError("This MarginalizationModel has not been fitted: call `fit(data, key=...)` first.")
        return self.model, self.columns

    def _support(self) -> Support:
        assert self.support is not None  # comes with the model
        return self.support

    def _weighted(self, given: Any, num: int, method: str, key: PRNGKeyArray) -> Draws:
        model, columns = self.fitted()
        if self.energy is None:
            raise ValueError(f"`{method}` is for energies; this model was learned from data, whose log Z is 0.")
        x, there = (jnp.broadcast_to(a, (num, len(a))) for a in self._one_row(given))
        return corrected(model, self.energy, columns, x, there, key=key)

    def _anchored(self) -> bool:
        return bool(self.report and self.report.get("anchored"))

    def _one_row(self, given: Any) -> tuple[np.ndarray, np.ndarray]:
        x, there = self._given(self.fitted()[1].nothing() if given is None else given, None, "given")
        if x.ndim != 1:
            raise ValueError(f"`given` must be one row; got shape {x.shape}. For many rows there is `impute`.")
        return x, there

    def _given(self, x: Any, observed: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        columns = self.fitted()[1]
        x, there = columns.encode(x, "x" if name == "observed" else name)
        if observed is not None:
            asked = columns.mask(observed, there.shape, name)
            x, there = np.broadcast_to(x, asked.shape), np.broadcast_to(there, asked.shape)
            if (asked & ~there).any():
                raise ValueError("`observed` asks for values that are missing in `x`.")
            there = asked
        return np.asarray(x), np.asarray(there)

    def _heights(self, x: np.ndarray, there: np.ndarray) -> np.ndarray:
        model = self.fitted()[0]
        found = np.asarray(log_marginals(model, _rows(x), _rows(there)), float).reshape(x.shape[:-1])
        if self.energy is not None and not self._anchored() and (full := there.all(-1)).any():
            exact = np.asarray(log_weights(self.energy, _rows(x)), float).reshape(full.shape)
            found = np.where(full, exact - float(model.log_partition), found)
        return found

    def _completed(self, x: Any, there: Any, order: Any, key: PRNGKeyArray) -> Array:
        model, columns = self.fitted()
        return completed(model, x, there, key=key, order=columns.order(order))


def _rows(array: np.ndarray) -> Array:
    """All leading axes as one."""
    return jnp.asarray(array.reshape(-1, array.shape[-1]))
