"""Draws of what a fit knows: by its curvature, weighted or not, and by NUTS."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray
from posterax import Draws, Plan, PosteraxWarning, Target
from posterax._labels import Labels

from ._fit import Posterior, log_densities
from ._knowledge import Knowledge

_HALVINGS = 20
_MANY_STEPS = 300  # a draw; some ten are usual in these coordinates


def normal_draws(known: Knowledge, num: int, *, weighted: bool, key: PRNGKeyArray) -> Draws:
    """Of the normal law at the maximum; `weighted`: by the posterior over it."""
    mean, unravel = known.vector()
    values, vectors = np.linalg.eigh(np.asarray(known.covariance))
    root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
    noise = jr.normal(key, (num, len(mean)))
    vectors = jnp.asarray(mean) + noise @ root.T
    named = _told(known, jax.vmap(unravel)(vectors))
    draws = Draws(
        values={name: np.asarray(value)[None] for name, value in named.items()}, stats={}, labels=_labels(known)
    )
    if weighted:
        target = log_densities(known.posterior, unravel, vectors)
        logs = np.asarray(target + 0.5 * jnp.sum(noise**2, -1), float)
        root_log = 0.5 * np.sum(np.log(2 * np.pi * values[values > 0]))
        draws = draws.replace(log_weights=logs[None], log_density=np.asarray(target)[None],
                              log_evidence=np.array([np.logaddexp.reduce(logs) - np.log(num) + root_log]))  # fmt: skip
    return draws.recorded("infer", component="mjp:mjp-likelihood", num_draws=num, weighted=weighted)


def nuts_draws(
    known: Knowledge, num_warmup: int, num_draws: int, num_chains: int, *, key: PRNGKeyArray, progress: bool | None
) -> Draws:  # fmt: skip
    """Of the posterior, by NUTS in coordinates in which the curvature at the mode is one in all directions."""
    mean, unravel = known.vector()
    spread = np.asarray(known.covariance)
    root = jnp.asarray(np.linalg.cholesky(spread + np.diag(np.diag(spread) <= 0)))
    whitened = _Whitened(known.posterior, jnp.asarray(mean), root)
    target = Target(
        log_prior=_log_prior, log_likelihood=_log_likelihood, data=(whitened,), like={"z": jnp.zeros(len(mean))}
    )
    one, two = jr.split(key)
    starts = _starts(whitened, jr.normal(one, (num_chains, len(mean))))
    found = posterax.sample(
        posterax.get("numpyro:nuts")(num_warmup=num_warmup), target, num_draws=num_draws, num_chains=num_chains,
        key=two, init={"z": starts}, plan=Plan(precision=64), progress=progress,
    )  # fmt: skip
    if (steps := float(np.mean(found.stats["n_steps"]))) > _MANY_STEPS:
        warnings.warn(
            f"NUTS needed {steps:.0f} steps a draw: the posterior has a jump, as where the prior bounds rates that the "
            "data allow. Look at R-hat; a prior without bounds, such as LogNormalRates(), has no jumps.",
            PosteraxWarning, stacklevel=3,
        )  # fmt: skip
    z = jnp.asarray(found["z"]).reshape(-1, len(mean))
    flat = _told(known, jax.vmap(unravel)(jnp.asarray(mean) + z @ root.T))
    shape = (num_chains, found.num_draws)
    values = {name: np.asarray(value).reshape(*shape, *value.shape[1:]) for name, value in flat.items()}
    return found.replace(values=values, labels=_labels(known))


def _starts(whitened: "_Whitened", z: Array) -> Array:
    """These, drawn to the mode until the prior allows them."""
    density = eqx.filter_jit(lambda w, z: jax.lax.map(lambda one: w.posterior.log_density(w.parameters(one)), z))
    for _ in range(_HALVINGS):
        z = jnp.where(jnp.isfinite(density(whitened, z))[:, None], z, z / 2)
    return z


class _Whitened(eqx.Module):
    """A posterior in coordinates z: the parameters are `mean` + `root` z."""

    posterior: Posterior
    mean: Array
    root: Array

    def parameters(self, z: Array) -> Any:
        """At z."""
        return ravel_pytree(self.posterior.begin)[1](self.mean + self.root @ z)


@eqx.filter_jit
def _told(known: Knowledge, parameters: Any) -> dict[str, Array]:
    return jax.vmap(known.told)(parameters)


def _log_prior(values: Any, whitened: _Whitened) -> Array:
    return whitened.posterior.log_prior(whitened.parameters(values["z"]))


def _log_likelihood(values: Any, whitened: _Whitened) -> dict[str, Array]:
    return {"panel": whitened.posterior.likelihood.value(whitened.parameters(values["z"]))[None]}


def _labels(known: Knowledge) -> Labels:
    dims = {"rates": ("edge",), "hazard_ratios": ("edge", "covariate"), "initial_law": ("state",), "levels": ("state",)}
    coords = {"edge": known.edge_names, "covariate": known.covariate_names, "state": known.states}
    return Labels(dims, coords)
