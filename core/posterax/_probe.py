"""After a run: is the density NaN somewhere near the draws, where a sampler would silently refuse to go?"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from ._draws import Draws, flatten_chains

_POINTS = 512


def nan_near(target, draws: Draws, key: PRNGKeyArray) -> dict[str, np.ndarray] | None:
    """Values near the draws at which the log density is NaN, or None.

    Looks at draws displaced by half to four standard deviations of the draws, in unconstrained space.
    """
    flat = flatten_chains({name: draws.values[name] for name in target.structure.latent})
    chosen = np.linspace(0, len(next(iter(flat.values()))) - 1, _POINTS).astype(int)
    values = {name: value[chosen] for name, value in flat.items()}
    log_density, points = jax.tree.map(np.asarray, _displaced(target, values, key))
    bad = np.flatnonzero(np.isnan(log_density))
    return None if not bad.size else {name: points[name][bad[0]] for name in values}


@eqx.filter_jit
def _displaced(target, values, key):
    u = jax.vmap(target.unconstrain)(values)
    leaves, treedef = jax.tree.flatten(u)
    steps = jnp.array([0.5, 1.0, 2.0, 4.0])[jnp.arange(_POINTS) % 4]

    def move(leaf, k):
        size = steps.reshape(-1, *[1] * (leaf.ndim - 1))
        moved = leaf + size * jnp.std(leaf, axis=0) * jr.normal(k, leaf.shape, leaf.dtype)
        return jnp.where(jnp.isfinite(leaf), moved, 0.0)

    u = jax.tree.unflatten(treedef, list(map(move, leaves, jr.split(key, len(leaves)))))
    return jax.vmap(target.log_density)(u), jax.vmap(target.constrain)(u)
