"""As many rows as the largest of the usual UCI sets has, by inducing points, in bounded memory."""

import resource
import sys
import time
import warnings

import numpy as np

ROWS, INPUTS, INDUCING, STEPS = 41_157, 9, 500, 5


def fit() -> dict[str, float]:
    """Generated data: a smooth function of nine inputs with noise of standard deviation 0.3 of its own."""
    import jax.random as jr
    from posterax_nngp import MLPKernel, ScaleMixtureNNGP

    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS + 2000, INPUTS))
    signal = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * x[:, 3] ** 2
    signal = (signal - signal.mean()) / signal.std()
    y = signal + 0.3 * random.normal(size=len(x))
    began = time.perf_counter()
    with warnings.catch_warnings():  # few steps are meant
        warnings.simplefilter("ignore")
        model = ScaleMixtureNNGP(MLPKernel(2), num_inducing=INDUCING, max_steps=STEPS, standardise=True)
        fitted = model.fit((x[:ROWS], y[:ROWS]), key=jr.key(0))
    fit_seconds = time.perf_counter() - began
    law = fitted.infer(x[ROWS:], joint=False)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "gib": largest / (2**30 if sys.platform == "darwin" else 2**20),
        "seconds": fit_seconds,
        "evaluations": fitted.report["evaluations"],
        "rmse": float(np.sqrt(np.mean((np.asarray(law.mean) - signal[ROWS:]) ** 2))),
        "nll": float(-np.mean(np.asarray(law.log_prob(y[ROWS:])))),
        "in95": float(np.mean(np.abs(np.asarray(law.cdf(y[ROWS:])) - 0.5) < 0.475)),
    }
