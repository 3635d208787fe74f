"""What a fit has learned: parameters, how sure they are, and what they mean."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ._fit import Posterior
from ._likelihood import Likelihood
from ._panel import PanelData
from ._rate_model import Parameters, RateModel


class Knowledge(eqx.Module):
    """Parameters at the maximum and their covariance; the posterior itself, so that draws can be weighted.

    - `states`: names. `covariate_names`.
    """

    posterior: Posterior
    parameters: Parameters
    covariance: Float[Array, "P P"]
    states: tuple[str, ...] = eqx.field(static=True)
    covariate_names: tuple[str, ...] = eqx.field(static=True)

    @staticmethod
    def of(posterior: Posterior, parameters: Parameters, covariance: Any, panel: PanelData) -> "Knowledge":
        """Of a fit to a panel."""
        size = posterior.likelihood.model.num_states
        names = panel.states or tuple(map(str, range(size)))
        return Knowledge(posterior, parameters, jnp.asarray(covariance), names, panel.covariate_names)

    @property
    def model(self) -> RateModel:
        """How rates depend on parameters."""
        return self.posterior.likelihood.model

    @property
    def edge_names(self) -> tuple[str, ...]:
        """From and to."""
        return tuple(f"{self.states[i]}->{self.states[j]}" for i, j in self.model.edges)

    def rates(self, parameters: Parameters | None = None) -> Float[Array, "k k"]:
        """As a matrix, covariates at their centre."""
        return self.model.matrix(self.model.rates_of(self.parameters if parameters is None else parameters))

    def told(self, parameters: Parameters) -> dict[str, Array]:
        """What parameters mean, by name: "rates" of the edges first."""
        found = {"rates": self.model.rates_of(parameters)}
        if "effects" in parameters:
            found["hazard_ratios"] = jnp.exp(parameters["effects"])
        found |= self.posterior.likelihood.emission.told(parameters)
        generator = self.model.generators(parameters, self.model.centre[None])[0]
        law = self.posterior.likelihood.initial_law(parameters, generator)
        if "initial_logits" in parameters and law is not None:
            found["initial_law"] = law
        return found

    def names_of(self, chosen: Bool[np.ndarray, " P"]) -> list[str]:
        """Names of some of the parameters."""
        names, offset = [], 0
        for name in sorted(self.parameters):
            size = int(np.size(self.parameters[name]))
            if name == "log_rates":
                each = [f"rate {edge}" for edge in self.edge_names]
            else:
                each = [f"{name}[{n}]" for n in range(size)]
            names += [word for word, yes in zip(each, chosen[offset : offset + size], strict=True) if yes]
            offset += size
        return names

    def vector(self) -> tuple[np.ndarray, Any]:
        """Parameters as one vector, and the way back."""
        vector, unravel = ravel_pytree(self.parameters)
        return np.asarray(vector, float), unravel

    def likelihood_of(self, panel: PanelData) -> Likelihood:
        """The same model for other data, row by row; raises `ValueError` where states or covariates are others."""
        if panel.covariate_names != self.covariate_names:
            raise ValueError(
                f"`data` must have the covariates {list(self.covariate_names)}; got {list(panel.covariate_names)}."
            )
        if panel.states and panel.states != self.states:
            raise ValueError(f"`data` must have the states {list(self.states)}; got {list(panel.states)}.")
        one = self.posterior.likelihood
        initial = one.initial if one.initial_probs is None else one.initial_probs
        return Likelihood.of(panel, one.model, one.emission, initial, sequenced=True)

    def log_likelihood(self, panel: PanelData) -> Float[Array, " K"]:
        """Of each subject of a panel."""
        likelihood = self.likelihood_of(panel)
        return eqx.filter_jit(likelihood.by_subject)(self.parameters)[: panel.num_subjects]


def place_of(states: tuple[str, ...], name: Any) -> int:
    """The place of a name among names; raises `ValueError` where there is none."""
    if str(name) not in states:
        raise ValueError(f"There is no state {name!r}; there are {list(states)}.")
    return states.index(str(name))
