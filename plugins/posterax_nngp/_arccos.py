r"""The arc-cosine map $J(c) = \sqrt{1 - c^2} + (\pi - \arccos c) c$ and its derivative, for large arrays.

XLA's own arccos costs thirty multiplications' time on a CPU and has an infinite derivative at $c = 1$, where every
diagonal entry of a Gram matrix lies. Here arccos is a square root times a polynomial, which compiles to vector
instructions, and $J$ knows its derivative, $\pi - \arccos c$, which is finite.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.cache
def _coefficients() -> tuple[float, ...]:
    r"""Powers of $u = 2c - 1$ in $\arccos(c) / \sqrt{1 - c}$ on [0, 1], highest first; good to 1e-16.

    The quotient is analytic but for a branch point at $c = -1$, so Chebyshev coefficients fall by 5.8 a degree.
    """

    def quotient(u):
        t = (1 - u) / 2  # 1 - c
        root = np.sqrt(t / 2)  # arccos(c) = 2 arcsin(sqrt((1 - c) / 2)), without cancellation at c = 1
        return np.where(t > 0, 2 * np.arcsin(root) / np.where(t > 0, np.sqrt(t), 1), np.sqrt(2))

    series = np.polynomial.chebyshev.Chebyshev.interpolate(quotient, 22, domain=[-1, 1])
    return tuple(float(x) for x in series.convert(kind=np.polynomial.Polynomial).coef[::-1])


def arccos(c: Float[Array, "..."]) -> Float[Array, "..."]:
    """Arccos of numbers in [-1, 1], to rounding. No derivative is to be taken of it."""
    size = jnp.abs(c)
    u = 2 * size - 1
    first, *rest = _coefficients()
    value = jnp.full_like(u, first)
    for coefficient in rest:
        value = value * u + coefficient
    angle = jnp.sqrt(1 - size) * value
    return jnp.where(c < 0, np.pi - angle, angle)


@jax.custom_jvp
def arc_cosine_map(c: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$J(c)$ for $c$ in [-1, 1]: from 0 at -1 to $\pi$ at 1."""
    return jnp.sqrt(1 - c * c) + arc_cosine_slope(c) * c


@arc_cosine_map.defjvp
def _(primals, tangents):
    (c,), (tangent,) = primals, tangents
    slope = arc_cosine_slope(c)
    return jnp.sqrt(1 - c * c) + slope * c, slope * tangent


@jax.custom_jvp
def arc_cosine_slope(c: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$J'(c) = \pi - \arccos c$. Its own derivative is infinite at $|c| = 1$; there zero is given instead.

    At such points two inputs coincide for every value of the hyper-parameters, so in these nothing is lost.
    """
    return np.pi - arccos(c)


@arc_cosine_slope.defjvp
def _(primals, tangents):
    (c,), (tangent,) = primals, tangents
    rest = 1 - c * c
    inside = rest > 4 * jnp.finfo(rest.dtype).eps
    return arc_cosine_slope(c), jnp.where(inside, tangent / jnp.sqrt(jnp.where(inside, rest, 1)), 0)
