"""Small instances for the conformance kit."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from posterax.testing import EstimatorCase, JointModel

from ._dense import MLPKernel
from ._regression import ScaleMixtureNNGP

_X = np.linspace(-1.0, 1.0, 5)[:, None]
_NEW = np.array([[-0.3], [1.4]])
_NOISE = 0.2


def regression() -> EstimatorCase:
    """A Student-t process of known kernel: five observations, two to be told."""
    component = ScaleMixtureNNGP(MLPKernel(2), dist.InverseGamma(2.0, 2.0), _NOISE, learn=())
    return EstimatorCase(
        component,
        JointModel(_Prior(component), _Given(component)),
        fit=lambda component, joint, key: component,
        infer=_infer,
    )


class _Prior(eqx.Module):
    """The outputs at all seven inputs, in one draw with one scale; the new ones are the parameter."""

    model: ScaleMixtureNNGP

    def __call__(self, key):
        key_scale, key_normal = jr.split(key)
        x = jnp.asarray(np.concatenate([_X, _NEW]))
        gram = self.model.kernel.nngp(x) + _NOISE * jnp.eye(len(x))
        scale = self.model.scale_prior.sample(key_scale)
        y = jnp.sqrt(scale) * jnp.linalg.cholesky(gram) @ jr.normal(key_normal, (len(x),))
        return {"new": y[len(_X) :]}


class _Given(eqx.Module):
    """Observations given the new outputs: by the same law, conditioned the other way round."""

    model: ScaleMixtureNNGP

    def __call__(self, parameter, key):
        known = self.model.condition((_NEW, parameter["new"]))
        return known.infer(_X).sample(key)


def _infer(model: ScaleMixtureNNGP, observed, key):
    return model.condition((_X, observed)).infer(_NEW)
