"""The log evidence of a regression, by whichever way its noise and size ask for."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from . import _free, _inducing, _solve
from ._parameters import Hyper
from ._scale import log_marginal


def log_evidence(
    hyper: Hyper, x: Array, y: Float[Array, "n m"], inducing: Array | None, *, tied: bool, profiled: bool = False
) -> tuple[Array, Array]:
    r"""$\log p(Y)$ in nats, or a lower bound on it with inducing points; and the jitter that was needed.

    - `profiled`: the scale is the one under which the data are likeliest, in place of any prior's.

    Source: scale mixture $\int N(Y; 0, s C) dH(s)$, or with free noise $\int N(Y; 0, s K + \tau I) dH(s)$. Closed form
    for a point mass, and for an inverse gamma law with tied noise; a sum over atoms; else quadrature.
    """
    if not tied:
        if isinstance(hyper.scale_prior, dist.Delta):
            return _gaussian(hyper, x, y)
        return _free.log_evidence(hyper.scale_prior, hyper.kernel, hyper.noise, x, y)
    if inducing is None:
        quad, logdet, jitter = _solve.evidence_terms(hyper.kernel, hyper.noise, x, y)
        penalty = 0.0
    else:
        quad, logdet, penalty, jitter = _inducing.evidence_terms(hyper.kernel, hyper.noise, x, y, inducing)
    return from_terms(hyper.scale_prior, quad, logdet, penalty, y.shape, profiled=profiled), jitter


def from_terms(prior: Any, quad: Any, logdet: Any, penalty: Any, shape: tuple[int, ...], *, profiled: bool) -> Array:
    """Log evidence from the quadratic form and log determinant of unit scale."""
    n, m = shape
    if profiled:
        over_scale = -0.5 * n * m * (jnp.log(quad / (n * m)) + 1)
    else:
        over_scale = log_marginal(prior, quad, n * m)
    return over_scale - 0.5 * m * logdet - 0.5 * n * m * np.log(2 * np.pi) - penalty


def _gaussian(hyper: Hyper, x: Array, y: Array) -> tuple[Array, Array]:
    """Free noise and one known scale: an ordinary Gaussian process."""
    scale = hyper.scale_prior.v  # pyright: ignore[reportAttributeAccessIssue]
    quad, logdet, jitter = _solve.quad_and_logdet(_solve.noisy(scale * hyper.kernel.nngp(x), hyper.noise), y)
    n, m = y.shape
    return -0.5 * (quad + m * logdet + n * m * np.log(2 * np.pi)), jitter
