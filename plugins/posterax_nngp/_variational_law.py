"""The law of a function's values at some points where all classes share one scale."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from numpyro.util import is_prng_key


class SharedScaleStudentT(dist.Distribution):
    r"""The multivariate t distribution of a matrix whose columns are uncorrelated, though not independent.

    Values are `(n, C)`: with one $s \sim$ InverseGamma(df/2, df/2) for all of them, column c is
    $N(\mu_c, s\,T_c T_c')$. An infinite `df` is the Gaussian limit, s = 1.

    - `df`: degrees of freedom. Mean and variances are undefined (NaN) up to 1, variances infinite up to 2.
    - `loc`: `(n, C)`.
    - `scale_tril`: `(C, n, n)`, the T_c; their squares are *scale* matrices, covariances only in the limit.
    """

    arg_constraints = {  # noqa: RUF012
        "df": constraints.positive,
        "loc": constraints.real_matrix,
        "scale_tril": constraints.independent(constraints.lower_cholesky, 1),
    }
    support = constraints.real_matrix  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("df", "loc", "scale_tril")

    def __init__(self, df: Any, loc: Array, scale_tril: Array, *, validate_args: bool | None = None):
        self.df, self.loc, self.scale_tril = df, loc, scale_tril
        super().__init__(batch_shape=(), event_shape=jnp.shape(loc), validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Draws `(*sample_shape, n, C)`, one s each."""
        assert is_prng_key(key)
        key_scale, key_normal = jr.split(key)
        finite = jnp.isfinite(self.df)
        half = 0.5 * jnp.where(finite, self.df, 1.0)
        log_scale = jnp.where(finite, jnp.log(half) - jr.loggamma(key_scale, half, sample_shape), 0.0)
        normal = jr.normal(key_normal, (*sample_shape, *self.event_shape))
        moved = jnp.einsum("cij,...jc->...ic", self.scale_tril, normal)
        return self.loc + jnp.exp(0.5 * log_scale)[..., None, None] * moved

    @validate_sample
    def log_prob(self, value: Any) -> Float[Array, "..."]:
        """Log density of matrices `(..., n, C)`."""
        value = jnp.asarray(value)
        off = jnp.moveaxis((value - self.loc).reshape(-1, *self.event_shape), (0, 1, 2), (2, 1, 0))  # (C, n, draws)
        solved = jax.scipy.linalg.solve_triangular(self.scale_tril, off, lower=True)
        quad = jnp.sum(solved**2, axis=(0, 1)).reshape(value.shape[:-2])
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.scale_tril, axis1=1, axis2=2)))
        num, finite = self.loc.size, jnp.isfinite(self.df)
        df = jnp.where(finite, self.df, 1.0)
        student = gammaln(0.5 * (df + num)) - gammaln(0.5 * df) - 0.5 * num * jnp.log(df * jnp.pi)
        student -= 0.5 * (df + num) * jnp.log1p(quad / df)
        normal = -0.5 * (quad + num * jnp.log(2 * jnp.pi))
        return jnp.where(finite, student, normal) - log_det

    @property
    def mean(self) -> Float[Array, "n classes"]:
        """`loc`, where there is a mean."""
        return jnp.where(self.df > 1, self.loc, jnp.nan)

    @property
    def variance(self) -> Float[Array, "n classes"]:
        """Of each value; infinite, or undefined, where the law has none."""
        df = jnp.asarray(self.df)
        regular = jnp.isfinite(df) & (df > 2)
        factor = jnp.where(regular, df / jnp.where(regular, df - 2, 1.0), jnp.where(df > 2, 1.0, jnp.inf))
        return jnp.where(df > 1, factor * jnp.sum(self.scale_tril**2, axis=-1).T, jnp.nan)
