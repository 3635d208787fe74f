"""Two modes of unequal weight, far apart, from an honest prior and likelihood."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, PRNGKeyArray
from posterax import Target

from ._checks import as_float, require_positive, require_shape


def _sign_mixture(weight, center, sd):
    """N(center, sd^2 I) with probability `weight`, N(-center, sd^2 I) otherwise."""
    probs = jnp.stack([weight, 1 - weight])
    return dist.MixtureSameFamily(
        dist.CategoricalProbs(probs), dist.Normal(jnp.stack([center, -center]), sd).to_event(1)
    )


def bimodal_model(observed, weight, prior_sd, noise_sd):
    """The NumPyro model of `BimodalMixture`."""
    x = numpyro.sample("x", dist.Normal(0.0, prior_sd).expand(observed.shape).to_event(1))
    numpyro.sample("y", _sign_mixture(weight, x, noise_sd), obs=observed)


class BimodalMixture(eqx.Module):
    r"""A vector measured up to its sign: $x \sim N(0, s^2 I)$, $y \sim w N(x, \sigma^2 I) + (1 - w) N(-x,
    \sigma^2 I)$.

    The posterior is exactly $w N(m, r^2 I) + (1 - w) N(-m, r^2 I)$ with $m = y s^2 / (s^2 + \sigma^2)$ and
    $r = s \sigma / \sqrt{s^2 + \sigma^2}$: two Gaussians with the weights of the signs. A chain that starts
    in one mode stays there; tempering goes from the prior, which covers both, to the posterior.

    - `observed`: $y$, shape `(d,)`.
    - `weight`: $w$, the probability that the sign was right, between 0 and 1.
    - `prior_sd`, `noise_sd`: $s$ and $\sigma$, in the units of `observed`.

    The one latent site is `x` of shape `(d,)`. The defaults put the modes, in two dimensions, 16 of their
    standard deviations apart.

    Source: posterax; the arithmetic is that of conjugate normal means.
    """

    observed: Float[Array, " d"] = eqx.field(converter=as_float, default=(3.0, 3.0))
    weight: Float[Array, ""] = eqx.field(converter=as_float, default=0.75, kw_only=True)
    prior_sd: Float[Array, ""] = eqx.field(converter=as_float, default=5.0**0.5, kw_only=True)
    noise_sd: Float[Array, ""] = eqx.field(converter=as_float, default=0.5, kw_only=True)

    def __check_init__(self):
        require_shape("observed", self.observed, ("d",))
        for name in ("weight", "prior_sd", "noise_sd"):
            require_shape(name, getattr(self, name), ())
            require_positive(name, getattr(self, name))
        require_positive("1 - weight", 1 - self.weight)

    @property
    def source(self) -> str:
        """Where the problem comes from."""
        return "posterax: a vector measured up to its sign"

    @property
    def target(self) -> Target:
        """The posterior of `x`."""
        return Target.from_numpyro(bimodal_model, self.observed, self.weight, self.prior_sd, self.noise_sd)

    @property
    def posterior(self) -> dist.MixtureSameFamily:
        """The exact posterior of `x`."""
        return _sign_mixture(self.weight, self.mode_means[0], self.mode_sd)

    @property
    def mode_weights(self) -> Float[Array, " 2"]:
        """Exact posterior probability of each mode."""
        return jnp.stack([self.weight, 1 - self.weight])

    @property
    def mode_means(self) -> Float[Array, "2 d"]:
        """Center of each mode."""
        center = self.observed * self.prior_sd**2 / (self.prior_sd**2 + self.noise_sd**2)
        return jnp.stack([center, -center])

    @property
    def mode_sd(self) -> Float[Array, ""]:
        """Standard deviation of both modes along every axis."""
        return self.prior_sd * self.noise_sd / jnp.sqrt(self.prior_sd**2 + self.noise_sd**2)

    @property
    def mean(self) -> dict[str, Array]:
        """Exact posterior mean, `(d,)` for `x`: between the modes, where there is no mass."""
        return {"x": self.mode_weights @ self.mode_means}

    @property
    def sd(self) -> dict[str, Array]:
        """Exact posterior standard deviation, `(d,)` for `x`."""
        between = 4 * self.weight * (1 - self.weight) * self.mode_means[0] ** 2
        return {"x": jnp.sqrt(self.mode_sd**2 + between)}

    @property
    def log_evidence(self) -> Float[Array, ""]:
        r"""Exact $\log p(y)$, with $y \sim N(0, (s^2 + \sigma^2) I)$ whatever the sign, in nats."""
        return dist.Normal(0.0, jnp.sqrt(self.prior_sd**2 + self.noise_sd**2)).log_prob(self.observed).sum()

    def which_mode(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """The nearer mode: 0 where `x` points along `observed`, else 1."""
        return jnp.where(x @ self.observed >= 0, 0, 1)

    def sample(self, *, key: PRNGKeyArray) -> dict[str, Array]:
        """One exact, independent draw from the posterior."""
        return {"x": self.posterior.sample(key)}

    def simulate(self, *, key: PRNGKeyArray) -> tuple[dict[str, Array], Float[Array, " d"]]:
        """One exact draw of parameter and data together: `({"x": (d,)}, y of shape (d,))`."""
        key_x, key_sign, key_noise = jr.split(key, 3)
        x = self.prior_sd * jr.normal(key_x, self.observed.shape)
        sign = jnp.where(jr.uniform(key_sign) < self.weight, 1.0, -1.0)
        return {"x": x}, sign * x + self.noise_sd * jr.normal(key_noise, x.shape)
