r"""Activations: the two Gaussian moments of a nonlinearity $\phi$ from which kernels of wide networks are made.

With $(u, v)$ normal, variances $q, r$ and covariance $k$: $F = E[\phi(u) \phi(v)]$ and $D = E[\phi'(u) \phi'(v)]$.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._arccos import arc_cosine_map, arc_cosine_slope


class Activation(eqx.Module):
    """A nonlinearity, known by its moments under a bivariate normal law. All arguments broadcast."""

    @abc.abstractmethod
    def moment(self, k: Array, q: Array, r: Array) -> Array:
        r"""$E[\phi(u) \phi(v)]$ for variances `q`, `r` and covariance `k`."""

    @abc.abstractmethod
    def slope_moment(self, k: Array, q: Array, r: Array) -> Array:
        r"""$E[\phi'(u) \phi'(v)]$."""

    @abc.abstractmethod
    def square(self, q: Array) -> Array:
        r"""$E[\phi(u)^2]$: the moment where both inputs coincide."""

    @abc.abstractmethod
    def slope_square(self, q: Array) -> Array:
        r"""$E[\phi'(u)^2]$."""


class ReLU(Activation):
    r"""$\phi(u) = \max(u, 0) + a \min(u, 0)$: the rectifier, and with other slopes `a` its relatives.

    - `slope`: of the negative half; 0 is ReLU, a small number leaky ReLU, -1 the absolute value, 1 the identity.

    $F = (1 - a)^2 \sqrt{qr} J(c) / 2\pi + a k$ with $c = k / \sqrt{qr}$ and $J$ the arc-cosine map of order 1.

    Source: Cho and Saul (2009), Kernel methods for deep learning, eq. 3 and 6.
    """

    slope: float = eqx.field(static=True, default=0.0)

    def moment(self, k, q, r):
        c, size = _correlation(k, q, r)
        return (1 - self.slope) ** 2 / (2 * np.pi) * size * arc_cosine_map(c) + self.slope * k

    def slope_moment(self, k, q, r):
        c, _ = _correlation(k, q, r)
        return (1 - self.slope) ** 2 / (2 * np.pi) * arc_cosine_slope(c) + self.slope

    def square(self, q):
        return (1 + self.slope**2) / 2 * q

    def slope_square(self, q):
        return jnp.full_like(q, (1 + self.slope**2) / 2)


class Erf(Activation):
    r"""$\phi(u) = \mathrm{erf}(u)$, a sigmoid. Source: Williams (1996), Computing with infinite networks, eq. 11."""

    def moment(self, k, q, r):
        return 2 / np.pi * jnp.arcsin(2 * k / jnp.sqrt((1 + 2 * q) * (1 + 2 * r)))

    def slope_moment(self, k, q, r):
        return 4 / np.pi / jnp.sqrt((1 + 2 * q) * (1 + 2 * r) - 4 * k * k)

    def square(self, q):
        return 2 / np.pi * jnp.arcsin(2 * q / (1 + 2 * q))

    def slope_square(self, q):
        return 4 / np.pi / jnp.sqrt(1 + 4 * q)


class GaussHermite(Activation):
    r"""Any smooth $\phi$, by its Hermite series: $F = \sum_j \alpha_j(q) \alpha_j(r) c^j$.

    The coefficients $\alpha_j(q) = E[\phi(\sqrt{q} z) h_j(z)]$ in the normalised Hermite polynomials $h_j$ come from
    Gauss-Hermite quadrature, once for each input; a pair then costs one polynomial. What the series leaves out is
    $\sum_{j \ge n} \alpha_j^2$ at $c = 1$ and far less elsewhere: `remainder(q)` tells. The kernel is positive
    definite at any degree: it is that of the truncated $\phi$.

    - `function`: of one number, differentiable by JAX; `jnp.tanh`, `jax.nn.gelu`.
    - `degree`: terms of the series. For deep networks of `tanh` 64 gives 1e-6 of the NNGP and 5e-5 of the NTK, whose
      series falls more slowly; 200 gives 1e-6 of both. Functions with a kink need a closed form.

    Source: Daniely, Frostig and Singer (2016), arXiv:1602.05897, section 4 (the dual activation).
    """

    function: Callable = eqx.field(static=True)
    degree: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        if not callable(self.function):
            raise TypeError(f"`function` must be a function of one number, such as jnp.tanh; got {self.function!r}.")
        if not 1 <= self.degree <= 200:
            raise ValueError(f"`degree` must be from 1 to 200 terms; got {self.degree}.")

    def moment(self, k, q, r):
        return self._series(self.function, k, q, r)

    def slope_moment(self, k, q, r):
        return self._series(_derivative(self.function), k, q, r)

    def square(self, q):
        return jnp.sum(self._coefficients(self.function, q) ** 2, axis=0)

    def slope_square(self, q):
        return jnp.sum(self._coefficients(_derivative(self.function), q) ** 2, axis=0)

    def remainder(self, q: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""The part of $E[\phi(u)^2]$ that the series leaves out, for variance `q`; it bounds the error of `moment`."""
        nodes, weights, _ = _rule(self.degree)
        values = jax.vmap(self.function)((jnp.sqrt(q)[..., None] * nodes).ravel()).reshape(*jnp.shape(q), -1)
        return values**2 @ jnp.asarray(weights, values.dtype) - self.square(q)

    def _coefficients(self, function: Callable, q: Array) -> Array:
        """`(degree, *q.shape)`."""
        nodes, _, basis = _rule(self.degree)
        positive = q > 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, q, 1)), 0)
        values = jax.vmap(function)((root[..., None] * nodes).ravel()).reshape(*q.shape, -1)
        return jnp.moveaxis(values @ jnp.asarray(basis, values.dtype), -1, 0)

    def _series(self, function: Callable, k: Array, q: Array, r: Array) -> Array:
        c, _ = _correlation(k, q, r)
        left, right = self._coefficients(function, q), self._coefficients(function, r)

        def term(total, pair):
            return total * c + pair[0] * pair[1], None

        return jax.lax.scan(term, jnp.zeros_like(c), (left, right), reverse=True)[0]


_NAMED = {"relu": ReLU(), "leaky_relu": ReLU(0.01), "abs": ReLU(-1.0), "erf": Erf()}


def as_activation(given: "Activation | str | Callable") -> Activation:
    """An activation from its name, from a function (by Gauss-Hermite quadrature), or as it is."""
    if isinstance(given, Activation):
        return given
    if isinstance(given, str) and given in _NAMED:
        return _NAMED[given]
    if callable(given) and not isinstance(given, type):
        return GaussHermite(given)
    raise ValueError(
        f"`activation` must be one of {', '.join(map(repr, _NAMED))}, an Activation such as ReLU(0.2), or a function "
        f"of one number such as jnp.tanh; got {given!r}."
    )


def _correlation(k, q, r):
    """`k / sqrt(q r)` within [-1, 1], and `sqrt(q r)`; where a variance is zero, correlation and size are zero."""
    product = q * r
    positive = product > 0
    size = jnp.sqrt(jnp.where(positive, product, 1))
    return jnp.clip(jnp.where(positive, k / size, 0), -1, 1), jnp.where(positive, size, 0)


def _derivative(function: Callable) -> Callable:
    return jax.grad(lambda u: jnp.asarray(function(u)))


def _rule(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, weights, and weights times normalised Hermite polynomials `(nodes, degree)`."""
    from scipy.special import roots_hermitenorm

    nodes, weights = roots_hermitenorm(2 * degree + 32)  # enough that the products are integrated without aliasing
    weights = weights / weights.sum()
    basis = np.empty((degree + 1, len(nodes)))
    basis[0], basis[1] = 1, nodes
    for j in range(1, degree):
        basis[j + 1] = (nodes * basis[j] - np.sqrt(j) * basis[j - 1]) / np.sqrt(j + 1)
    return nodes, weights, (weights * basis[:degree]).T
