"""A classifier with a problem of its own for the conformance kit: labels at fixed points, and one more to come."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from posterax.testing import EstimatorCase, JointModel

from ._classification import ScaleMixtureClassifier
from ._stationary import RBFKernel

_POINTS = np.linspace(-2.0, 2.0, 6)[:, None]
_NEW = np.array([[0.3]])
_CLASSES = 3
_VARIANCE = 4.0
_STEPS = 100
_LEARNING_RATE = 0.1


def classifier() -> EstimatorCase:
    """Three classes by a Student-t process, every hyper-parameter known; each data set is fitted anew."""
    component = ScaleMixtureClassifier(
        RBFKernel(1.0, _VARIANCE), dist.InverseGamma(2.0, 2.0), num_inducing=len(_POINTS), num_classes=_CLASSES,
        num_steps=_STEPS, num_draws=8, num_predictive_draws=200, learn_kernel=False, learn_inducing=False,
        learning_rate=_LEARNING_RATE,
    )  # fmt: skip
    return EstimatorCase(component, JointModel(_new_label, _labels), fit=_as_it_is, infer=_next_label)


def _new_label(key) -> dict:
    return {"label": jr.randint(key, (), 0, _CLASSES)}


def _labels(parameter, key):
    """Labels at the points, given the new one.

    All are drawn together, with their s and f, and the classes then turned until the new label is the given one: which
    is exact, since the prior knows no class by its name.
    """
    key_scale, key_latent, key_label = jr.split(key, 3)
    scale = 2.0 / jnp.sum(jr.exponential(key_scale, (2,)))  # InverseGamma(2, 2)
    latent = jnp.sqrt(scale) * _root() @ jr.normal(key_latent, (len(_POINTS) + 1, _CLASSES))
    labels = jr.categorical(key_label, latent)
    return (labels[:-1] - labels[-1] + parameter["label"]) % _CLASSES


def _root() -> np.ndarray:
    x = np.concatenate([_POINTS, _NEW])
    return np.linalg.cholesky(_VARIANCE * np.exp(-0.5 * (x - x.T) ** 2) + 1e-9 * np.eye(len(x)))


def _as_it_is(component, joint, key):
    del joint, key
    return component


def _next_label(classifier, observed, key):
    key_fit, key_infer = jr.split(key)
    fitted = classifier.fit((_POINTS, observed), key=key_fit, progress=False)
    return dist.CategoricalLogits(fitted.infer(_NEW, key=key_infer).logits[0])
