"""Hidden paths: the likeliest one, and the probability of each state at each row."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from posterax._precision import precision

from ._estimator import MJPLikelihood
from ._likelihood import Likelihood
from ._panel import PanelData, as_panel
from ._rate_model import Parameters


def likeliest_paths(fitted: MJPLikelihood, data: PanelData) -> Int[np.ndarray, " N"]:
    """The likeliest states at the rows of each subject together (Viterbi's algorithm), by their places.

    Between rows nothing is told. Raises `ValueError` for data with other states or covariates than were fitted.
    """
    return _asked(fitted, data, _viterbi)


def state_probs(fitted: MJPLikelihood, data: PanelData) -> Float[np.ndarray, "N k"]:
    """The probability of each state at each row given all rows of the subject (forward and backward recursion)."""
    return _asked(fitted, data, _smoothed)


def _asked(fitted: MJPLikelihood, data: PanelData, function: Callable) -> np.ndarray:
    with precision(64):
        likelihood = fitted.fitted().likelihood_of(as_panel(data, "data"))
        found = np.asarray(eqx.filter_jit(function)(likelihood, fitted.fitted().parameters))
    there = np.asarray(likelihood.side_by_side.there)
    order = np.asarray(likelihood.side_by_side.row)[there]
    placed = np.empty((len(order), *found.shape[2:]), found.dtype)
    placed[order] = found[there]
    return placed


def _terms(likelihood: Likelihood, parameters: Parameters) -> tuple[Array, Array, Array]:
    """Log weights of rows `(L, K, k)`, log law of the first states `(k,)`, log steps `(T, k, k)`."""
    generators = likelihood.model.generators(parameters, likelihood.intervals.covariates)
    law = likelihood.initial_law(parameters, generators[0])
    law = jnp.ones(generators.shape[-1]) if law is None else law
    seen = likelihood.emission.log_probs(parameters, likelihood.rows)[likelihood.side_by_side.row]
    seen = jnp.where(likelihood.side_by_side.there[..., None], seen, 0.0)
    return seen, jnp.log(law), jnp.log(likelihood.intervals.matrices(generators))


def _viterbi(likelihood: Likelihood, parameters: Parameters) -> Int[Array, "L K"]:
    seen, law, steps = _terms(likelihood, parameters)
    there = likelihood.side_by_side.there

    def forth(best, given):
        which, weight, here = given
        through = best[:, :, None] + steps[which]
        back = jnp.argmax(through, 1)
        after = jnp.max(through, 1) + weight
        stay = jnp.broadcast_to(jnp.arange(best.shape[1]), back.shape)
        return jnp.where(here[:, None], after, best), jnp.where(here[:, None], back, stay)

    best, backs = jax.lax.scan(forth, law + seen[0], (likelihood.side_by_side.step, seen[1:], there[1:]))

    def home(state, back):
        before = jnp.take_along_axis(back, state[:, None], 1)[:, 0]
        return before, state

    first, rest = jax.lax.scan(home, jnp.argmax(best, -1), backs, reverse=True)
    return jnp.concatenate([first[None], rest])


def _smoothed(likelihood: Likelihood, parameters: Parameters) -> Float[Array, "L K k"]:
    seen, law, steps = _terms(likelihood, parameters)
    there, step = likelihood.side_by_side.there, likelihood.side_by_side.step

    def forth(alpha, given):
        which, weight, here = given
        after = jax.nn.logsumexp(alpha[:, :, None] + steps[which], 1) + weight
        after = jnp.where(here[:, None], after, alpha)
        return after, after

    def back(beta, given):
        which, weight, here = given
        before = jax.nn.logsumexp(steps[which] + (weight + beta)[:, None, :], 2)
        before = jnp.where(here[:, None], before, beta)
        return before, beta

    start = law + seen[0]
    _, alphas = jax.lax.scan(forth, start, (step, seen[1:], there[1:]))
    first, betas = jax.lax.scan(back, jnp.zeros_like(start), (step, seen[1:], there[1:]), reverse=True)
    alphas, betas = jnp.concatenate([start[None], alphas]), jnp.concatenate([first[None], betas])
    return jax.nn.softmax(alphas + betas, -1)
