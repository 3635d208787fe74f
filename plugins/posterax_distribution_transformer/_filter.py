"""Filtering with a network for the update: the posterior of a step, pushed on, is the prior of the next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from scipy import stats

from ._dynamics import Dynamics
from ._estimator import DistributionTransformer, posterior_parts
from ._mixture import Components, components_of, mixture_of
from ._problem import as_rows


class Filtered(eqx.Module):
    """What a filter tells of each step.

    - `parts`: mixtures given the data until then: log weights `(T, K)`, means `(T, K, n)`, factors `(T, K, n, n)`.
    - `outside`: `(T,)`, whether prior or data of that step were outside of the training's range.
    """

    parts: Components
    outside: Array

    def law(self, t: int | None = None) -> dist.MixtureSameFamily:
        """The mixture after step t (counted from 0); all of them, with batch shape `(T,)`, by default."""
        return mixture_of(self.parts if t is None else jax.tree.map(lambda leaf: leaf[t], self.parts))

    @property
    def effective_components(self) -> Float[Array, " T"]:
        """exp(entropy of the weights): one where all but one have died."""
        return self.parts.effective_num


def filter_mixture(update: Any, observed: Any, *, initial: Any, dynamics: Dynamics) -> Filtered:
    """Filters a series: update, push on, update..., with as many components at each step. It can be jitted and mapped.

    - `update`: a fitted `DistributionTransformer` of mixture priors; or a function of (components, data of a step) that
      gives components: an exact update, say.
    - `observed`: data with time in front: an array `(T, ...)`, or a dictionary of arrays by source.
    - `initial`: the law of the state at the first data, before these are seen: a mixture of normals. One normal is
      better `split` first: equal components stay equal, and a mixture of them is one normal for ever.
    - `dynamics`: `LinearDynamics` or `SigmaPoints`.

    Source: Whittle et al. (2025), arXiv:2502.02463, section 4.3.
    """
    first = components_of(initial)
    fitted = update if isinstance(update, DistributionTransformer) else None
    learned = None if fitted is None else _checked(fitted, first)
    exact: Any = update

    def step(parts: Components, data: Any) -> tuple[Components, tuple[Components, Array]]:
        if fitted is None or learned is None:
            found, outside = exact(parts, data), jnp.asarray(False)
        else:
            encoded = learned[1].encode(mixture_of(parts), as_rows(data))
            found, outside = posterior_parts(learned, encoded), fitted.is_outside(encoded)
        return dynamics.push(found), (found, outside)

    data = observed if isinstance(observed, dict) else {"observed": observed} if learned else observed
    parts, outside = jax.lax.scan(step, first, data)[1]
    return Filtered(parts, outside)


def _checked(fitted: DistributionTransformer, first: Components) -> Any:
    learned = fitted.learned()
    spec = learned[1]
    if not spec.is_mixture or first.size != spec.size:
        raise ValueError(
            f"`update` must be trained on mixture priors in {first.size} dimensions, as `initial` is; it was on "
            f"{spec.family} in {spec.size}."
        )
    return learned


def split(law: Any, num: int, *, spread: float = 0.7) -> dist.MixtureSameFamily:
    """A normal as a mixture of `num` different ones, with the same mean and covariance.

    - `spread`: of the means, as a share of the normal's standard deviations, below 1; components are the narrower.

    Means are quasi-random points brought to mean 0 and, where there are more of them than dimensions, covariance
    spread^2; what is missing of the covariance is the components' own.
    """
    if not 0 < spread < 1:
        raise ValueError(f"`spread` must be between 0 and 1; got {spread!r}.")
    parts = components_of(law)
    if parts.num != 1:
        raise ValueError(f"`law` must be one normal; it has {parts.num} components.")
    points = _points(num, parts.size) * spread
    mean, tril = parts.mean[..., 0, :], parts.scale_tril[..., 0, :, :]
    rest = jnp.linalg.cholesky(jnp.eye(parts.size) - jnp.asarray(points.T @ points / num))
    shape = (*mean.shape[:-1], num, parts.size, parts.size)
    found = Components(
        jnp.full(shape[:-2], -jnp.log(num)),
        mean[..., None, :] + jnp.asarray(points) @ jnp.swapaxes(tril, -1, -2),
        jnp.broadcast_to((tril @ rest)[..., None, :, :], shape),
    )
    return mixture_of(found, scalar=tuple(law.event_shape) == ())


def _points(num: int, size: int) -> np.ndarray:
    """Points `(num, size)` of mean 0, and of covariance 1 where there are enough, else of largest eigenvalue 1."""
    if num == 1:
        return np.zeros((1, size))
    draws = stats.norm.ppf(stats.qmc.Halton(size, scramble=False).random(num + 1)[1:])
    draws -= draws.mean(axis=0)
    u, s, vt = np.linalg.svd(draws / np.sqrt(num), full_matrices=False)
    return np.sqrt(num) * (u[:, s > 1e-9 * s.max()] @ vt[s > 1e-9 * s.max()])
