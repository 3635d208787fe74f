"""Kernels of infinitely wide networks, and their algebra."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from posterax import in_float64
from posterax._precision import precision

from ._blocks import rectangular, symmetric


class Kernel(eqx.Module):
    """The covariance of a random function, given unit scale: `f | s ~ GP(0, s K)`.

    Float fields are positive hyper-parameters that estimators learn in log space; one that is 0 stays 0. Values and
    gradients are computed in float64 whatever JAX is set to, in tiles, so that a Gram matrix needs little memory beside
    itself; what comes back has the caller's precision. `a + b`, `a * b` and `2.0 * a` make new kernels.

    A kernel of one's own defines `pair` and `diag_of`, on arrays small enough to be treated at once.
    """

    event_ndim: int = eqx.field(static=True, default=1, init=False, repr=False)

    @abc.abstractmethod
    def pair(self, x: Array, z: Array, *, ntk: bool) -> tuple[Array, Array | None]:
        """NNGP covariances `(n, m)` of all pairs, and with `ntk` the tangent kernel, else None."""

    @abc.abstractmethod
    def diag_of(self, x: Array, *, ntk: bool) -> tuple[Array, Array | None]:
        """What `pair` has on its diagonal where both inputs are `x`, `(n,)` each."""

    def nngp(self, x: Any, z: Any = None) -> Float[Array, "n m"]:
        """Covariances of the network's outputs at `x` and `z`, readout of unit variance.

        - `x`, `z`: inputs `(n, d)` and `(m, d)`; images `(n, height, width, channels)` for `CNNKernel`. Without `z` it
          is `x`, and half of the work is saved.

        Raises `ValueError` where the shapes do not fit.
        """
        return self._evaluate(x, z, ntk=False)

    def ntk(self, x: Any, z: Any = None) -> Float[Array, "n m"]:
        """The neural tangent kernel at initialisation, all layers trained, NTK parameterisation. Arguments as `nngp`.

        Raises `TypeError` for kernels that do not come from one network.
        """
        return self._evaluate(x, z, ntk=True)

    def diag(self, x: Any) -> Float[Array, " n"]:
        """The variances: the diagonal of `nngp(x)`."""
        x, _ = self._inputs(x, None)
        return in_float64(_diag)(self, x)

    def _evaluate(self, x, z, *, ntk: bool) -> Array:
        x, z = self._inputs(x, z)
        return in_float64(_gram)(self, x, z, ntk)

    def _inputs(self, x, z) -> tuple[Array, Array | None]:
        x, z = as_inputs(x, "x", self.event_ndim), None if z is None else as_inputs(z, "z", self.event_ndim)
        if z is not None and z.shape[1:] != x.shape[1:]:
            raise ValueError(f"`z` must have inputs of shape {x.shape[1:]}, as `x` has; got {z.shape[1:]}.")
        return x, z

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Any) -> "Kernel":
        return Product(self, other) if isinstance(other, Kernel) else Scaled(other, self)

    def __rmul__(self, other: Any) -> "Kernel":
        return Scaled(other, self)


class Sum(Kernel):
    """The sum of two kernels: the law of the sum of two independent networks."""

    first: Kernel
    second: Kernel

    def __init__(self, first: Kernel, second: Kernel):
        self.first, self.second = first, second
        self.event_ndim = _common(first, second)

    def pair(self, x, z, *, ntk):
        return _add(self.first.pair(x, z, ntk=ntk), self.second.pair(x, z, ntk=ntk))

    def diag_of(self, x, *, ntk):
        return _add(self.first.diag_of(x, ntk=ntk), self.second.diag_of(x, ntk=ntk))


class Product(Kernel):
    """The product of two kernels: the covariance of the product of two independent networks, which is no GP's NTK."""

    first: Kernel
    second: Kernel

    def __init__(self, first: Kernel, second: Kernel):
        self.first, self.second = first, second
        self.event_ndim = _common(first, second)

    def pair(self, x, z, *, ntk):
        _no_ntk(ntk, "a product of kernels: the product of two networks has a random one")
        return self.first.pair(x, z, ntk=False)[0] * self.second.pair(x, z, ntk=False)[0], None

    def diag_of(self, x, *, ntk):
        _no_ntk(ntk, "a product of kernels: the product of two networks has a random one")
        return self.first.diag_of(x, ntk=False)[0] * self.second.diag_of(x, ntk=False)[0], None


class Scaled(Kernel):
    """A kernel times a positive number: the variance of the readout."""

    factor: float | Array
    kernel: Kernel

    def __init__(self, factor: Any, kernel: Kernel):
        self.factor, self.kernel = factor, kernel
        self.event_ndim = kernel.event_ndim
        check_positive("factor", factor)

    def pair(self, x, z, *, ntk):
        return _times(self.factor, self.kernel.pair(x, z, ntk=ntk))

    def diag_of(self, x, *, ntk):
        return _times(self.factor, self.kernel.diag_of(x, ntk=ntk))


def _gram(kernel: Kernel, x: Array, z: Array | None, ntk: bool) -> Array:
    which = 1 if ntk else 0

    def pair(a: Array, b: Array) -> Any:
        return kernel.pair(a, b, ntk=ntk)[which]

    if z is not None:
        return rectangular(pair, x, z)
    diagonal: Any = kernel.diag_of(x, ntk=ntk)[which]
    return symmetric(pair, x, diagonal)


def _diag(kernel: Kernel, x: Array) -> Array:
    return kernel.diag_of(x, ntk=False)[0]


def as_inputs(x: Any, name: str, event_ndim: int) -> Array:
    """Inputs as an array of `1 + event_ndim` axes that keeps all its digits. Raises `ValueError` for another form."""
    if not isinstance(x, (Tracer, np.ndarray)):
        x = x if hasattr(x, "ndim") else np.asarray(x, dtype=np.float64)
    if x.ndim != 1 + event_ndim:
        form = "(n, d), one row an input" if event_ndim == 1 else "(n, height, width, channels)"
        hint = f" For inputs of one number write {name}[:, None]." if x.ndim == 1 and event_ndim == 1 else ""
        raise ValueError(f"`{name}` must have shape {form}; got {x.shape}.{hint}")
    if isinstance(x, np.ndarray):
        x = in_float64_array(x)
    return x


def in_float64_array(x: Any) -> Array:
    """A JAX array of float64, in a float32 program too; tracers are only cast."""
    if isinstance(x, Tracer):
        return x
    with precision(64):
        return jnp.asarray(np.asarray(x, dtype=np.float64))


def check_positive(name: str, value: Any, *, zero: bool = False) -> None:
    """Raises `ValueError` unless all of `value` is positive (or zero, if allowed) and finite."""
    if isinstance(value, Tracer) or any(isinstance(leaf, Tracer) for leaf in [value]):
        return
    if not isinstance(value, (int, float, np.ndarray, np.generic)) and not hasattr(value, "dtype"):
        return  # a PyTree's placeholder
    numbers = np.asarray(value, dtype=np.float64)
    good = np.isfinite(numbers) & ((numbers >= 0) if zero else (numbers > 0))
    if not good.all():
        raise ValueError(f"`{name}` must be {'zero or ' if zero else ''}positive and finite; got {value!r}.")


def _common(first: Kernel, second: Kernel) -> int:
    if first.event_ndim != second.event_ndim:
        raise ValueError("Both kernels must take inputs of one form; one takes images, the other vectors.")
    return first.event_ndim


def _add(a, b):
    return a[0] + b[0], None if a[1] is None else a[1] + b[1]


def _times(factor, pair):
    return factor * pair[0], None if pair[1] is None else factor * pair[1]


def _no_ntk(ntk: bool, what: str) -> None:
    if ntk:
        raise TypeError(f"There is no neural tangent kernel of {what}. Use `nngp`.")
