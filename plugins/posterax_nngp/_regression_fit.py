"""Maximum marginal likelihood: L-BFGS on the log evidence in unconstrained hyper-parameters."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from posterax import PosteraxWarning

from ._evidence import log_evidence
from ._kernel import Kernel
from ._parameters import Hyper, constrained, unconstrained

_REACH = 25.0  # nothing is searched further than this from where it began, in logarithms
_SPREAD = 1.0  # of random starts, in logarithms
_WORST = 1e100
_ABOVE = 1e3  # nats above all others: what has no evidence, once something had


def maximise(
    hyper: Hyper, x: Any, y: Any, inducing: Any, *, learn: tuple[str, ...], tied: bool, max_steps: int, num_starts: int,
    key: Any,
) -> tuple[Hyper, dict[str, Any]]:  # fmt: skip
    """The hyper-parameters of largest evidence, and the record: evaluations, evidence of each start, convergence.

    The first start is where `hyper` stands, others are normal around it. Where the prior is a point mass to be learnt
    and the noise is tied, the likeliest scale has a closed form and is set by it throughout.
    """
    from scipy.optimize import minimize

    profiled = is_profiled(hyper, learn, tied)
    free = unconstrained(hyper, tuple(name for name in learn if not (profiled and name == "scale_prior")))
    if not free:
        value = log_evidence(hyper, x, y, inducing, tied=tied, profiled=profiled)[0]
        return hyper, {"evaluations": 1, "starts": [float(value)], "converged": True}
    start, unravel = ravel_pytree(free)
    start, evaluate = np.asarray(start), _Objective(hyper, unravel, x, y, inducing, tied, profiled)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()) if num_starts > 1 else None
    found = []
    for number in range(num_starts):
        begin = start if random is None or number == 0 else start + _SPREAD * random.normal(size=start.shape)
        bounds = [(value - _REACH, value + _REACH) for value in begin]
        done = minimize(evaluate, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_steps})
        found.append((float(-done.fun), done.x, done.nit < max_steps))
    value, vector, converged = max(found, key=lambda one: one[0])
    if value <= -_WORST:
        raise NoEvidenceError
    if not converged:
        words = f"The evidence had not converged after {max_steps} steps of L-BFGS. Give more `max_steps`."
        warnings.warn(words, PosteraxWarning, stacklevel=6)
    record = {"evaluations": evaluate.count, "starts": [one[0] for one in found], "converged": converged}
    return constrained(hyper, unravel(jnp.asarray(vector))), record


def choose(
    kernels: tuple[Kernel, ...], hyper: Hyper, x: Any, y: Any, inducing_of: Any, *, learn: tuple[str, ...], tied: bool,
    max_steps: int,
) -> tuple[Hyper, list[tuple[str, float]]]:  # fmt: skip
    """The kernel whose evidence is largest after some steps of L-BFGS, with the hyper-parameters reached.

    Also the evidence of every kernel, in order; `-inf` for one with no finite evidence. Raises `ValueError` where none
    has any.
    """
    reached = []
    for kernel in kernels:
        here = Hyper(kernel, hyper.noise, hyper.scale_prior).widened()
        with warnings.catch_warnings():  # that some steps are not enough to converge is meant
            warnings.simplefilter("ignore", PosteraxWarning)
            try:
                here, found = maximise(
                    here, x, y, inducing_of(here.kernel, x), learn=learn, tied=tied, max_steps=max_steps, num_starts=1,
                    key=None,
                )  # fmt: skip
                reached.append((max(found["starts"]), here))
            except NoEvidenceError:
                reached.append((-np.inf, here))
    best = max(reached, key=lambda one: one[0])
    if best[0] == -np.inf:
        raise NoEvidenceError
    return best[1], [(repr(kernel), value) for kernel, (value, _) in zip(kernels, reached, strict=True)]


class NoEvidenceError(ValueError):
    """No hyper-parameters had a finite evidence."""

    def __init__(self):
        super().__init__(
            "The evidence is not finite at any hyper-parameters tried: the Gram matrix is not positive definite even "
            "with a jitter of 1e-6 of its diagonal. Start from a larger `noise`, take fewer layers, or look whether "
            "the kernel is one."
        )


def is_profiled(hyper: Hyper, learn: tuple[str, ...], tied: bool) -> bool:
    """Whether the scale is one number to be set to its likeliest value, which has a closed form."""
    return tied and "scale_prior" in learn and isinstance(hyper.scale_prior, dist.Delta)


class _Objective:
    """The negative log evidence and its gradient, as SciPy asks for them."""

    def __init__(self, hyper: Hyper, unravel: Any, *rest: Any):
        self.hyper, self.unravel, self.rest, self.count, self.highest = hyper, unravel, rest, 0, -np.inf

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        self.count += 1
        value, gradient = value_and_gradient(self.unravel(jnp.asarray(vector)), self.hyper, *self.rest)
        value, gradient = float(value), np.asarray(ravel_pytree(gradient)[0])
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            # SciPy's line search interpolates: to a value out of all proportion it answers with no step at all, and
            # calls that convergence.
            return _WORST if self.highest == -np.inf else self.highest + _ABOVE, np.zeros_like(vector)
        self.highest = max(self.highest, -value)
        return -value, -gradient


@eqx.filter_jit
def value_and_gradient(free: dict, hyper: Hyper, x: Any, y: Any, inducing: Any, tied: bool, profiled: bool) -> Any:
    """The log evidence, and its gradient in the unconstrained hyper-parameters `free`."""

    def value(free):
        return log_evidence(constrained(hyper, free), x, y, inducing, tied=tied, profiled=profiled)[0]

    return jax.value_and_grad(value)(free)
