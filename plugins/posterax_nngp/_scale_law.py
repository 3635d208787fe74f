r"""What can be asked of a law on s > 0 that is known by the log density of $t = \log s$ up to a constant.

`log_f` always means that density: $\log f(t) = \log p(e^t) + t$, on the support `(low, high)` of t.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ._scale_nodes import POINTS, WEIGHTS, End, Log, from_line, integrate, place, rule, to_line

_DEGREE = POINTS.size - 1


def log_total(log_f: Log, low: End = -np.inf, high: End = np.inf) -> Float[Array, ""]:
    """Log of the integral of exp(log_f) over t."""
    nodes, log_weights = integrate(log_f, low, high)
    return logsumexp(log_weights + log_f(nodes))


def mean_and_variance(log_f: Log, low: End = -np.inf, high: End = np.inf) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Mean and variance of s. Each is an integral with nodes of its own.

    Infinite where `tail_index` is at most 1, or 2 for the variance. Where it is above by less than 0.1, the tail beyond
    $e^{350}$ is missing.
    """
    total = log_total(log_f, low, high)
    log_mean = log_total(lambda t: log_f(t) + t, low, high) - total

    def spread(t):  # nodes for (s + mean)^2 f: good for (s - mean)^2 f, and without its notch
        return log_f(t) + 2 * jnp.logaddexp(t, log_mean)

    nodes, log_weights = integrate(spread, low, high)
    mean = jnp.exp(log_mean)
    squares = (jnp.exp(nodes) - mean) ** 2
    variance = jnp.sum(jnp.exp(log_weights + log_f(nodes) - total) * squares)
    index = tail_index(log_f, high)
    return jnp.where(index <= 1, jnp.inf, mean), jnp.where(index <= 2, jnp.inf, variance)


def tail_index(log_f: Log, high: End = np.inf) -> Float[Array, ""]:
    r"""The $\alpha$ of a density of s that falls as $s^{-\alpha - 1}$; infinite for lighter tails and bounded supports.

    Read from the slope of the log density between t = 200 and 300, and rounded to 9 decimals: an index that is exactly
    1 or 2 is seen as such. Moments of order alpha and above are infinite.
    """
    with_end = jnp.isfinite(jnp.asarray(high, float))
    near, far = log_f(jnp.where(with_end, jnp.asarray(high, float), jnp.array([200.0, 300.0])))
    light = with_end | ~jnp.isfinite(near) | ~jnp.isfinite(far) | (near - far > 1e8)
    slope = jnp.round(jax.lax.stop_gradient(jnp.where(light, 0, near - far)) / 100, 9)
    return jnp.where(light, jnp.inf, slope)


def cumulative(log_f: Log, t: Array, low: End = -np.inf, high: End = np.inf) -> Array:
    """P(log s <= t), each entry of `t`, of any shape. Absolute accuracy about 1e-14."""
    edges, densities, _ = _densities(log_f, low, high)
    before = _before(edges, densities)
    u = to_line(t, low, high)
    panel = _panel(jax.lax.stop_gradient(edges), u)
    half = (edges[panel + 1] - edges[panel]) / 2
    x = jnp.clip((jnp.where(jnp.isfinite(u), u, 0) - edges[panel]) / half - 1, -1, 1)
    value = before[panel] + half * _partial(_primitive(densities)[panel], x)
    value = jnp.where(u <= edges[0], 0, jnp.where(u >= edges[-1], before[-1], value))
    return value / before[-1]


def quantile(log_f: Log, q: Array, low: End = -np.inf, high: End = np.inf) -> Array:
    """The t at which `cumulative` is `q`, each entry; NaN for a `q` outside [0, 1].

    Differentiable in `q` and in whatever `log_f` depends on: a last Newton step carries the gradient. The tails end
    where the density is 45 nats below its maximum.
    """
    edges, densities, log_unit = _densities(log_f, low, high)
    before, primitive = _before(edges, densities), _primitive(densities)
    fixed, inside = jax.lax.stop_gradient((before, primitive, q * before[-1])), (q >= 0) & (q <= 1)
    panel = _panel(fixed[0], fixed[2])
    half = (edges[panel + 1] - edges[panel]) / 2

    def halve(_, ends):
        left, right = ends
        middle = (left + right) / 2
        below = fixed[0][panel] + half * _partial(fixed[1][panel], middle) < fixed[2]
        return jnp.where(below, middle, left), jnp.where(below, right, middle)

    ones = jnp.ones_like(fixed[2])
    left, right = jax.lax.fori_loop(0, 52, halve, (-ones, ones))
    x = (left + right) / 2
    u = edges[panel] + half * (1 + x)
    gap = before[panel] + half * _partial(primitive[panel], x) - q * before[-1]
    t, log_slope = from_line(u, low, high)
    density = jax.lax.stop_gradient(jnp.exp(log_f(t) + log_slope - log_unit))
    step = jnp.where(density > 0, (gap - jax.lax.stop_gradient(gap)) / jnp.where(density > 0, density, 1), 0)
    return jnp.where(inside, from_line(u - step, low, high)[0], jnp.nan)


# How the two above work. In each panel the density of u is replaced by the polynomial through its values at the Gauss
# points, whose Legendre coefficients the Gauss weights give exactly, and which is integrated term by term.


def _densities(log_f, low, high):
    """The edges of the panels; the density of u at their nodes, `(panels, 16)`, in units of its maximum; log unit."""
    edges = place(log_f, low, high)
    nodes, log_weights = rule(edges, low, high)
    share = jnp.diff(edges)[:, None] / 2 * WEIGHTS
    value = (log_f(nodes) + log_weights).reshape(share.shape) - jnp.log(share)
    log_unit = jax.lax.stop_gradient(jnp.max(value))
    return edges, jnp.exp(value - log_unit), log_unit


def _before(edges, densities):
    """The mass to the left of each edge, not normalised."""
    masses = jnp.diff(edges) / 2 * (densities @ WEIGHTS)
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(masses)])


def _panel(ascending, x):
    return jnp.clip(jnp.searchsorted(ascending, x, side="right") - 1, 0, ascending.size - 2)


def _primitive_matrix() -> np.ndarray:
    """From values at the Gauss points to the Legendre coefficients of the integral from -1, `(17, 16)`."""
    order = np.arange(_DEGREE + 1)
    values = np.polynomial.legendre.legvander(POINTS, _DEGREE)
    coefficients = (values * WEIGHTS[:, None]).T * (order[:, None] + 0.5)
    return np.polynomial.legendre.legint(coefficients, lbnd=-1, axis=0)


_PRIMITIVE = _primitive_matrix()


def _primitive(densities):
    return densities @ _PRIMITIVE.T


def _partial(coefficients, x):
    """The Legendre series with these coefficients, `(*x, 17)`, at `x`."""
    before, current = jnp.ones_like(x), x
    total = coefficients[..., 0] + coefficients[..., 1] * x
    for n in range(1, coefficients.shape[-1] - 1):
        before, current = current, ((2 * n + 1) * x * current - n * before) / (n + 1)
        total = total + coefficients[..., n + 1] * current
    return total
