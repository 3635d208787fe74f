r"""Where to put the nodes of an integral over $t = \log s$: a composite Gauss-Legendre rule that finds its own place.

The integrand is known by its logarithm only and may have its mass anywhere: at $s = 10^{-12}$ or $10^{9}$, with a width
of 0.005 in $t$ (much data) or of a hundred (a heavy tail and one observation), or pressed against an end of a bounded
support. Everything has a fixed amount of work, so it can be jitted and mapped.

- Support. A variable $u$ on the whole line stands for $t$ in `(low, high)`: $t = u$, or a softplus or logistic curve
  where an end is finite. It turns a jump of the density at an end into an exponential tail.
- Range. A coarse grid and repeated zooming find the maximum, bisection the outermost points at which the integrand is
  `DROP` nats below it.
- Panels. Their edges are quantiles of a mixture of the uniform density on that range (one half) and the square and
  fourth roots of the integrand, so that a narrow peak within a wide range, and its flanks, get panels too.

The place of the nodes has no gradient; with the ends of the support $t$ moves, so their gradient is complete.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Log = Callable[[Array], Array]
"""Logarithm of a density or an integrand of t = log s, acting on each entry of an array."""

End = Array | float
"""An end of a support; a Python float where it is known before tracing."""

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(16)
PANELS = 48
DROP = 45.0  # nats: what is cut off is below 1e-19 of the integral
FAR = 350.0  # squares of exp(FAR), which the densities of some laws contain, are still numbers in float64
COARSE = np.linspace(-FAR, FAR, 1401)
SPACING = COARSE[1] - COARSE[0]


def integrate(log_f: Log, low: End = -np.inf, high: End = np.inf) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    r"""Nodes and log-weights of a rule for the integral over t from `low` to `high` of $e^{\log f(t)}$, S = 768.

    - `log_f`: acts on each entry of an array of t. It may be `-inf`, and NaN and `+inf` count as that for the place.
    - `low`, `high`: the ends of the support in t, scalars, infinite where there is none.

    The logarithm of the integral is `logsumexp(log_weights + log_f(nodes))`; the same rule is good for `log_f` times
    slowly varying functions, such as its derivative in a parameter. About 13 digits or more for integrands that are
    smooth and have no peak that a grid of 0.5 in t steps over; kinks inside the support cost digits.
    """
    return rule(place(log_f, low, high), low, high)


def place(log_f: Log, low: End = -np.inf, high: End = np.inf) -> Float[Array, " panels+1"]:
    """The edges of the panels, in u, ascending and without gradient. Arguments as for `integrate`."""

    def log_g(u):
        t, log_slope = from_line(u, low, high)
        value = jax.lax.stop_gradient(log_f(t) + log_slope)
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    coarse = jnp.asarray(COARSE)
    values = log_g(coarse)
    peak, highest = _climb(log_g, coarse[jnp.argmax(values)])
    threshold = highest - DROP
    left, right = _range(log_g, values > threshold, threshold, peak)
    return _panels(log_g, left, right)


def rule(
    edges: Float[Array, " panels+1"], low: End = -np.inf, high: End = np.inf
) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Nodes in t and log-weights of the Gauss-Legendre rule on these panels of u."""
    half = jnp.diff(edges)[:, None] / 2
    u = edges[:-1, None] + half * (1 + POINTS)
    t, log_slope = from_line(u, low, high)
    return t.ravel(), (log_slope + jnp.log(half * WEIGHTS)).ravel()


def from_line(u: Array, low: End, high: End) -> tuple[Array, Array]:
    """The t in `(low, high)` of u on the line, and log dt/du."""
    if _no_ends(low, high):
        return u, jnp.zeros_like(u)
    low, high, below, above, bounded = _ends(low, high)
    up, down = jax.nn.softplus(u), jax.nn.softplus(-u)
    width = jnp.where(bounded, high - low, 1)
    both = jnp.where(u < 0, low + width * jnp.exp(-down), high - width * jnp.exp(-up))
    t = jnp.where(bounded, both, jnp.where(below, low + up, jnp.where(above, high - down, u)))
    log_slope = jnp.where(below, -down, 0) + jnp.where(above, -up, 0) + jnp.where(bounded, jnp.log(width), 0)
    return t, log_slope


def to_line(t: Array, low: End, high: End) -> Array:
    """The inverse of `from_line`; an end of the support, and what lies beyond it, becomes an infinity."""
    if _no_ends(low, high):
        return t
    low, high, below, above, bounded = _ends(low, high)
    over = jnp.where(below, t - low, 1)
    under = jnp.where(above, high - t, 1)
    u = jnp.where(below, _inverse_softplus(over), jnp.where(above, -_inverse_softplus(under), t))
    u = jnp.where(bounded, _log(over) - _log(under), u)
    return jnp.where(over <= 0, -jnp.inf, jnp.where(under <= 0, jnp.inf, u))


def _no_ends(low, high) -> bool:
    """Whether it is known before tracing that the support is the whole line, as for most laws on s > 0."""
    return isinstance(low, float) and isinstance(high, float) and low == -np.inf and high == np.inf


def _ends(low, high):
    low, high = jnp.asarray(low, float), jnp.asarray(high, float)
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    return jnp.where(below, low, 0), jnp.where(above, high, 0), below, above, below & above


def _log(x):
    return jnp.log(jnp.where(x > 0, x, 1))


def _inverse_softplus(x):
    x = jnp.where(x > 0, x, 1)
    return x + jnp.log(-jnp.expm1(-x))


def _climb(log_g: Log, start: Array) -> tuple[Array, Array]:
    """The maximum near a point of the coarse grid, to about 1e-8, and its value."""
    offsets = jnp.linspace(-1.0, 1.0, 33)

    def zoom(step, best):
        u = best[0] + SPACING * 8.0**-step * offsets
        values = log_g(u)
        index = jnp.argmax(values)
        return u[index], values[index]

    return jax.lax.fori_loop(0, 9, zoom, (start, start))


def _range(log_g: Log, above: Array, threshold: Array, peak: Array) -> tuple[Array, Array]:
    """The outermost points, left and right, at which `log_g` crosses the threshold."""
    first, last = COARSE[0], COARSE[-1]
    coarse, some = jnp.asarray(COARSE), jnp.any(above)
    left = jnp.where(some, coarse[jnp.argmax(above)], last)
    right = jnp.where(some, coarse[-1 - jnp.argmax(above[::-1])], first)
    inside = jnp.stack([jnp.minimum(left, peak), jnp.maximum(right, peak)])
    outside = inside + SPACING * jnp.array([-1.0, 1.0])

    def halve(_, ends):
        inside, outside = ends
        middle = (inside + outside) / 2
        within = log_g(middle) > threshold
        return jnp.where(within, middle, inside), jnp.where(within, outside, middle)

    _, outside = jax.lax.fori_loop(0, 32, halve, (inside, outside))
    return outside[0], outside[1]


def _panels(log_g: Log, left: Array, right: Array) -> Array:
    grid = jnp.linspace(left, right, 1025)
    value = log_g(grid)
    value = value - jnp.max(value)

    def cells(y):
        y = (y[1:] + y[:-1]) / 2
        return y / jnp.sum(y)

    uniform = 1 / (grid.size - 1)
    share = uniform / 2 + (cells(jnp.exp(value / 2)) + cells(jnp.exp(value / 4))) / 4
    share = jnp.where(jnp.isnan(share), uniform, share)  # an integrand that is zero everywhere
    cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(share)])
    return jnp.interp(jnp.linspace(0.0, cumulative[-1], PANELS + 1), cumulative, grid)
