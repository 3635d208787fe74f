"""Importance sampling: draws of a proposal, weighted to the target, their largest weights smoothed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree
from posterax import PopulationSampler, Target
from posterax.weights import log_mean, smooth


class ImportanceState(eqx.Module):
    """Draws of the proposal and their log-weights."""

    positions: PyTree[Array]
    log_weights: Float[Array, " n"]


class Importance(PopulationSampler):
    """Draws of a proposal, weighted by target over proposal; by Pareto smoothing, rare large weights are tamed.

    - `num_draws`: how many.
    - `proposal`: a distribution of the target's values, with `sample` and `log_prob`: what an estimator infers, a
      NumPyro distribution where the target has one latent, a `JointDistribution`; None for the prior.
    - `smoothed`: replace the largest weights by quantiles of a generalised Pareto distribution fitted to them. The
      evidence is that of the weights as they are, and so unbiased.

    `draws.pareto_k()` tells whether to trust the result: below 0.7.

    Source: Vehtari et al. (2024), http://jmlr.org/papers/v25/19-556.html.
    """

    num_draws: int = 1000
    proposal: Any = None
    smoothed: bool = True

    def __check_init__(self):
        if isinstance(self.num_draws, bool) or not isinstance(self.num_draws, int) or self.num_draws < 1:
            raise ValueError(f"`num_draws` must be an integer, 1 or more; got {self.num_draws!r}.")
        missing = [name for name in ("sample", "log_prob") if not hasattr(self.proposal, name)]
        if self.proposal is not None and missing:
            raise TypeError(
                f"`proposal` must be a distribution with `sample` and `log_prob`; {type(self.proposal).__name__} lacks "
                f"{missing}."
            )

    def init(self, target, *, key):
        """All draws at once."""
        if not isinstance(target, Target):
            raise TypeError(f"Importance samples a Target; got {type(target).__name__}.")
        if self.proposal is None:
            return _from_prior(target, jr.split(key, self.num_draws))
        drawn = self.proposal.sample(key, (self.num_draws,))
        log_proposal = self.proposal.log_prob(drawn)
        values = drawn if isinstance(drawn, dict) else {_only(target): drawn}
        latent = {name: values[name] for name in target.structure.latent}
        positions = jax.vmap(target.unconstrain)(latent)
        log_target = jax.vmap(lambda u: target.density.terms(u).log_joint)(positions)
        return ImportanceState(positions, _weights(log_target, log_proposal))

    def step(self, target, state, *, key):
        """Nothing is left to do."""
        return state, None

    def done(self, state) -> Bool[Array, ""]:
        """At once."""
        return jnp.ones((), bool)

    def population(self, state):
        """Draws, log-weights, and the evidence."""
        raw = state.log_weights
        if not self.smoothed:
            return state.positions, raw, log_mean(raw)
        like = jax.ShapeDtypeStruct(raw.shape, raw.dtype)
        smoothed = jax.pure_callback(_smoothed, like, raw, vmap_method="sequential")
        return state.positions, smoothed, log_mean(raw)


def _smoothed(log_weights) -> np.ndarray:
    log_weights = np.asarray(log_weights)
    usable = not np.isnan(log_weights).any() and np.isfinite(log_weights).any()
    return smooth(log_weights)[0].astype(log_weights.dtype) if usable else log_weights


def _from_prior(target: Target, keys) -> ImportanceState:
    positions = jax.vmap(lambda k: target.sample_prior(key=k))(keys)

    def one(u):
        terms = target.density.terms(u)
        if terms.log_prior is None:
            target.log_prior(u)  # says that there is none, and the cure
        return jnp.asarray(terms.log_likelihood), jnp.asarray(terms.log_prior)

    log_likelihood, log_prior = jax.vmap(one)(positions)
    return ImportanceState(positions, _weights(log_likelihood + log_prior, log_prior))


def _weights(log_target, log_proposal) -> Float[Array, " n"]:
    """Log-weights; what has no density under the target, or one that is NaN, has none."""
    impossible = jnp.isneginf(log_target) | jnp.isnan(log_target)
    return jnp.where(impossible, -jnp.inf, log_target - log_proposal).astype(jnp.result_type(float))


def _only(target: Target) -> str:
    names = list(target.structure.latent)
    if len(names) != 1:
        raise ValueError(
            f"`proposal` is a distribution of one array, but the target has the latents {names}. Use a distribution of "
            "named values, such as a JointDistribution."
        )
    return names[0]
