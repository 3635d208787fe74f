"""What the peers compute, each in an environment of its own: `python _nngp_peers.py PROGRAM` there.

Only NumPy and the peer are imported. A program sets up its problem and returns a function that computes the answer
once, to the end; `_serve.serve` times it whenever a line says so.
"""

import contextlib
import sys

import _serve
import numpy as np

N, D = 2000, 8
DEPTH, WEIGHT_VARIANCE, BIAS_VARIANCE = 3, 2.0, 0.1
LENGTHSCALE, VARIANCE, NOISE = 2.0, 1.0, 0.1


def data(num: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal inputs `(num, D)`, and a smooth function of them with noise of variance NOISE `(num,)`."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num, D))
    signal = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * x[:, 3] ** 2
    return x, (signal - signal.mean()) / signal.std() + np.sqrt(NOISE) * random.normal(size=num)


# Gram matrix of a ReLU network


def neural_tangents_gram(num: int = N):
    import jax
    import jax.numpy as jnp
    from neural_tangents import stax

    jax.config.update("jax_enable_x64", True)
    layers = []
    for _ in range(DEPTH):
        layers += [stax.Dense(1, W_std=WEIGHT_VARIANCE**0.5, b_std=BIAS_VARIANCE**0.5), stax.Relu()]
    kernel = stax.serial(*layers, stax.Dense(1, W_std=1.0, b_std=None))[2]
    gram = jax.jit(lambda x: kernel(x, None, "nngp"))
    x = jnp.asarray(data(num)[0])
    return lambda: jax.block_until_ready(gram(x))


# Log evidence of a Matern 5/2 process, and its gradient in lengthscale, variance and noise


def tinygp_evidence(num: int = N):
    import jax
    import jax.numpy as jnp
    from tinygp import GaussianProcess, kernels

    jax.config.update("jax_enable_x64", True)
    x, y = map(jnp.asarray, data(num))

    def log_evidence(logs):
        lengthscale, variance, noise = jnp.exp(logs)
        # The metric of the other peers: tinygp's own default is the sum of absolute differences.
        kernel = variance * kernels.Matern52(lengthscale, distance=kernels.distance.L2Distance())
        return GaussianProcess(kernel, x, diag=noise).log_probability(y)

    both = jax.jit(jax.value_and_grad(log_evidence))
    logs = jnp.log(jnp.asarray([LENGTHSCALE, VARIANCE, NOISE]))
    return lambda: jax.block_until_ready(both(logs))


def gpjax_evidence(num: int = N):
    import equinox as eqx
    import gpjax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x, y = data(num)
    rows = gpjax.Dataset(X=jnp.asarray(x), y=jnp.asarray(y)[:, None])
    prior = gpjax.gps.Prior(
        mean_function=gpjax.mean_functions.Zero(),
        kernel=gpjax.kernels.Matern52(lengthscale=jnp.asarray(LENGTHSCALE), variance=jnp.asarray(VARIANCE)),
    )
    model = prior * gpjax.likelihoods.Gaussian(obs_stddev=jnp.asarray(NOISE**0.5))
    both = eqx.filter_jit(eqx.filter_value_and_grad(gpjax.objectives.conjugate_mll))
    return lambda: jax.block_until_ready(both(model, rows))


def gpytorch_evidence(num: int = N, cholesky: bool = False):
    import gpytorch
    import torch

    x, y = (torch.as_tensor(value) for value in data(num))

    class Matern(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5))

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    model = Matern(likelihood).double().train()
    model.covar_module.base_kernel.lengthscale = LENGTHSCALE
    model.covar_module.outputscale = VARIANCE
    likelihood.noise = NOISE
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)

    def once():
        with gpytorch.settings.max_cholesky_size(2 * num) if cholesky else contextlib.nullcontext():
            model.zero_grad()
            value = num * objective(model(x), y)
            value.backward()
        return (value.item(), *(parameter.grad for parameter in model.parameters()))

    return once


def gpytorch_cholesky_evidence(num: int = N):
    return gpytorch_evidence(num, cholesky=True)


PROGRAMS = {
    "neural-tangents-gram": neural_tangents_gram,
    "tinygp-evidence": tinygp_evidence,
    "gpjax-evidence": gpjax_evidence,
    "gpytorch-evidence": gpytorch_evidence,
    "gpytorch-cholesky-evidence": gpytorch_cholesky_evidence,
}


if __name__ == "__main__":
    _serve.serve(PROGRAMS[sys.argv[1]])
