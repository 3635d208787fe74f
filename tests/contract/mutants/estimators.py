"""Correct estimators, each written out so that one line can be spoilt: see mutants.toml."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from posterax import Estimator, JointDistribution, Target

_SEEN = []


class LinearGaussian(Estimator):
    """The posterior of a linear Gaussian model, by regression of parameters on observations."""

    num_simulations: int = 20_000
    coefficients: jax.Array | None = None
    scale_tril: jax.Array | None = None

    def fit(self, data, *, key):
        parameters, observed = jax.vmap(data)(jr.split(key, self.num_simulations))
        parameters = jax.vmap(lambda p: ravel_pytree(p)[0])(parameters)
        inputs = jnp.concatenate([observed, jnp.ones((self.num_simulations, 1))], axis=1)
        coefficients = jnp.linalg.lstsq(inputs, parameters)[0]
        residual = parameters - inputs @ coefficients
        covariance = residual.T @ residual / self.num_simulations
        return LinearGaussian(self.num_simulations, coefficients, jnp.linalg.cholesky(covariance))

    def infer(self, observed=None, *, prior=None, key=None):
        if self.coefficients is None:
            raise ValueError("Call `fit` first.")
        if prior is not None:
            raise TypeError("The prior is that of the simulations.")
        mean = jnp.append(observed, 1.0) @ self.coefficients
        return dist.MultivariateNormal(mean, scale_tril=self.scale_tril)


class Laplace(Estimator):
    """A normal at the mode, with the curvature there: exact for a Gaussian posterior."""

    mode: jax.Array | None = None
    scale_tril: jax.Array | None = None
    target: Target | None = None

    def fit(self, data, *, key):
        zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, data.density.example()))
        log_density = lambda x: data.log_density(unravel(x))  # noqa: E731
        mode = zero
        for _ in range(5):
            mode = mode - jnp.linalg.solve(jax.hessian(log_density)(mode), jax.grad(log_density)(mode))
        covariance = jnp.linalg.inv(-jax.hessian(log_density)(mode))
        return Laplace(mode, jnp.linalg.cholesky(covariance), data)

    def infer(self, observed=None, *, prior=None, key=None):
        if self.mode is None:
            raise ValueError("Call `fit` first.")
        return JointDistribution(dist.MultivariateNormal(self.mode, scale_tril=self.scale_tril), self.target)
