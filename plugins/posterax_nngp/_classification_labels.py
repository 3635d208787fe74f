"""Classification as regression on one-hot labels: in closed form given the scale, which is then integrated over."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, logsumexp
from jaxtyping import Array, Float, PRNGKeyArray
from posterax._precision import precision

from ._compress import compressed_scales
from ._regression import ScaleMixtureNNGP
from ._scale import atoms

_NODES = 8  # of the scale: good to 1e-6 where it is known least, and to rounding from some tens of labels on
_STEP = 0.375  # standard deviations; the trapezoidal rule then errs by rounding alone
_GRID = np.arange(-12.0, 9.0 + _STEP, _STEP)
_AT_ONCE = 256  # points


def fit_labels(
    settings: Any, x: np.ndarray, labels: np.ndarray, num_classes: int, *, key: PRNGKeyArray
) -> ScaleMixtureNNGP:
    """The regression of one-hot labels `(n, C)`, tied noise; `settings` is a `ScaleMixtureClassifier`."""
    learn_scale = settings.learn_scale and isinstance(settings.scale_prior, dist.Delta)
    learn = ("kernel", "noise") * settings.learn_kernel + ("scale_prior",) * learn_scale
    regression = ScaleMixtureNNGP(
        settings.kernel, settings.scale_prior, settings.noise, learn=learn, num_inducing=settings.num_inducing
    )
    return regression.fit((x, np.eye(num_classes)[labels]), key=key)


def log_largest_of_labels(regression: ScaleMixtureNNGP, x: np.ndarray) -> np.ndarray:
    """For each point and class the log probability `(n, C)` that its entry of a new one-hot row is the largest."""
    with precision(64):
        unit: Any = regression.infer(x, prior=dist.Delta(1.0), joint=False)  # the same means; variances at s = 1
        sizes, log_weights = _sizes(regression.scale_posterior())
        return np.asarray(log_prob_largest(unit.loc, unit.scale[:, 0], sizes, log_weights))


@eqx.filter_jit
def _sizes(scale: dist.Distribution) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Square roots of s, and log-weights, that stand for its law."""
    scales, log_weights = compressed_scales(atoms(scale), _NODES)
    return jnp.sqrt(scales), log_weights


@eqx.filter_jit
def log_prob_largest(
    mean: Float[Array, "n classes"],
    spread: Float[Array, " n"],
    sizes: Float[Array, " S"],
    log_weights: Float[Array, " S"],
) -> Float[Array, "n classes"]:
    r"""Log of $P(y_c = \max_k y_k)$ for independent $y_c \sim N(\mu_c, r^2 \sigma^2)$ given r, and r discrete.

    - `spread`: $\sigma$, the same for all classes of a point. `sizes`, `log_weights`: of r.

    By the trapezoidal rule on $\int \phi_c(t) \prod_{k \ne c} \Phi_k(t) dt$, which is exact to rounding for
    probabilities above 1e-30; smaller ones stay finite and come out too small. The class of the largest mean has the
    largest probability, whatever the law of r.
    """
    grid = jnp.asarray(_GRID)

    def given_size(gaps):
        below = log_ndtr(grid[:, None] - gaps)
        log_density = -0.5 * (grid[:, None] - gaps) ** 2 - below
        return logsumexp(jnp.sum(below, axis=1, keepdims=True) + log_density, axis=0)

    def one(point):
        mean, spread = point
        gaps = (mean - jnp.max(mean)) / (sizes[:, None] * spread)
        log_share = jax.nn.log_softmax(jax.vmap(given_size)(gaps), axis=1)
        return logsumexp(log_weights[:, None] + log_share, axis=0)

    return jax.lax.map(one, (mean, spread), batch_size=_AT_ONCE)
