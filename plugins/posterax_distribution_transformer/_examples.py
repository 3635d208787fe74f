"""Small instances for the conformance kit."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from posterax.testing import EstimatorCase, JointModel, ObjectiveCase

from ._estimator import DistributionTransformer
from ._network import make_network
from ._objective import ExpectedForwardKL
from ._pretrained import pretrained
from ._problem import InferenceProblem
from ._spec import spec_of
from ._tokens import Tokens

_ROWS = 16


def variance() -> EstimatorCase:
    """The variance of a normal number, of one prior, by the pretrained network."""
    return EstimatorCase(pretrained("normal-variance"), JointModel(_draw, _see), fit=_as_it_is, infer=_named)


def _draw(key: Any) -> dict:
    return {"x": _prior().sample(key)}


def _prior() -> dist.InverseGamma:
    return dist.InverseGamma(2.5, 2.0)


def _see(parameter: Any, key: Any) -> Any:
    return jnp.sqrt(parameter["x"]) * jr.normal(key)


def _as_it_is(component: Any, joint: Any, key: Any) -> Any:
    del joint, key
    return component


def _named(fitted: DistributionTransformer, observed: Any, key: Any) -> Any:
    del key
    return fitted.infer(observed, prior=_prior(), check=False)


def divergence() -> ObjectiveCase:
    """A latent that data say nothing of, of one normal prior: where all weights are zero the network tells just that.

    The truth is at a minimum in the biases of the head, which say weight, mean and scale.
    """
    problem = InferenceProblem(_standard, _noise)
    spec = spec_of(problem, 1, False, key=jr.key(0))
    network = make_network(
        3,
        [2],
        0,
        3,
        width=4,
        heads=1,
        depth=1,
        hidden=4,
        trunk="transformer",
        encoder_depth=0,
        residual=False,
        key=jr.key(0),
    )
    model = jax.tree.map(jnp.zeros_like, network)
    return ObjectiveCase(ExpectedForwardKL(spec), model, _batch, optimum=lambda network: network.head.second_bias)


def _standard(key: Any) -> dist.Normal:
    del key
    return dist.Normal(0.0, 1.0)


def _noise(latent: Any, *, key: Any) -> Any:
    del latent
    return jr.normal(key)


def _batch(key: Any) -> tuple[Tokens, Any]:
    here, there = jnp.ones((_ROWS, 1), bool), jr.normal(key, (_ROWS, 1))
    tokens = Tokens(jnp.zeros((_ROWS, 1, 3)), here, (jnp.ones((_ROWS, 1, 2)),), (here,))
    return tokens, there
