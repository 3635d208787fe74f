"""Predictive laws: Gaussians with one shared random scale, as NumPyro distributions."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample


class _Joint(dist.Distribution):
    """Values `(k,)`, or `(k, m)` for m outputs that share their covariance and the scale."""

    def _rows(self, value):
        """`value` with an axis of outputs."""
        return value[..., None] if len(self.event_shape) == 1 else value

    def _values(self, rows):
        return rows[..., 0] if len(self.event_shape) == 1 else rows

    @property
    def support(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.independent(constraints.real, len(self.event_shape))


class ScaleMixture(_Joint):
    r"""$\sum_i w_i N(\mu_i, s_i L_i L_i')$ on `(k,)` or, with outputs that share all but their mean, on `(k, m)`.

    One draw has one scale for all inputs and outputs: outputs are uncorrelated, yet dependent.

    - `loc`: `(S, k, m)` or `(1, k, m)`; `scale_tril`: `(S, k, k)` or `(1, k, k)`, $L$.
    - `scales`: `(S,)`, $s$; `log_weights`: `(S,)`, normalised.
    - `single`: whether events are `(k,)`; m is then 1.
    - `output_scale`: `(m,)`, a factor of each output's spread; by default ones.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.independent(constraints.real, 3),
        "scale_tril": constraints.independent(constraints.real, 3),
        "scales": constraints.independent(constraints.positive, 1),
        "log_weights": constraints.independent(constraints.real, 1),
    }
    pytree_data_fields = ("loc", "scale_tril", "scales", "log_weights", "output_scale")
    pytree_aux_fields = ("single",)

    def __init__(
        self, loc, scale_tril, scales, log_weights, *, single: bool = True, output_scale=None, validate_args=None
    ):
        self.output_scale = jnp.ones(loc.shape[-1], loc.dtype) if output_scale is None else output_scale
        self.loc, self.scale_tril, self.scales, self.log_weights = loc, scale_tril, scales, log_weights
        self.single = single
        event = loc.shape[1:2] if single else loc.shape[1:]
        super().__init__((), event, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value):
        rows = self._rows(value)
        flat = rows.reshape(-1, *rows.shape[-2:])
        return jax.lax.map(self._one, flat, batch_size=16).reshape(rows.shape[:-2])

    def _one(self, rows):
        size = rows.size

        def square(loc, lower):
            return jnp.sum(solve_triangular(lower, (rows - loc) / self.output_scale, lower=True) ** 2)

        squares = _over_components(square, self.loc, self.scale_tril)
        diagonals = jnp.diagonal(self.scale_tril, axis1=-2, axis2=-1)
        logdet = 2 * jnp.sum(jnp.log(diagonals), axis=-1) * rows.shape[-1]
        log_each = -0.5 * (squares / self.scales + logdet + size * jnp.log(2 * np.pi * self.scales))
        return logsumexp(self.log_weights + log_each) - len(rows) * jnp.sum(jnp.log(self.output_scale))

    def sample(self, key, sample_shape=()):
        key_scale, key_normal = jr.split(key)  # pyright: ignore[reportArgumentType]
        index = jr.categorical(key_scale, self.log_weights, shape=sample_shape)
        of_loc = index if len(self.loc) > 1 else jnp.zeros_like(index)
        of_lower = index if len(self.scale_tril) > 1 else jnp.zeros_like(index)
        normal = jr.normal(key_normal, (*sample_shape, *self.loc.shape[1:]), self.loc.dtype)
        if len(self.scale_tril) == 1:
            spread = self.scale_tril[0] @ normal
        else:
            spread = self.scale_tril[of_lower] @ normal
        spread = jnp.sqrt(self.scales[index])[..., None, None] * spread * self.output_scale
        return self._values(self.loc[of_loc] + spread)

    @property
    def mean(self):
        weights = jnp.exp(self.log_weights)
        loc = self.loc[0] if len(self.loc) == 1 else jnp.einsum("s,skm->km", weights, self.loc)
        return self._values(loc)

    @property
    def variance(self):
        weights = jnp.exp(self.log_weights)
        within = jnp.sum(self.scale_tril**2, axis=-1) * self.scales[:, None]  # (S, k)
        mean = jnp.einsum("s,skm->km", weights, jnp.broadcast_to(self.loc, (len(weights), *self.loc.shape[1:])))
        between = jnp.einsum(
            "s,skm->km", weights, jnp.broadcast_to((self.loc - mean) ** 2, (len(weights), *mean.shape))
        )
        return self._values((weights @ within)[:, None] * self.output_scale**2 + between)


class MatrixStudentT(_Joint):
    r"""Multivariate Student-t on `(k, m)`: m outputs with one scale matrix $L L'$ and one shared inverse gamma scale.

    - `df`: degrees of freedom; `loc`: `(k, m)`; `scale_tril`: `(k, k)`; `output_scale`: `(m,)`, c, by default ones. The
      covariance of each output is $c_j^2 L L'\, \nu / (\nu - 2)$, infinite for $\nu \le 2$.
    """

    arg_constraints = {  # noqa: RUF012
        "df": constraints.positive,
        "loc": constraints.independent(constraints.real, 2),
        "scale_tril": constraints.lower_cholesky,
    }
    pytree_data_fields = ("df", "loc", "scale_tril", "output_scale")

    def __init__(self, df, loc, scale_tril, *, output_scale=None, validate_args=None):
        self.output_scale = jnp.ones(loc.shape[-1], loc.dtype) if output_scale is None else output_scale
        self.df, self.loc, self.scale_tril = jnp.asarray(df), loc, scale_tril
        super().__init__((), loc.shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value):
        k, m = self.loc.shape
        residual = jnp.moveaxis((value - self.loc) / self.output_scale, -2, 0)
        white = solve_triangular(self.scale_tril, residual.reshape(k, -1), lower=True)
        square = jnp.sum(white.reshape(residual.shape) ** 2, axis=(0, -1))
        logdet = jnp.sum(jnp.log(jnp.diagonal(self.scale_tril))) + k / m * jnp.sum(jnp.log(self.output_scale))
        half = (self.df + k * m) / 2
        normaliser = gammaln(half) - gammaln(self.df / 2) - 0.5 * k * m * jnp.log(self.df * np.pi) - m * logdet
        return normaliser - half * jnp.log1p(square / self.df)

    def sample(self, key, sample_shape=()):
        key_scale, key_normal = jr.split(key)  # pyright: ignore[reportArgumentType]
        chi = 2 * jr.gamma(key_scale, self.df / 2, sample_shape, self.loc.dtype)
        normal = jr.normal(key_normal, (*sample_shape, *self.loc.shape), self.loc.dtype)
        spread = jnp.sqrt(self.df / chi)[..., None, None] * (self.scale_tril @ normal)
        return self.loc + spread * self.output_scale

    @property
    def mean(self):
        return jnp.where(self.df > 1, self.loc, jnp.nan)

    @property
    def variance(self):
        ratio = jnp.where(self.df > 2, self.df / jnp.where(self.df > 2, self.df - 2, 1), jnp.inf)
        squares = jnp.sum(self.scale_tril**2, axis=1)[:, None] * self.output_scale**2
        return jnp.broadcast_to(jnp.where(self.df > 1, ratio * squares, jnp.nan), self.loc.shape)


def _over_components(function: Any, loc: Any, lower: Any) -> Any:
    """`function(loc_i, lower_i)` for each component; only once where all have the same."""
    if len(loc) == 1 and len(lower) == 1:
        return function(loc[0], lower[0])[None]
    size = max(len(loc), len(lower))
    pair = tuple(jnp.broadcast_to(a, (size, *a.shape[1:])) for a in (loc, lower))
    return jax.lax.map(lambda ab: function(*ab), pair)
