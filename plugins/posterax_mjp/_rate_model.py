"""How rates depend on parameters: free, in detailed balance, or log-linear in covariates."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._generators import generator, limit_law

Parameters = dict[str, Array]


class RateModel(eqx.Module):
    r"""Rates on the edges, as a function of unconstrained parameters.

    - `log_rates`: one an edge; or, in detailed balance, $q_{ij} = s_{ij} \sqrt{\pi_j / \pi_i}$, `log_conductances`, one
      a pair of states, and `log_law`: of the stationary law, less that of the first state, which is left out.
    - `effects`: `(edges, covariates)`: log hazard ratios for a unit of each covariate less `centre`.

    Fields: `edges`: (from, to), row by row; `num_states`; `reversible`; `num_covariates`; `centre`: of the
    covariates, one 0 without any.
    """

    num_states: int = eqx.field(static=True)
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)
    reversible: bool = eqx.field(static=True)
    num_covariates: int = eqx.field(static=True)
    centre: Float[Array, " C"]

    @staticmethod
    def of(allowed: Bool[np.ndarray, "k k"], reversible: bool, centre: Any = (), names: Any = None) -> "RateModel":
        """On the allowed edges; raises `ValueError` where there are none, or reversible ones without their reverse."""
        allowed = np.asarray(allowed, bool) & ~np.eye(len(allowed), dtype=bool)
        told = names or range(len(allowed))
        if not allowed.any():
            raise ValueError("`edges` allows no jump at all.")
        if reversible and (allowed != allowed.T).any():
            i, j = np.argwhere(allowed & ~allowed.T)[0]
            raise ValueError(f"`reversible` needs an edge {told[j]} -> {told[i]} beside {told[i]} -> {told[j]}.")
        if reversible and len(centre):
            raise ValueError("`reversible` has no covariates: these would break detailed balance.")
        edges = tuple((int(i), int(j)) for i, j in np.argwhere(allowed))
        return RateModel(
            len(allowed), edges, reversible, len(centre), jnp.asarray(centre if len(centre) else [0.0], float)
        )

    @property
    def num_edges(self) -> int:
        """How many."""
        return len(self.edges)

    def rates_of(self, parameters: Parameters) -> Float[Array, " E"]:
        """Rates of the edges, covariates at their centre."""
        if not self.reversible:
            return jnp.exp(parameters["log_rates"])
        law = jnp.concatenate([jnp.zeros(1), parameters["log_law"]])
        start, end = (jnp.asarray(side) for side in zip(*self.edges, strict=True))
        pair = {edge: number for number, edge in enumerate(self._pairs)}
        which = jnp.asarray([pair[min(edge), max(edge)] for edge in self.edges])
        return jnp.exp(parameters["log_conductances"][which] + 0.5 * (law[end] - law[start]))

    def generators(self, parameters: Parameters, covariates: Float[Array, "U C"]) -> Float[Array, "U k k"]:
        """Rate matrices at rows of covariates."""
        rates = self.rates_of(parameters)
        if self.num_covariates:
            shifts = (covariates - self.centre) @ parameters["effects"].T
            rates = rates * jnp.exp(shifts)
        else:
            rates = jnp.broadcast_to(rates, (len(covariates), self.num_edges))
        return generator(self.matrix(rates))

    def matrix(self, rates: Float[Array, "*B E"], edges: tuple[tuple[int, int], ...] = ()) -> Float[Array, "*B k k"]:
        """Rates of all edges, or of these, as a matrix, 0 elsewhere."""
        start, end = (jnp.asarray(side) for side in zip(*(edges or self.edges), strict=True))
        zeros = jnp.zeros((*rates.shape[:-1], self.num_states, self.num_states), rates.dtype)
        return zeros.at[..., start, end].set(rates)

    def start(self, rates: Float[np.ndarray, "k k"]) -> Parameters:
        """Parameters whose rates are these, or near them, effects 0."""
        found = np.asarray([rates[edge] for edge in self.edges])
        if not self.reversible:
            parameters = {"log_rates": jnp.log(found)}
        else:
            law = np.asarray(limit_law(generator(self.matrix(jnp.asarray(found)))), float)
            law = np.maximum(law, 1e-6)
            each = [0.5 * np.log(rates[i, j] * rates[j, i]) for i, j in self._pairs]
            parameters = {"log_conductances": jnp.asarray(each), "log_law": jnp.log(law[1:] / law[0])}
        if self.num_covariates:
            parameters["effects"] = jnp.zeros((self.num_edges, self.num_covariates))
        return parameters

    @property
    def free_edges(self) -> tuple[tuple[int, int], ...]:
        """Those of which each has a parameter: in detailed balance one of every pair."""
        return self._pairs if self.reversible else self.edges

    @property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        return tuple(edge for edge in self.edges if edge[0] < edge[1])
