"""A peer's exact Gaussian processes on one split, in its own environment: `python _nngp_uci_peer.py FILE STEPS STEPS`.

Prints one line of JSON: for each kernel predictive means and standard deviations in the units of the targets.
"""

import json
import sys
import time
import warnings

import gpytorch
import numpy as np
import torch
from scipy.optimize import minimize

STARTS = 6


class Process(gpytorch.models.ExactGP):
    """Zero mean; a stationary kernel with a variance."""

    def __init__(self, x, y, likelihood, kernel):
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(kernel)

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def fit(x, y, kernel, screening, steps, random):
    """The likeliest of some starts after some steps of L-BFGS, then fitted to the end."""
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-8))
    model = Process(x, y, likelihood, kernel).double().train()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]

    def put(vector):
        with torch.no_grad():
            for p, part in zip(parameters, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
                p.copy_(torch.as_tensor(part).reshape(p.shape))

    def value(vector):
        put(vector)
        model.zero_grad()
        try:
            loss = -len(y) * objective(model(x), y)
            loss.backward()
        except Exception:
            return 1e100, np.zeros_like(vector)
        return loss.item(), np.concatenate([p.grad.numpy().ravel() for p in parameters])

    reached = []
    for number in range(STARTS):
        model.covar_module.base_kernel.lengthscale = float(
            np.sqrt(x.shape[1]) * np.exp(0.7 * random.normal() * (number > 0))
        )
        model.covar_module.outputscale = 1.0
        likelihood.noise = float(0.05 * np.exp(random.normal() * (number > 0)))
        start = np.concatenate([p.detach().numpy().ravel() for p in parameters])
        done = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": screening})
        reached.append((done.fun, done.x))
    best = min(reached, key=lambda one: one[0])[1]
    done = minimize(value, best, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    put(done.x)
    return model.eval(), likelihood.eval(), -float(done.fun)


def main(file, screening, steps):
    warnings.simplefilter("ignore")
    data = np.load(file)
    shift, size = data["x"].mean(0), data["x"].std(0)
    size = np.where(size > 0, size, 1)
    centre, unit = data["y"].mean(), data["y"].std()
    x, new = (torch.as_tensor((data[name] - shift) / size) for name in ("x", "new"))
    y = torch.as_tensor((data["y"] - centre) / unit)
    kernels = {
        "RBF": lambda d: gpytorch.kernels.RBFKernel(),
        "Matern 5/2": lambda d: gpytorch.kernels.MaternKernel(nu=2.5),
        "RBF, ARD": lambda d: gpytorch.kernels.RBFKernel(ard_num_dims=d),
        "Matern 5/2, ARD": lambda d: gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=d),
    }
    found = {}
    for name, make in kernels.items():
        began = time.perf_counter()
        with gpytorch.settings.max_cholesky_size(100_000), gpytorch.settings.fast_computations(False, False, False):
            random = np.random.default_rng(0)
            model, likelihood, evidence = fit(x, y, make(x.shape[1]), screening, steps, random)
            with torch.no_grad():
                law = likelihood(model(new))
                mean, variance = law.mean.numpy(), law.variance.numpy()
        found[name] = {
            "mean": (centre + unit * mean).tolist(),
            "sd": (unit * np.sqrt(variance)).tolist(),
            "log_evidence": evidence - len(y) * float(np.log(unit)),
            "seconds": time.perf_counter() - began,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
