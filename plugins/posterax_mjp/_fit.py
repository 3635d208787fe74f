"""Maxima of likelihoods and posteriors, and the curvature there."""

import warnings
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from posterax import PosteraxWarning

from ._likelihood import Likelihood
from ._pooled_rates import log_pooled
from ._prior_rates import RatePrior
from ._rate_model import Parameters

_LAW_VARIANCE = (1.0, 0.5)  # its inverse gamma law
_REACH = 30.0  # nothing is searched further than this from where it began
_FLAT = 12.0  # a rate that many e-folds below 1 / horizon is 0
_WORST = 1e100
_WEAK, _PART = 1e-9, 0.3  # of curvatures, in units of each parameter's; of a parameter in a direction without curvature


class Posterior(eqx.Module):
    r"""Log density of unconstrained parameters: the likelihood, and a prior where there is one.

    - `prior`: of the rates, covariates at their centre; None for the likelihood alone. In detailed balance it is that
      of $s_{ij}$, one for a pair of states, and logarithms of the stationary law are normal with an unknown variance,
      of which 1/2 is typical. All other parameters are normal around where they `begin`, standard deviation 3 (of
      effects: 3 over the covariate's).
    - `horizon`: the unit of time of the prior.
    """

    likelihood: Likelihood
    prior: RatePrior | None
    begin: Parameters
    scales: Parameters
    horizon: Float[Array, ""]

    def log_prior(self, parameters: Parameters) -> Float[Array, ""]:
        """Log density of the unconstrained parameters a priori; 0 without a prior."""
        if self.prior is None:
            return jnp.asarray(0.0)
        total = jnp.asarray(0.0)
        for name, value in parameters.items():
            if name == "log_law":
                total = total + _log_law_prior(value)
            elif name not in ("log_rates", "log_conductances"):
                total = total + jnp.sum(norm.logpdf(value, self.begin[name], self.scales[name]))
        model = self.likelihood.model
        logs = parameters["log_conductances" if model.reversible else "log_rates"] + jnp.log(self.horizon)
        rates = model.matrix(jnp.exp(logs), model.free_edges)
        edges = model.matrix(jnp.ones(len(logs)), model.free_edges) > 0
        return total + self.prior.log_prob(rates, edges) + jnp.sum(logs)

    def log_density(self, parameters: Parameters) -> Float[Array, ""]:
        """Log-likelihood and log prior."""
        return self.likelihood.value(parameters) + self.log_prior(parameters)


def _log_law_prior(logs: Array) -> Array:
    """Of logs of stationary probabilities less that of the first state, alike for all states: see `PooledRates`."""
    every = jnp.concatenate([jnp.zeros(1), logs])
    squares = jnp.sum((every - jnp.mean(every)) ** 2)
    return log_pooled(squares, len(logs), *_LAW_VARIANCE) - 0.5 * jnp.log(len(every))


class Maximum(NamedTuple):
    """Where a log density is largest: `parameters`, `value`, and how it was found."""

    parameters: Any
    value: float
    num_evaluations: int
    converged: bool


class Density(Protocol):
    """What can be maximised: a module, so that functions of it are compiled once."""

    def log_density(self, parameters: Any, /) -> Float[Array, ""]:
        """At unconstrained parameters."""
        ...


@eqx.filter_jit
def _value_and_gradient(density: Density, unravel: Any, vector: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda v: density.log_density(unravel(v)))(vector)


@eqx.filter_jit
def _hessian(density: Density, unravel: Any, vector: Array) -> Array:
    gradient = jax.grad(lambda v: density.log_density(unravel(v)))
    return jax.lax.map(lambda e: jax.jvp(gradient, (vector,), (e,))[1], jnp.eye(len(vector)))


@eqx.filter_jit
def log_densities(density: Density, unravel: Any, vectors: Float[Array, "n P"]) -> Float[Array, " n"]:
    """At rows of flat parameters, one by one."""
    return jax.lax.map(lambda v: density.log_density(unravel(v)), vectors)


def information(density: Density, unravel: Any, vector: Float[Array, " P"]) -> Float[np.ndarray, "P P"]:
    """Minus the second derivatives at flat parameters."""
    found = -np.asarray(_hessian(density, unravel, vector), float)
    return (found + found.T) / 2


def maximise(density: Density, start: Any, max_steps: int) -> Maximum:
    """By L-BFGS, from one start, in double precision."""
    from scipy.optimize import minimize

    vector, unravel = ravel_pytree(start)
    begin, count, highest = np.asarray(vector, float), 0, -np.inf

    def negative(vector: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count, highest
        count += 1
        value, gradient = _value_and_gradient(density, unravel, jnp.asarray(vector))
        value, gradient = float(value), np.asarray(gradient, float)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return (_WORST if highest == -np.inf else 1e3 - highest), np.zeros_like(vector)
        highest = max(highest, value)
        return -value, -gradient

    done = minimize(
        negative, begin, jac=True, method="L-BFGS-B", bounds=[(v - _REACH, v + _REACH) for v in begin],
        options={"maxiter": max_steps, "maxfun": 3 * max_steps, "ftol": 1e-13, "gtol": 1e-6, "maxcor": 30},
    )  # fmt: skip
    if done.fun >= _WORST:
        raise ValueError(
            "The likelihood is 0 where the search begins: the data hold something that the model cannot make, such as "
            "a jump between exact times that `edges` does not allow."
        )
    if done.nit >= max_steps:
        warnings.warn(
            f"The maximum was not reached within {max_steps} steps. Give more `max_steps`.",
            PosteraxWarning, stacklevel=4,
        )  # fmt: skip
    return Maximum(unravel(jnp.asarray(done.x)), -float(done.fun), count, done.nit < max_steps)


def covariance(posterior: Posterior, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Minus the inverse of the second derivatives, `(P, P)`, and which parameters are not determined.

    Those are rates that have gone to 0, and directions in which the density hardly changes: their rows are 0.
    """
    vector, unravel = ravel_pytree(parameters)
    curvature = information(posterior, unravel, vector)
    fixed = np.array(ravel_pytree(_vanished(posterior, parameters))[0], bool)
    found = np.zeros_like(curvature)
    while not fixed.all():
        free = np.flatnonzero(~fixed)
        scale = np.sqrt(np.maximum(np.diag(curvature)[free], 1e-12))
        values, vectors = np.linalg.eigh(curvature[np.ix_(free, free)] / np.outer(scale, scale))
        weak = values < _WEAK
        if not weak.any():
            found[np.ix_(free, free)] = (vectors / values) @ vectors.T / np.outer(scale, scale)
            break
        part = np.abs(vectors[:, weak]).max(1)
        fixed[free[part >= min(_PART, part.max())]] = True
    return found, fixed


def _vanished(posterior: Posterior, parameters: Parameters) -> dict[str, np.ndarray]:
    low = -_FLAT - np.log(float(posterior.horizon))
    return {
        name: np.asarray(value) < low if name in ("log_rates", "log_conductances") else np.zeros(np.shape(value), bool)
        for name, value in parameters.items()
    }
