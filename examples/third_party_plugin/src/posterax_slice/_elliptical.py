from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree
from posterax import Sampler

# An angle bracket that has shrunk this often is narrower than rounding: only the current point is in it.
_MAX_SHRINKS = 100


class EllipticalSliceState(eqx.Module):
    """Where the chain is, and what the next step would otherwise compute again."""

    position: PyTree[Array]
    z: Float[Array, " dim"]  # the same point where the Gaussian is standard: position = mean + scale_tril @ z
    log_ratio: Float[Array, ""]  # log target less log Gaussian, up to a constant


class EllipticalSliceInfo(NamedTuple):
    """What happened in one step. Nothing later depends on it."""

    lp: Float[Array, ""]  # log density of unconstrained space, up to a constant
    n_steps: Int[Array, ""]  # evaluations of the density


class EllipticalSlice(Sampler):
    r"""Elliptical slice sampling of any target, around a Gaussian of one's choice.

    Writes the target as $p(x) = N(x; m, LL^T)\,r(x)$. A step draws $\nu \sim N(0, LL^T)$ and a level
    $\log y = \log r(x) + \log u$ with $u \sim U(0, 1)$, and looks on the ellipse
    $x(\theta) = m + (x - m)\cos\theta + \nu\sin\theta$ for a point with $\log r(x(\theta)) > \log y$:
    first at a uniform angle, then in a bracket that shrinks towards $\theta = 0$, the current point. Leaves
    $p$ invariant exactly, whatever the Gaussian; how fast it mixes depends on how near the Gaussian is to the
    target. Where the Gaussian is the prior, $r$ is the likelihood, and the method is that of the first
    source; the second has the rest.

    - `mean`: $m$, of the position flattened in the order of `jax.flatten_util.ravel_pytree` (names sorted);
      None for zero. The position is unconstrained: a positive variable enters by its logarithm.
    - `scale_tril`: $L$, lower triangular: `jnp.linalg.cholesky(covariance)`; None for the identity.
    - `num_warmup`: steps that `sample` drops at the beginning. Nothing adapts.

    Where the target decays more slowly than the Gaussian, $r$ grows without bound and the chain leaves the
    tails rarely: choose the Gaussian rather too wide than too narrow.

    Source: Murray, Adams and MacKay (2010), arXiv:1001.0175; Nishihara, Murray and Adams (2014),
    arXiv:1210.7477.
    """

    mean: Float[Array, " dim"] | None = None
    scale_tril: Float[Array, "dim dim"] | None = None
    num_warmup: int = 0

    def __check_init__(self):
        if self.mean is not None and np.ndim(self.mean) != 1:
            raise ValueError(f"`mean` must be a vector; got {np.ndim(self.mean)} dimensions. Flatten it.")
        if self.scale_tril is not None:
            shape = np.shape(self.scale_tril)
            if len(shape) != 2 or shape[0] != shape[1]:
                raise ValueError(
                    f"`scale_tril` must be a square matrix; got the shape {shape}. Take the Cholesky factor "
                    "of a covariance, or `jnp.diag` of standard deviations."
                )
        if not isinstance(self.num_warmup, int) or self.num_warmup < 0:
            raise ValueError(f"`num_warmup` must be an integer, 0 or more; got {self.num_warmup!r}.")

    def init(self, target, position, *, key):
        del key
        x, _ = ravel_pytree(position)
        for name, size in (("mean", np.shape(self.mean)), ("scale_tril", np.shape(self.scale_tril)[:1])):
            if size not in ((), x.shape):
                raise ValueError(
                    f"`{name}` must have the {x.size} dimensions of the target's position; got {size[0]}. "
                    f"In the order of {sorted(position)}, flattened."
                )
        z = x if self.mean is None else x - self.mean
        if self.scale_tril is not None:
            z = jax.scipy.linalg.solve_triangular(self.scale_tril, z, lower=True)
        return EllipticalSliceState(position, z, target.log_density(position) + 0.5 * jnp.sum(z**2))

    def step(self, target, state, *, key):
        key_direction, key_level, key_angle, key_shrink = jr.split(key, 4)
        nu = jr.normal(key_direction, state.z.shape, state.z.dtype)
        # log of a uniform draw on (0, 1], so that the level is always finite
        level = state.log_ratio + jnp.log1p(-jr.uniform(key_level, dtype=state.z.dtype))
        theta = jr.uniform(key_angle, dtype=state.z.dtype, maxval=2 * jnp.pi)

        def at(theta):
            z = state.z * jnp.cos(theta) + nu * jnp.sin(theta)
            position = self._position(z, state)
            return EllipticalSliceState(position, z, target.log_density(position) + 0.5 * jnp.sum(z**2))

        def low(carry):
            _, proposal, _, shrinks = carry
            # NaN is not above the level either
            return ~(proposal.log_ratio > level) & (shrinks < _MAX_SHRINKS)

        def shrink(carry):
            theta, _, (lower, upper), shrinks = carry
            lower, upper = jnp.where(theta < 0, theta, lower), jnp.where(theta < 0, upper, theta)
            uniform = jr.uniform(jr.fold_in(key_shrink, shrinks), dtype=theta.dtype)
            theta = lower + (upper - lower) * uniform
            return theta, at(theta), (lower, upper), shrinks + 1

        first = (theta, at(theta), (theta - 2 * jnp.pi, theta), jnp.asarray(0))
        _, proposal, _, shrinks = jax.lax.while_loop(low, shrink, first)
        found = proposal.log_ratio > level
        state = jax.tree.map(lambda new, old: jnp.where(found, new, old), proposal, state)
        lp = state.log_ratio - 0.5 * jnp.sum(state.z**2)
        return state, EllipticalSliceInfo(lp, shrinks + 1)

    def position(self, state):
        return state.position

    def frozen(self, states) -> Self:
        del states  # nothing was learned
        return eqx.tree_at(lambda sampler: sampler.num_warmup, self, 0)

    def _position(self, z, state):
        x = z if self.scale_tril is None else self.scale_tril @ z
        _, unravel = ravel_pytree(state.position)
        return unravel(x if self.mean is None else self.mean + x)
