"""Stationary kernels: what networks are compared with."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._kernel import Kernel, _no_ntk, check_positive


class RBFKernel(Kernel):
    r"""$v \exp(-\sum_i (x_i - x'_i)^2 / 2 l_i^2)$.

    - `lengthscale`: $l$, one number or `(d,)`; `variance`: $v$.
    """

    lengthscale: float | Float[Array, "..."]
    variance: float | Array

    def __init__(self, lengthscale: Any = 1.0, variance: Any = 1.0):
        self.lengthscale, self.variance = lengthscale, variance
        self.event_ndim = 1
        _check(self)

    def pair(self, x, z, *, ntk):
        _no_ntk(ntk, "an RBF kernel: it is no network's")
        return self.variance * jnp.exp(-0.5 * _squares(x, z, self.lengthscale)), None

    def diag_of(self, x, *, ntk):
        _no_ntk(ntk, "an RBF kernel: it is no network's")
        return _constant(self, x), None


class MaternKernel(Kernel):
    r"""The Matérn kernel of smoothness 1/2, 3/2 or 5/2 in the scaled distance; arguments as `RBFKernel`, and `nu`.

    Source: Rasmussen and Williams (2006), Gaussian processes for machine learning, eq. 4.14 to 4.17.
    """

    lengthscale: float | Float[Array, "..."]
    variance: float | Array
    nu: float = eqx.field(static=True)

    def __init__(self, nu: float = 2.5, lengthscale: Any = 1.0, variance: Any = 1.0):
        self.nu, self.lengthscale, self.variance = nu, lengthscale, variance
        self.event_ndim = 1
        _check(self)
        if nu not in {0.5, 1.5, 2.5}:
            raise ValueError(f"`nu` must be 0.5, 1.5 or 2.5; got {nu!r}. Infinite smoothness is the RBFKernel.")

    def pair(self, x, z, *, ntk):
        _no_ntk(ntk, "a Matérn kernel: it is no network's")
        squares = _squares(x, z, self.lengthscale)
        apart = squares > 0  # the root has no derivative at zero, the kernel has
        distance = jnp.where(apart, jnp.sqrt(2 * self.nu * jnp.where(apart, squares, 1)), 0)
        factor = {0.5: 1.0, 1.5: 1 + distance, 2.5: 1 + distance + distance**2 / 3}[self.nu]
        return self.variance * factor * jnp.exp(-distance), None

    def diag_of(self, x, *, ntk):
        _no_ntk(ntk, "a Matérn kernel: it is no network's")
        return _constant(self, x), None


def _check(kernel: Any) -> None:
    check_positive("lengthscale", kernel.lengthscale)
    check_positive("variance", kernel.variance)


def _constant(kernel: Any, x: Array) -> Array:
    return jnp.full(len(x), 1.0) * kernel.variance


def _squares(x: Array, z: Array, lengthscale: Any) -> Array:
    if np.ndim(lengthscale) and np.shape(lengthscale) != x.shape[1:]:
        raise ValueError(f"`lengthscale` must be one number or {x.shape[1:]}; got shape {np.shape(lengthscale)}.")
    x, z = x / lengthscale, z / lengthscale
    squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(z * z, -1)[None] - 2 * x @ z.T
    return jnp.maximum(squares, 0)
