"""The generalised inverse Gaussian law, normalised by quadrature."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from ._scale_law import cumulative, log_total, mean_and_variance, quantile


class GeneralizedInverseGaussian(dist.Distribution):
    r"""The generalised inverse Gaussian law: density proportional to $s^{p-1} e^{-(\chi/s + \psi s)/2}$ on s > 0.

    - `p`: real. `chi`, `psi`: not negative; `chi` may be 0 where p > 0 (a gamma law of rate psi/2), `psi` where p < 0
      (an inverse gamma law of scale chi/2). They broadcast.

    The normaliser $2 K_p(\sqrt{\chi\psi}) (\chi/\psi)^{p/2}$, its derivatives (in the order p too), the moments and the
    draws come from quadrature in log s, so orders of thousands do not overflow; the normaliser at the two limits is in
    closed form. Where psi = 0 the mean is infinite for p at least -1, the variance for p at least -2. Draws invert the
    distribution function; their tails end where the density of log s is 45 nats below its maximum. Source: Jorgensen
    (1982), doi:10.1007/978-1-4612-5698-4.
    """

    arg_constraints = {"p": constraints.real, "chi": constraints.nonnegative, "psi": constraints.nonnegative}  # noqa: RUF012
    support = constraints.positive  # pyright: ignore[reportAssignmentType]
    reparametrized_params = ["p", "chi", "psi"]  # noqa: RUF012
    p: Any
    chi: Any
    psi: Any

    def __init__(self, p: ArrayLike, chi: ArrayLike, psi: ArrayLike, *, validate_args: bool | None = None):
        self.p, self.chi, self.psi = promote_shapes(p, chi, psi)  # pyright: ignore[reportGeneralTypeIssues]
        shape = jnp.broadcast_shapes(jnp.shape(p), jnp.shape(chi), jnp.shape(psi))
        super().__init__(shape, validate_args=validate_args)
        proper = ((self.chi > 0) | (self.p > 0)) & ((self.psi > 0) | (self.p < 0))
        if self._validate_args and not isinstance(proper, Tracer) and not np.all(proper):
            raise ValueError(
                "`chi` may be 0 only where `p` is positive, and `psi` only where `p` is negative: the density has no "
                f"finite integral; got p = {p}, chi = {chi}, psi = {psi}."
            )

    def log_kernel(self, t):
        """Log density of t = log s without the normaliser."""
        return self.p * t - (self.chi * jnp.exp(-t) + self.psi * jnp.exp(t)) / 2

    @property
    def log_normaliser(self) -> Array:
        """Log of the integral of the density without its normaliser, `batch_shape`."""
        quadrature = self._each(lambda law, _: log_total(law.log_kernel), 0.0)
        size, rate = jnp.abs(self.p), jnp.where(self.p > 0, self.psi, self.chi) / 2
        limit = (jnp.where(self.p > 0, self.chi, self.psi) == 0) & (size > 0)
        size, rate = jnp.where(limit, size, 1.0), jnp.where(limit, rate, 1.0)
        return jnp.where(limit, gammaln(size) - size * jnp.log(rate), quadrature)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()):
        """Draws of shape `sample_shape + batch_shape`, by inversion; differentiable in the parameters."""
        return self.icdf(jr.uniform(key, self.shape(sample_shape)))

    @validate_sample
    def log_prob(self, value):
        """Log density at `value`, in nats."""
        log_s = jnp.log(value)
        return self.log_kernel(log_s) - log_s - self.log_normaliser

    def cdf(self, value):
        """Probability of a smaller value, by quadrature."""
        return self._each(lambda law, x: cumulative(law.log_kernel, jnp.log(x)), value)

    def icdf(self, q):
        """The value whose `cdf` is `q`."""
        return self._each(lambda law, x: jnp.exp(quantile(law.log_kernel, x)), q)

    @property
    def mean(self):
        """By quadrature; infinite for psi = 0 and p at least -1."""
        return self._each(lambda law, _: mean_and_variance(law.log_kernel)[0], 0.0)

    @property
    def variance(self):
        """By quadrature; infinite for psi = 0 and p at least -2."""
        return self._each(lambda law, _: mean_and_variance(law.log_kernel)[1], 0.0)

    def _each(self, function, x):
        """`function` of each law of the batch and the entries of `x` that belong to it."""
        batch = self.batch_shape
        shape = jnp.broadcast_shapes(jnp.shape(x), batch)
        x = jnp.broadcast_to(x, shape).reshape(-1, math.prod(batch))
        p, chi, psi = (jnp.broadcast_to(jnp.asarray(v, float), batch).ravel() for v in (self.p, self.chi, self.psi))

        def one(p, chi, psi, x) -> Array:
            law = GeneralizedInverseGaussian(p, chi, psi, validate_args=False)
            return jnp.broadcast_to(function(law, x), x.shape)

        return jax.vmap(one, in_axes=(0, 0, 0, 1), out_axes=1)(p, chi, psi, x).reshape(shape)
