"""What a state lets one see: labels that may be wrong, or a noisy signal."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._intervals import roomy
from ._panel import PanelData
from ._rate_model import Parameters


class Rows(eqx.Module):
    """Rows of panel data as emissions read them.

    - `possible`: `(N, k)`, the labels that a row may stand for. `signal`: `(N,)`, NaN where missing.
    """

    possible: Bool[Array, "N k"]
    signal: Float[Array, " N"]

    @staticmethod
    def of(panel: PanelData, num_states: int) -> "Rows":
        """Those of a panel."""
        size, num = len(panel.time), roomy(len(panel.time))
        signal = np.full(num, np.nan)
        possible = np.ones((num, num_states), bool)
        if panel.signal is not None:
            signal[:size] = panel.signal
        else:
            possible[:size] = panel.possible()
        return Rows(jnp.asarray(possible), jnp.asarray(signal))


class Emission(eqx.Module):
    """The law of what is seen in each state."""

    @abc.abstractmethod
    def log_probs(self, parameters: Parameters, rows: Rows) -> Float[Array, "N k"]:
        """Log probability (density) of each row in each state."""

    def start(self, rows: Rows) -> Parameters:
        """Parameters to begin with; none where the law is known."""
        del rows
        return {}

    def told(self, parameters: Parameters) -> dict[str, Array]:
        """What the parameters mean, by name."""
        del parameters
        return {}


class _Labels(Emission):
    """Labels, given the state by a matrix."""

    @abc.abstractmethod
    def matrix(self, parameters: Parameters, num_states: int) -> Float[Array, "k k"]:
        """Row: the label; column: the state; columns sum to 1."""

    def log_probs(self, parameters: Parameters, rows: Rows) -> Float[Array, "N k"]:
        """See `Emission`; sums over the labels that a row may stand for."""
        found = rows.possible @ self.matrix(parameters, rows.possible.shape[1])
        return jnp.where(found > 0, jnp.log(jnp.where(found > 0, found, 1.0)), -jnp.inf)


class TrueLabels(_Labels):
    """States are seen as they are."""

    def matrix(self, parameters: Parameters, num_states: int) -> Float[Array, "k k"]:
        """See `_Labels`."""
        del parameters
        return jnp.eye(num_states)


class FlippedLabels(_Labels):
    """A label is wrong with probability e, and then any other one, equally likely.

    - `prob`: e; None to estimate it. `exempt`: places of states that are always seen as they are, such as death.
    """

    prob: float | None = None
    exempt: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        if self.prob is not None and not 0 <= self.prob < 1:
            raise ValueError(f"`prob`, of a wrong label, must lie in [0, 1); got {self.prob!r}.")

    def start(self, rows: Rows) -> Parameters:
        """See `Emission`: the log odds of e."""
        del rows
        return {"log_odds_noise": jnp.asarray(-3.0)} if self.prob is None else {}

    def matrix(self, parameters: Parameters, num_states: int) -> Float[Array, "k k"]:
        """See `_Labels`."""
        prob = self.told(parameters)["noise"] if self.prob is None else jnp.asarray(self.prob)
        open_ = ~np.isin(np.arange(num_states), self.exempt)
        flips = np.outer(open_, open_) * (1 - np.eye(num_states)) / max(open_.sum() - 1, 1)
        return jnp.eye(num_states) + prob * jnp.asarray(flips - np.diag(flips.sum(0)))

    def told(self, parameters: Parameters) -> dict[str, Array]:
        """See `Emission`."""
        return {"noise": jax.nn.sigmoid(parameters["log_odds_noise"])} if self.prob is None else {}


def _nested(matrix: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.asarray(matrix, float).tolist()))


class ConfusedLabels(_Labels):
    """Labels given the state by a known matrix.

    - `probs`: row: the state; column: the label; rows sum to 1.
    """

    probs: tuple[tuple[float, ...], ...] = eqx.field(static=True, converter=_nested)

    def __check_init__(self):
        probs = np.asarray(self.probs)
        if probs.ndim != 2 or probs.shape[0] != probs.shape[1] or (probs < 0).any():
            raise ValueError(f"`probs` must be a square matrix of probabilities; got shape {probs.shape}.")
        if (np.abs(probs.sum(1) - 1) > 1e-6).any():
            raise ValueError(f"Rows of `probs` must sum to 1; they sum to {probs.sum(1).round(6).tolist()}.")

    def matrix(self, parameters: Parameters, num_states: int) -> Float[Array, "k k"]:
        """See `_Labels`."""
        del parameters
        if len(self.probs) != num_states:
            raise ValueError(f"`probs` is for {len(self.probs)} states; the data have {num_states}.")
        return jnp.asarray(self.probs).T


class GaussianSignal(Emission):
    """A signal that is normal around a level of each state; levels and spreads are estimated.

    - `shared_sd`: one standard deviation for all states.
    """

    shared_sd: bool = eqx.field(static=True, default=True)

    def start(self, rows: Rows) -> Parameters:
        """See `Emission`; levels at quantiles of the signal."""
        signal = np.asarray(rows.signal)
        seen, size = signal[np.isfinite(signal)], rows.possible.shape[1]
        levels = np.quantile(seen, (np.arange(size) + 0.5) / size)
        sd = np.log(max(float(seen.std()), 1e-6) / size)
        return {"levels": jnp.asarray(levels), "log_sds": jnp.full(1 if self.shared_sd else size, sd)}

    def log_probs(self, parameters: Parameters, rows: Rows) -> Float[Array, "N k"]:
        """See `Emission`; 0 where the signal is missing."""
        missing = jnp.isnan(rows.signal)[:, None]
        signal = jnp.where(missing, 0.0, rows.signal[:, None])
        logs = jax.scipy.stats.norm.logpdf(signal, parameters["levels"], jnp.exp(parameters["log_sds"]))
        return jnp.where(missing, 0.0, logs)

    def told(self, parameters: Parameters) -> dict[str, Array]:
        """See `Emission`."""
        return {"levels": parameters["levels"], "sds": jnp.exp(parameters["log_sds"])}
