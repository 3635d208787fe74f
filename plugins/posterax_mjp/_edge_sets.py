"""The posterior of edges and rates, edge set by edge set: for few states, where all of them can be tried."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from posterax import Draws, check_key
from posterax._precision import precision

from ._correction import Joint, matrix_labels
from ._fit import information, log_densities, maximise
from ._panel import PanelData, as_panel
from ._panel_summaries import readable
from ._prior import ProcessPrior
from ._start import crude_rates

_MOST_STATES, _FREEDOM, _MARGIN = 4, 5.0, 1e-6


def over_edge_sets(
    panel: PanelData, prior: ProcessPrior, *, noise: float = 0.0, initial: Float[np.ndarray, " k"] | None = None,
    num_draws: int = 400, key: PRNGKeyArray,
) -> Draws:  # fmt: skip
    """Weighted draws of "rates", `(k, k)`, of the exact posterior: `num_draws` for each edge set that the prior allows.

    For each, a Student t law around the mode of its log rates is weighted by likelihood and prior; the sum over all of
    them is the evidence. 3 states have at most 64 edge sets, 4 have 4,096.

    - `noise`: the share of wrong labels. `initial`: the law of the first states; by default they are given.

    Raises `ValueError` for more than four states.
    """
    key = check_key(key, "over_edge_sets")
    panel = readable(as_panel(panel, "panel"))
    size = panel.num_states
    if size > _MOST_STATES:
        raise ValueError(
            f"Edge sets are tried one by one for at most {_MOST_STATES} states; got {size}. `MJPFoundation.corrected` "
            "draws some of them."
        )
    with precision(64):
        joint = Joint.of(panel, prior, noise, initial)
        logs, rates = [], []
        for number, edges in enumerate(_edge_sets(size, prior)):
            one, weights = _draws_of(joint, edges, panel, num_draws, jr.fold_in(key, number))
            rates.append(one)
            logs.append(weights)
    log_weights = np.concatenate(logs)
    draws = Draws(
        values={"rates": np.concatenate(rates)[None]}, stats={}, labels=matrix_labels(panel.states),
        log_weights=log_weights[None],
        log_evidence=np.array([np.logaddexp.reduce(log_weights) - np.log(num_draws)]),
    )  # fmt: skip
    return draws.recorded("over_edge_sets", num_draws=num_draws, num_edge_sets=len(logs))


def _edge_sets(size: int, prior: ProcessPrior) -> list[Bool[np.ndarray, "k k"]]:
    start, end = np.nonzero(~np.eye(size, dtype=bool))
    sets = np.zeros((2 ** len(start), size, size), bool)
    sets[:, start, end] = np.array(list(itertools.product([False, True], repeat=len(start))))
    possible = np.asarray(jax.jit(jax.vmap(prior.edges.log_prob))(jnp.asarray(sets))) > -np.inf
    return list(sets[possible])


def _draws_of(
    joint: Joint, edges: Bool[np.ndarray, "k k"], panel: PanelData, num: int, key: PRNGKeyArray
) -> tuple[np.ndarray, np.ndarray]:
    """Rates and log weights; absent edges have standard normal numbers in their place, which cost nothing."""
    start, end = np.nonzero(~np.eye(len(edges), dtype=bool))
    density = _OnEdges(joint, jnp.asarray(edges[start, end]))
    begin = joint.prior.rates.inside(crude_rates(panel, len(edges)) * panel.horizon) / panel.horizon
    vector = np.where(edges, np.log(np.maximum(begin, _MARGIN)), 0.0)[start, end]
    mode, unravel = ravel_pytree(maximise(density, jnp.asarray(vector), 500).parameters)
    values, vectors = np.linalg.eigh(information(density, unravel, mode))
    root = vectors / np.sqrt(np.maximum(values, 0.05))
    drawn = np.asarray(jr.t(key, _FREEDOM, (num, len(mode))), float)
    proposal = jax.scipy.stats.t.logpdf(drawn, _FREEDOM).sum(1) - np.log(np.abs(np.linalg.det(root)))
    vectors = np.asarray(mode, float) + drawn @ root.T
    logs = np.asarray(log_densities(density, unravel, jnp.asarray(vectors)) - proposal, float)
    rates = np.zeros((num, *edges.shape))
    rates[:, start, end] = np.where(edges[start, end], np.exp(vectors), 0.0)
    return rates, np.where(np.isfinite(logs), logs, -np.inf)


class _OnEdges(eqx.Module):
    """The joint density of the logarithms of rates, of which those that are not `there` are spare."""

    joint: Joint
    there: Bool[Array, " E"]

    def log_density(self, vector: Float[Array, " E"]) -> Float[Array, ""]:
        """At a vector."""
        spare = jnp.sum(jnp.where(self.there, 0.0, jax.scipy.stats.norm.logpdf(vector)))
        return (
            self.joint.log_density_of_edges(jnp.where(self.there, jnp.exp(vector), 0.0)) + vector @ self.there + spare
        )
