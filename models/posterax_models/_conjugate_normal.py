"""A normal mean with known noise: everything about it has a formula."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Target

from ._checks import as_float, require_positive, require_shape


def conjugate_normal_model(observed, noise_sd, prior_mean, prior_sd):
    """The NumPyro model of `ConjugateNormal`."""
    mu = numpyro.sample("mu", dist.Normal(prior_mean, prior_sd))
    with numpyro.plate("observation", observed.shape[0]):
        numpyro.sample("y", dist.Normal(mu, noise_sd), obs=observed)


class ConjugateNormal(eqx.Module):
    r"""Observations $y_i \sim N(\mu, \sigma)$ of one unknown mean $\mu \sim N(m, s)$.

    - `observed`: $y$, shape `(n,)` with n at least 1.
    - `noise_sd`: $\sigma$, scalar, in the units of `observed`.
    - `prior_mean`, `prior_sd`: $m$ and $s$, scalars, in the units of `observed`.

    The one latent site is `mu`. All answers are differentiable, and hold under `jax.vmap`.

    Source: Gelman et al., *Bayesian Data Analysis*, 3rd edition (2013), section 2.5, equations 2.11-2.12.
    """

    observed: Float[Array, " n"] = eqx.field(converter=as_float)
    noise_sd: Float[Array, ""] = eqx.field(converter=as_float, default=1.0, kw_only=True)
    prior_mean: Float[Array, ""] = eqx.field(converter=as_float, default=0.0, kw_only=True)
    prior_sd: Float[Array, ""] = eqx.field(converter=as_float, default=1.0, kw_only=True)

    def __check_init__(self):
        require_shape("observed", self.observed, ("n",))
        require_shape("prior_mean", self.prior_mean, ())
        for name in ("noise_sd", "prior_sd"):
            require_shape(name, getattr(self, name), ())
            require_positive(name, getattr(self, name))

    @property
    def source(self) -> str:
        """Where the problem comes from."""
        return "Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, section 2.5"

    @property
    def target(self) -> Target:
        """The posterior of `mu`."""
        return Target.from_numpyro(conjugate_normal_model, self.observed, self.noise_sd, self.prior_mean, self.prior_sd)

    @property
    def posterior(self) -> dist.Normal:
        r"""The exact posterior of `mu`: precisions $1/s^2$ and $n/\sigma^2$ add."""
        variance = 1 / (1 / self.prior_sd**2 + self.observed.size / self.noise_sd**2)
        mean = variance * (self.prior_mean / self.prior_sd**2 + self.observed.sum() / self.noise_sd**2)
        return dist.Normal(mean, jnp.sqrt(variance))

    @property
    def mean(self) -> dict[str, Array]:
        """Exact posterior mean, a scalar for `mu`."""
        return {"mu": self.posterior.mean}

    @property
    def sd(self) -> dict[str, Array]:
        """Exact posterior standard deviation, a scalar for `mu`."""
        return {"mu": jnp.sqrt(self.posterior.variance)}

    @property
    def log_evidence(self) -> Float[Array, ""]:
        r"""Exact $\log p(y)$, where $y \sim N(m 1, \sigma^2 I + s^2 1 1^\top)$, in nats.

        That covariance has variance $\sigma^2 + n s^2$ along the mean of `y` and $\sigma^2$ across it.
        """
        n, center = self.observed.size, self.observed.mean()
        across = jnp.sum((self.observed - center) ** 2) / self.noise_sd**2
        variance = self.noise_sd**2 + n * self.prior_sd**2
        along = n * (center - self.prior_mean) ** 2 / variance
        log_det = 2 * (n - 1) * jnp.log(self.noise_sd) + jnp.log(variance)
        return -0.5 * (n * jnp.log(2 * jnp.pi) + log_det + across + along)

    def simulate(self, *, key: PRNGKeyArray) -> tuple[dict[str, Array], Float[Array, " n"]]:
        """One exact draw of parameter and data together, with as many observations as `observed` has.

        Returns `({"mu": scalar}, y of shape (n,))`. Put the data back with `dataclasses.replace`.
        """
        key_mu, key_noise = jr.split(key)
        mu = self.prior_mean + self.prior_sd * jr.normal(key_mu)
        return {"mu": mu}, mu + self.noise_sd * jr.normal(key_noise, self.observed.shape)
