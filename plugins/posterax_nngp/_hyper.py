"""Hyper-parameters by sampling: their posterior as a `Target`, the scale integrated out, and predictions over draws."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from posterax import Draws, Target, in_float64
from posterax._precision import precision

from . import _regression_law as law
from ._compress import compressed_scales
from ._data import check_data, check_memory, finite, standardised, standardiser
from ._evidence import log_evidence
from ._parameters import Hyper, constrained, unconstrained
from ._predictive import free_marginals
from ._regression_settings import to_caller, to_host
from ._scale import atoms
from ._scale_prior import check_prior

_COMPONENTS = 32  # of the scale, for each draw
_SPREAD = 1.0


def target(model: Any, data: Any, hyper_prior: dict[str, dist.Distribution]) -> Target:
    """See `ScaleMixtureNNGP.target`."""
    x, y = check_data(data, model.kernel.event_ndim)
    check_prior(model.scale_prior)
    if model.num_inducing is not None:
        raise ValueError("`target` is for exact inference: leave `num_inducing` out.")
    check_memory(len(x))
    with precision(64):
        hyper = model.hyper()
        starts = {name: np.exp(np.asarray(value)) for name, value in unconstrained(hyper, model.learn).items()}
        hyper = to_host(hyper)
        x, y = (np.asarray(values) for values in standardised(x, y, standardiser(x, y, model.standardise)))
    if bad := [name for name in starts if name.startswith("scale_prior.") and not _is_positive(model, name)]:
        raise ValueError(f"Only positive parameters of the scale prior can be sampled; {bad} are not.")
    if unknown := set(hyper_prior) - set(starts):
        raise ValueError(
            f"`hyper_prior` must name hyper-parameters that are learnt, {sorted(starts)}; got {sorted(unknown)}."
        )
    if not starts:
        raise ValueError('`learn` names nothing to be sampled; give it "kernel" or "noise".')
    laws: dict[str, Any] = {
        name: hyper_prior.get(name, dist.LogNormal(jnp.log(jnp.asarray(start)), _SPREAD))
        for name, start in starts.items()
    }
    return Target(
        log_prior=_LogPrior(laws),
        log_likelihood=_Evidence(hyper, model.noise_model == "tied"),
        data=(x, y),
        like=starts,
        support=dict.fromkeys(starts, constraints.positive),
        sample_prior=_PriorDraw(laws, tuple((name, start.shape) for name, start in starts.items())),
    )


# Modules rather than closures: the targets of two data sets of one shape are then one program.


class _LogPrior(eqx.Module):
    """Log density of hyper-parameters, each with a law of its own."""

    laws: dict[str, Any]

    def __call__(self, values, x, y):
        return sum(jnp.sum(self.laws[name].log_prob(value)) for name, value in values.items())


class _Evidence(eqx.Module):
    """Log evidence of the data, the scale integrated out."""

    hyper: Hyper
    tied: bool = eqx.field(static=True)

    def __call__(self, values, x, y):
        return _evidence_at(self, values, x, y)[None]


@in_float64
def _evidence_at(evidence: _Evidence, values: dict[str, Array], x: Array, y: Array) -> Array:
    free = {name: jnp.log(value) for name, value in values.items()}
    return log_evidence(constrained(evidence.hyper, free), x, y, None, tied=evidence.tied)[0]


class _PriorDraw(eqx.Module):
    """Hyper-parameters drawn from their laws; those of one law for all layers are independent."""

    laws: dict[str, Any]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    def __call__(self, key):
        found = {}
        for k, (name, shape) in zip(jr.split(key, len(self.shapes)), self.shapes, strict=True):
            law = self.laws[name]
            found[name] = jnp.broadcast_to(law.sample(k, () if law.batch_shape else shape), shape)
        return found


def averaged(model: Any, data: Any, draws: Draws, observed: Any, noisy: bool, num: int) -> dist.Distribution:
    """See `ScaleMixtureNNGP.averaged`."""
    x, y = check_data(data, model.kernel.event_ndim)
    units, single = standardiser(x, y, model.standardise), y.ndim == 1
    observed = finite(np.asarray(observed), "observed")
    chosen = _chosen(draws, num)
    with precision(64):
        hyper = model.hyper()
        names = unconstrained(hyper, model.learn)
        values = {
            name: jnp.log(jnp.asarray(draws.values[name].reshape(-1, *draws.values[name].shape[2:])[chosen]))
            for name in names
        }
        x, y = standardised(x, y, units)
        new = jnp.asarray((observed - units["x_shift"]) / units["x_scale"])
        log_weights, mean, variance = _over_draws(hyper, values, x, y, new, noisy, model.noise_model == "tied")
        per_output = jnp.broadcast_to(jnp.asarray(units["y_scale"], mean.dtype), y.shape[1:])
        made = free_marginals(log_weights, mean * per_output + units["y_shift"], variance, per_output, single)
    return to_caller(made)


def _chosen(draws: Draws, num: int) -> np.ndarray:
    """Which of all draws to use: evenly spaced ones; of weighted draws, by their weights, some several times."""
    total = int(np.prod(draws.shape))
    if draws.log_weights is None:
        return np.unique(np.linspace(0, total - 1, min(num, total)).round().astype(int))
    log_weights = draws.flat_log_weights()
    with np.errstate(invalid="ignore"):
        heights = np.cumsum(np.exp(log_weights - log_weights.max()))
    if not np.isfinite(heights[-1]):
        raise ValueError("`draws` have no weight, or a weight that is NaN: there is nothing to average over.")
    return np.searchsorted(heights, (np.arange(num) + 0.5) / num * heights[-1])


@eqx.filter_jit
def _over_draws(
    hyper: Hyper, values: dict[str, Array], x: Array, y: Array, new: Array, noisy: bool, tied: bool
) -> tuple[Array, Array, Array]:
    """Log-weights `(D S,)`, means `(D S, k, m)` and variances `(D S, k)` of all draws' components."""

    def one(free):
        here = constrained(hyper, free)
        known, here, _ = law.learn(here, x, y, None, tied=tied, profiled=False)
        scales, log_weights = compressed_scales(atoms(law.scale_rule(here, known, tied, False)), _COMPONENTS)
        mean, variance = law.moments(here, known, scales, new, noisy, tied)
        return log_weights, mean, variance

    log_weights, mean, variance = jax.lax.map(one, values)
    draws = len(log_weights)
    flat = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in (log_weights - jnp.log(draws), mean, variance))
    return tuple(flat)  # pyright: ignore[reportReturnType]


def _is_positive(model: Any, name: str) -> bool:
    if isinstance(model.scale_prior, dist.Delta):
        return True
    known = type(model.scale_prior).arg_constraints[name.removeprefix("scale_prior.")]
    return known in (constraints.positive, constraints.nonnegative)
