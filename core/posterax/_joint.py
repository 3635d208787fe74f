"""JointDistribution: one distribution for all the named values of a target."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from ._target import Target


class JointDistribution(eqx.Module):
    """The distribution of a target's named values when its flattened position follows `base`.

    NumPyro has distributions of one array; this is the least that carries several, of any supports. `sample` and
    `log_prob` speak of constrained values by name, with any leading batch axes.

    - `base`: distribution of the position flattened in the order of `jax.flatten_util.ravel_pytree`, event `(dim,)`.
    - `target`: whose values they are; its density plays no part.
    """

    base: Any  # a NumPyro distribution, or what samples and evaluates like one
    target: Target

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Values by name, each `(*sample_shape, *event)`, deterministic ones included."""
        return _sample(self, key, tuple(sample_shape))

    def log_prob(self, values: Mapping[str, Any]) -> Array:
        """Log density of the values, normalised; one for each entry of their leading batch axes."""
        return _log_prob(self, {name: jnp.asarray(values[name]) for name in self.target.structure.latent})


@eqx.filter_jit
def _sample(joint: JointDistribution, key, sample_shape):
    like = joint.target.position_like()
    unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like))[1]
    flat = joint.base.sample(key, sample_shape)
    return _over(len(sample_shape), lambda row: joint.target.constrain(unravel(row)))(flat)


@eqx.filter_jit
def _log_prob(joint: JointDistribution, values):
    name, shape = next(iter(joint.target.structure.latent.items()))

    def one(values):
        u = joint.target.unconstrain(values)
        return joint.base.log_prob(ravel_pytree(u)[0]) - joint.target.log_jacobian(u)

    return _over(jnp.ndim(values[name]) - len(shape), one)(values)


def _over(axes: int, function):
    for _ in range(axes):
        function = jax.vmap(function)
    return function
