"""Predictive laws of a regression: Student-t and normal in closed form, else mixtures over the scale."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._mixture import MatrixStudentT, ScaleMixture
from ._scale import atoms
from ._solve import factorise


def tied_joint(
    scale: dist.Distribution, mean: Float[Array, "k m"], unit: Float[Array, "k k"], per_output: Array, single: bool
) -> Any:
    r"""$\int N(\mu, s V) dp(s)$ as one law of all points and outputs; V is `unit`.

    - `scale`: the law of s; `per_output`: `(m,)`, the outputs' units; `single`: whether there is one output, without an
      axis of its own.
    """
    lower = factorise(unit)[0]
    if single:
        lower, per_output = lower * per_output[0], jnp.ones_like(per_output)
    if isinstance(scale, dist.InverseGamma):
        df, lower = 2 * scale.concentration, jnp.sqrt(scale.rate / scale.concentration) * lower
        return (
            dist.MultivariateStudentT(df, mean[:, 0], lower)
            if single
            else MatrixStudentT(df, mean, lower, output_scale=per_output)
        )
    if isinstance(scale, dist.Delta) and single:
        return dist.MultivariateNormal(mean[:, 0], scale_tril=jnp.sqrt(scale.v) * lower)
    return ScaleMixture(mean[None], lower[None], *atoms(scale), single=single, output_scale=per_output)


def tied_marginals(
    scale: dist.Distribution, mean: Float[Array, "k m"], unit: Float[Array, " k"], per_output: Array, single: bool
) -> Any:
    """The law of each point and output alone: a batch of shape `(k,)`, or `(k, m)`."""
    unit = unit[:, None] * per_output**2
    mean, unit = (mean[:, 0], unit[:, 0]) if single else (mean, unit)
    if isinstance(scale, dist.InverseGamma):
        return dist.StudentT(2 * scale.concentration, mean, jnp.sqrt(scale.rate / scale.concentration * unit))
    if isinstance(scale, dist.Delta):
        return dist.Normal(mean, jnp.sqrt(scale.v * unit))
    scales, log_weights = atoms(scale)
    return _mixture(log_weights, mean[..., None], jnp.sqrt(unit[..., None] * scales))


def free_joint(
    log_weights: Array, mean: Float[Array, "S k m"], covariance: Float[Array, "S k k"], per_output: Array, single: bool
) -> Any:
    """A mixture whose components have covariances of their own."""
    lower = jax.lax.map(lambda matrix: factorise(matrix)[0], covariance)
    ones = jnp.ones_like(log_weights)
    return ScaleMixture(mean, lower, ones, log_weights, single=single, output_scale=per_output)


def free_marginals(
    log_weights: Array, mean: Float[Array, "S k m"], variance: Float[Array, "S k"], per_output: Array, single: bool
) -> Any:
    """As `tied_marginals`."""
    mean, sd = jnp.moveaxis(mean, 0, -1), jnp.sqrt(variance.T)[:, None] * per_output[:, None]  # (k, m, S)
    return _mixture(log_weights, mean[:, 0], sd[:, 0]) if single else _mixture(log_weights, mean, sd)


def _mixture(log_weights: Array, mean: Array, sd: Array) -> dist.Distribution:
    shape = jnp.broadcast_shapes(mean.shape, sd.shape)
    logits = jnp.broadcast_to(log_weights, shape)
    components = dist.Normal(jnp.broadcast_to(mean, shape), jnp.broadcast_to(sd, shape))
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
