"""The posterior by importance: draws of a network's law, weighted by the exact likelihood and the prior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Draws
from posterax._labels import Labels

from ._emissions import FlippedLabels, TrueLabels
from ._likelihood import Likelihood
from ._panel import PanelData
from ._prior import ProcessPrior
from ._rate_law import RateLaw
from ._rate_model import RateModel

_NONE = 1e-15  # in place of a rate of 0, per horizon, where logarithms are needed


def law_draws(law: RateLaw, panel: PanelData, num: int, *, key: PRNGKeyArray) -> Draws:
    """Draws of "rates", `(k, k)`, of a network's law."""
    rates = np.asarray(law.sample(key, (num,))["rates"], float)
    draws = Draws(values={"rates": rates[None]}, stats={}, labels=matrix_labels(panel.states))
    return draws.recorded("infer", component="mjp:mjp-foundation", num_draws=num, corrected=False)


def matrix_labels(states: tuple[str, ...]) -> Labels:
    """Of draws of "rates", `(k, k)`."""
    return Labels({"rates": ("from", "to")}, {"from": states, "to": states})


def corrected_draws(
    law: RateLaw, panel: PanelData, prior: ProcessPrior, noise: float, num: int, *, key: PRNGKeyArray
) -> Draws:
    """The same, weighted to the posterior of a prior whose densities are known.

    Labels are wrong with probability `noise`; then the first state has the law that `law` gives it. To be called in
    double precision.
    """
    draws = law_draws(law, panel, num, key=key)
    rates = jnp.asarray(draws["rates"][0])
    joint = Joint.of(panel, prior, noise, None if noise == 0 else np.asarray(law.initial, float))
    log_density = np.asarray(_log_densities(joint, rates), float)
    logs = log_density - np.asarray(jax.vmap(lambda r: law.log_prob({"rates": r}))(rates), float)
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    if not np.isfinite(logs).any():
        raise ValueError("No draw of the network's law is possible under likelihood and prior: polish instead.")
    evidence = np.logaddexp.reduce(logs) - np.log(num)
    draws = draws.replace(log_weights=logs[None], log_density=log_density[None], log_evidence=np.array([evidence]))
    return draws.recorded("infer", component="mjp:mjp-foundation", num_draws=num, corrected=True)


class Joint(eqx.Module):
    """Log density of data, edges and rates: likelihood and prior, in the data's units of time."""

    likelihood: Likelihood
    prior: ProcessPrior
    horizon: float

    @staticmethod
    def of(panel: PanelData, prior: ProcessPrior, noise: float, initial: Float[np.ndarray, " k"] | None) -> "Joint":
        """Of a panel whose labels are wrong with probability `noise`; first states are given, or have a known law."""
        model = RateModel.of(np.ones((panel.num_states,) * 2, bool), False)
        emission = TrueLabels() if noise == 0 else FlippedLabels(noise)
        law = "given" if initial is None else np.asarray(initial, float)
        return Joint(Likelihood.of(panel, model, emission, law), prior, panel.horizon)

    def log_density(self, rates: Float[Array, "k k"]) -> Float[Array, ""]:
        """At rates, of which those that are 0 are no edges."""
        start, end = (jnp.asarray(side) for side in zip(*self.likelihood.model.edges, strict=True))
        logs = jnp.log(jnp.maximum(rates[start, end], _NONE / self.horizon))
        scale = jnp.sum(rates > 0) * jnp.log(self.horizon)
        return self.likelihood.value({"log_rates": logs}) + self.prior.log_prob(rates * self.horizon) + scale

    def log_density_of_edges(self, rates: Float[Array, " E"]) -> Float[Array, ""]:
        """The same, of the rates of all pairs of states row by row."""
        return self.log_density(self.likelihood.model.matrix(rates))


@eqx.filter_jit
def _log_densities(joint: Joint, rates: Float[Array, "n k k"]) -> Float[Array, " n"]:
    return jax.lax.map(joint.log_density, rates)
