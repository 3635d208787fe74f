"""Posterior draws of what practitioners read off rates."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from posterax import Draws
from posterax._labels import Labels
from posterax._precision import precision

from . import _answers
from ._estimator import MJPLikelihood
from ._generators import transition_probs
from ._knowledge import place_of

_DIMS = {
    "stationary_law": ("state",),
    "sojourn_times": ("state",),
    "first_passage_times": ("from", "to"),
    "relaxation_times": ("mode",),
    "committors": ("state",),
    "transition_probs": ("time", "from", "to"),
}


def generators(fitted: MJPLikelihood | None, draws: Draws) -> Float[np.ndarray, "chain draw k k"]:
    """Rate matrices of draws, covariates at their means; `fitted` is needed where the draws have lost their labels."""
    if fitted is None:
        rates = _labelled(draws)[0]
    else:
        with precision(64):
            rates = np.asarray(fitted.fitted().model.matrix(jnp.asarray(draws["rates"], float)))
    return rates - rates.sum(-1)[..., None] * np.eye(rates.shape[-1])


def _labelled(draws: Draws) -> tuple[Float[np.ndarray, "chain draw k k"], tuple[str, ...]]:
    """Matrices of rates, and the names of the states: by the labels of the draws, else numbers."""
    rates, coords = np.asarray(draws["rates"], float), draws.labels.coords
    if rates.ndim == 4 and rates.shape[-1] == rates.shape[-2]:
        return rates, tuple(map(str, coords.get("from", range(rates.shape[-1]))))
    states, edges = (tuple(map(str, coords.get(name, ()))) for name in ("state", "edge"))
    places = {f"{a}->{b}": (i, j) for i, a in enumerate(states) for j, b in enumerate(states) if i != j}
    if rates.ndim != 3 or len(edges) != rates.shape[-1] or not set(edges) <= set(places):
        raise ValueError(
            f"`draws` must hold matrices of rates, or rates of edges with their labels; got shape {rates.shape}. Give "
            "what was `fitted` too."
        )
    start, end = zip(*(places[edge] for edge in edges), strict=True)
    matrices = np.zeros((*rates.shape[:2], len(states), len(states)))
    matrices[..., start, end] = rates
    return matrices, states


def answers(
    fitted: MJPLikelihood | None,
    draws: Draws,
    *,
    times: ArrayLike | None = None,
    start: Sequence[Any] = (),
    end: Sequence[Any] = (),
) -> Draws:
    """The draws, with what follows from each: for ArviZ, or to look at quantiles.

    Added values: "sojourn_times", "relaxation_times", "first_passage_times" (inf where a state may never be reached);
    of chains with one stationary law "stationary_law" and "entropy_production"; "transition_probs" at `times`;
    "committors", the probability to reach `end` before `start`, names of states. Times are in the data's units.

    - `fitted`: what the draws came from; None where labels tell which rates they hold, as those of `infer` and of
      `MJPFoundation.draws` do.
    """
    matrices = generators(fitted, draws)
    states = _labelled(draws)[1] if fitted is None else fitted.fitted().states
    found = {
        "sojourn_times": _answers.sojourn_times(matrices),
        "relaxation_times": _answers.relaxation_times(matrices),
        "first_passage_times": _answers.first_passage_times(matrices),
    }
    try:
        found["stationary_law"] = _answers.stationary_law(matrices)
        found["entropy_production"] = _answers.entropy_production(matrices, found["stationary_law"])
    except ValueError:
        pass  # several stationary laws: neither has a meaning
    coords: dict[str, Any] = {"from": states, "to": states, "mode": np.arange(1, len(states))}
    if start or end:
        places = [[place_of(states, name) for name in names] for names in (start, end)]
        found["committors"] = _answers.committors(matrices, *places)
    if times is not None:
        times = np.atleast_1d(np.asarray(times, float))
        with precision(64):
            step = jax.jit(jax.vmap(lambda q: transition_probs(q, jnp.asarray(times))))
            flat = np.asarray(step(jnp.asarray(matrices.reshape(-1, *matrices.shape[-2:]))))
        found["transition_probs"] = flat.reshape(*matrices.shape[:2], *flat.shape[1:])
        coords["time"] = times
    dims = {name: dim for name, dim in _DIMS.items() if name in found}
    labels = Labels({**draws.labels.dims, **dims}, {**draws.labels.coords, **coords, "state": states})
    return draws.replace(values={**draws.values, **found}, labels=labels)
