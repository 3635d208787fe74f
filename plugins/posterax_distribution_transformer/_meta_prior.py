"""The law of priors: which mixtures of normals an estimator is trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.util import cholesky_of_inverse

from ._mixture import Components, mixture_of


class MixtureMetaPrior(eqx.Module):
    r"""Draws mixtures of K normals in n dimensions, components independent of each other.

    Weights are Dirichlet(c, ..., c), means N(0, M), precisions Wishart(n + 1, s I) + eps I: heavy-tailed covariances.

    - `num_components`: K.
    - `size`: n; None for mixtures on the line, of numbers.
    - `concentration`: c; 1 / K by default, which leaves few components with weight.
    - `mean_covariance`: M `(n, n)`; the identity by default.
    - `precision_scale`: s. `least_precision`: eps.

    Source: Whittle et al. (2025), arXiv:2502.02463, section 4 and the published code.
    """

    num_components: int
    size: int | None = None
    concentration: float | None = None
    mean_covariance: Float[Array, "n n"] | None = None
    precision_scale: float = 1.0
    least_precision: float = 1e-2

    def __call__(self, key: PRNGKeyArray) -> dist.MixtureSameFamily:
        """One mixture."""
        num, size = self.num_components, self.size or 1
        key_weights, key_mean, key_precision = jr.split(key, 3)
        concentration = jnp.full(num, 1 / num if self.concentration is None else self.concentration)
        weights = jr.loggamma(key_weights, concentration)
        mean = jr.normal(key_mean, (num, size))
        if self.mean_covariance is not None:
            mean = mean @ jnp.linalg.cholesky(self.mean_covariance).T
        half = jr.normal(key_precision, (num, size, size + 1))
        precision = self.precision_scale * half @ jnp.swapaxes(half, -1, -2) + self.least_precision * jnp.eye(size)
        tril = cholesky_of_inverse(precision)
        parts = Components(jax.nn.log_softmax(weights), mean, tril)
        return mixture_of(parts, scalar=self.size is None)
