"""What a regression knows of its data, and the laws that follow."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array

from . import _free, _inducing, _predictive, _solve
from ._compress import compressed_scales
from ._evidence import from_terms
from ._parameters import Hyper
from ._priors import Atoms
from ._scale import atoms, importance, log_marginal, scale_posterior

_COMPONENTS = 48  # of a joint predictive mixture with free noise, where each has a covariance matrix of its own


class Knowledge(eqx.Module):
    """Data in the units of the model, and what was computed of them once and for all.

    - `x`, `y`: `(n, ...)` and `(n, m)`. `state`: factors. `units`: shift and scale of the data, and whether y had no
      axis of outputs. `drawn`: scales and log-weights of importance sampling.
    """

    x: Any
    y: Any
    state: dict[str, Any]
    units: dict[str, Any]
    drawn: tuple[Any, Any] | None = None

    def widened(self) -> "Knowledge":
        """With arrays of JAX's, in the precision in force."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, self)


@eqx.filter_jit
def learn(
    hyper: Hyper, x: Array, y: Array, inducing: Any, *, tied: bool, profiled: bool
) -> tuple[Knowledge, Hyper, dict]:
    """The state, the hyper-parameters (with a profiled scale put in), and log evidence and jitter."""
    n, m = y.shape
    if not tied:
        state = _free.condition(hyper.kernel, x, y)
        log_evidence = logsumexp(_free.terms(hyper.scale_prior, state, hyper.noise)[1])
        return Knowledge(x, y, state, {}), hyper, {"log_evidence": log_evidence, "jitter": state["jitter"]}
    if inducing is None:
        state, penalty = _solve.condition(hyper.kernel, hyper.noise, x, y), 0.0
    else:
        state = _inducing.condition(hyper.kernel, hyper.noise, x, y, inducing)
        penalty = state["penalty"]
    if profiled:
        hyper = Hyper(hyper.kernel, hyper.noise, dist.Delta(state["quad"] / (n * m)))
    log_evidence = from_terms(hyper.scale_prior, state["quad"], state["logdet"], penalty, y.shape, profiled=False)
    return Knowledge(x, y, state, {}), hyper, {"log_evidence": log_evidence, "jitter": state["jitter"]}


def sampled(
    known: Knowledge, hyper: Hyper, y: Array, proposal: str, num_draws: int, key: Any
) -> tuple[Knowledge, dict]:
    """The law of s by importance sampling, and how good it is."""
    quad = known.state["quad"]
    drawn = importance(hyper.scale_prior, quad, y.size, proposal=proposal, num_draws=num_draws, key=key)  # pyright: ignore[reportArgumentType]
    known = eqx.tree_at(lambda k: k.drawn, known, (drawn.scales, drawn.log_weights), is_leaf=lambda leaf: leaf is None)
    exact = float(log_marginal(hyper.scale_prior, quad, y.size))
    return known, {
        "ess": drawn.ess,
        "pareto_k": drawn.pareto_k,
        "log_evidence_error": float(drawn.log_marginal) - exact,
    }


def scale_law(hyper: Hyper, known: Knowledge, tied: bool, *, fresh: bool = False) -> dist.Distribution:
    """The law of s given the data. `fresh`: under a prior that no draws were made for."""
    if known.drawn is not None and not fresh:
        return Atoms(*known.drawn)
    if tied:
        return scale_posterior(hyper.scale_prior, known.state["quad"], known.y.size)
    if isinstance(hyper.scale_prior, dist.Delta):
        return hyper.scale_prior
    return Atoms(*_free_rule(hyper, known.state))


@eqx.filter_jit
def scale_rule(hyper: Hyper, known: Knowledge, tied: bool, fresh: bool) -> dist.Distribution:
    """As `scale_law`, in a form that sums can be made of: an inverse gamma law, a point mass or `Atoms`."""
    law = scale_law(hyper, known, tied, fresh=fresh)
    return law if isinstance(law, (dist.InverseGamma, dist.Delta, Atoms)) else Atoms(*atoms(law))


@eqx.filter_jit
def predict(
    hyper: Hyper, known: Knowledge, scale: dist.Distribution, new: Array, noisy: bool, joint: bool, tied: bool
) -> Any:
    """The law of outputs at `new`, in the units of the data. `scale`: from `scale_rule`."""
    units = known.units
    new = (new - units["x_shift"]) / units["x_scale"]
    per_output = jnp.broadcast_to(jnp.asarray(units["y_scale"], known.y.dtype), known.y.shape[1:])
    if tied:
        if "inducing" in known.state:
            mean, unit = _inducing.predict(hyper.kernel, known.state, new, joint=joint)
        else:
            mean, unit = _solve.predict(hyper.kernel, known.state, known.x, new, joint=joint)
        if noisy:
            unit = _solve.noisy(unit, hyper.noise) if joint else unit + hyper.noise
        make = _predictive.tied_joint if joint else _predictive.tied_marginals
        return make(scale, mean * per_output + units["y_shift"], unit, per_output, units["single"])
    scales, log_weights = compressed_scales(atoms(scale), _COMPONENTS) if joint else atoms(scale)
    mean, covariance = _free.predict(hyper.kernel, known.state, hyper.noise, known.x, new, scales, joint=joint)
    if noisy:
        covariance = covariance + (hyper.noise * jnp.eye(len(new)) if joint else hyper.noise)
    make = _predictive.free_joint if joint else _predictive.free_marginals
    return make(log_weights, mean * per_output + units["y_shift"], covariance, per_output, units["single"])


def moments(hyper: Hyper, known: Knowledge, scales: Array, new: Array, noisy: bool, tied: bool) -> tuple[Array, Array]:
    """Mean `(S, k, m)` and variance `(S, k)` of each new point given each scale, in the units of the model."""
    noise = hyper.noise if noisy else 0.0
    if not tied:
        mean, variance = _free.predict(hyper.kernel, known.state, hyper.noise, known.x, new, scales, joint=False)
        return mean, variance + noise
    mean, unit = _solve.predict(hyper.kernel, known.state, known.x, new, joint=False)
    return jnp.broadcast_to(mean, (len(scales), *mean.shape)), scales[:, None] * (unit + noise)


@eqx.filter_jit
def prior(hyper: Hyper, x: Array, noisy: bool, joint: bool, tied: bool) -> Any:
    """The law at `x` before any data, one output."""
    noise = hyper.noise if noisy else 0.0
    gram = hyper.kernel.nngp(x) if joint else hyper.kernel.diag(x)
    mean, per_output = jnp.zeros((len(x), 1)), jnp.ones(1)
    law = scale_posterior(hyper.scale_prior, 0.0, 0.0)
    if tied or not noisy:
        unit = _solve.noisy(gram, noise) if joint else gram + noise
        make = _predictive.tied_joint if joint else _predictive.tied_marginals
        return make(law, mean, unit, per_output, True)
    scales, log_weights = compressed_scales(atoms(law), _COMPONENTS) if joint else atoms(law)
    size = scales[:, None, None] if joint else scales[:, None]
    covariance = size * gram + (noise * jnp.eye(len(x)) if joint else noise)
    make = _predictive.free_joint if joint else _predictive.free_marginals
    return make(log_weights, jnp.zeros((len(scales), len(x), 1)), covariance, per_output, True)


@eqx.filter_jit
def leave_one_out(hyper: Hyper, known: Knowledge, tied: bool) -> tuple[Array, Array]:
    """Log density of each row given the others, and its mean, in the units of the data."""
    units, (n, m) = known.units, known.y.shape
    if tied:
        mean, unit, quads = _solve.leave_one_out(known.state, known.y)
        residual = jnp.sum((known.y - mean) ** 2, axis=1) / unit
        one = lambda quad: log_marginal(hyper.scale_prior, quad, n * m)  # noqa: E731
        others = lambda quad: log_marginal(hyper.scale_prior, quad, (n - 1) * m)  # noqa: E731
        over_scale = jax.lax.map(lambda pair: one(pair[0] + pair[1]) - others(pair[0]), (quads, residual))
        log_density = over_scale - 0.5 * m * jnp.log(2 * np.pi * unit)
    else:
        scales, log_weights = _free_rule(hyper, known.state)
        log_density, mean = _free.leave_one_out(known.state, hyper.noise, known.y, scales, log_weights)
    log_density = log_density - m * jnp.mean(jnp.log(jnp.asarray(units["y_scale"])))
    mean = mean[:, 0] if units["single"] else mean
    return log_density, mean * units["y_scale"] + units["y_shift"]


def _free_rule(hyper: Hyper, state: dict) -> tuple[Array, Array]:
    """Scales, and log-weights that sum to one."""
    scales, log_terms = _free.terms(hyper.scale_prior, state, hyper.noise)
    return scales, log_terms - logsumexp(log_terms)
