"""Rates that resemble one another, by how much the data tell."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.special
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._prior_rates import RatePrior


class PooledRates(RatePrior):
    r"""Log rates of a process normal, mean and variance unknown: what the data leave open is drawn to the other rates.

    $\sigma^2 \sim \mathrm{InvGamma}(a, b)$, mean $\sim N(\log m, \tau \sigma^2)$ given it; both are integrated out,
    which leaves a multivariate t law.

    - `median`: m, in units of 1 / horizon. `spread`: tau. `shape`, `scale`: a and b.
    - `largest`: rates above that are drawn again, all of the process; infinite by default.

    Source: the normal-inverse-gamma law; Gelman et al. (2013), Bayesian Data Analysis, section 3.3.
    """

    median: float = eqx.field(static=True, default=1.0)
    spread: float = eqx.field(static=True, default=16.0)
    shape: float = eqx.field(static=True, default=1.0)
    scale: float = eqx.field(static=True, default=0.5)
    largest: float = eqx.field(static=True, default=np.inf)

    def __check_init__(self):
        for name in ("median", "spread", "shape", "scale", "largest"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)!r}.")

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        if np.isinf(self.largest):
            return self._draw(edges, key)

        def again(state):
            key, this = jr.split(state[0])
            return key, self._draw(edges, this)

        return jax.lax.while_loop(lambda state: jnp.any(state[1] > self.largest), again, again((key, None)))[1]

    def _draw(self, edges: Bool[Array, "k k"], key: PRNGKeyArray) -> Float[Array, "k k"]:
        one, two, three = jr.split(key, 3)
        sd = jnp.sqrt(self.scale / jr.gamma(one, self.shape))
        mean = jnp.log(self.median) + jnp.sqrt(self.spread) * sd * jr.normal(two)
        return jnp.where(edges, jnp.exp(mean + sd * jr.normal(three, edges.shape)), 0.0)

    def log_prob(self, rates: Float[Array, "k k"], edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `RatePrior`."""
        logs = jnp.where(edges, jnp.log(jnp.where(edges, rates, 1.0)), 0.0)
        number = jnp.sum(edges)
        mean = jnp.sum(logs) / jnp.maximum(number, 1)
        stretch = 1 + number * self.spread
        squares = jnp.sum(jnp.where(edges, (logs - mean) ** 2, 0.0))
        squares = squares + number * (mean - jnp.log(self.median)) ** 2 / stretch
        found = log_pooled(squares, number, self.shape, self.scale)
        found = found - 0.5 * jnp.log(stretch) - jnp.sum(logs)
        if np.isinf(self.largest):
            return found
        kept = jnp.asarray(self._log_kept(edges.shape[0] * (edges.shape[0] - 1)))[number]
        return jnp.where(jnp.all(rates <= self.largest), found - kept, -jnp.inf)

    @property
    def bounds(self) -> tuple[float, float]:
        """See `RatePrior`."""
        return 0.0, self.largest

    def _log_kept(self, most: int) -> Float[np.ndarray, " most+1"]:
        """Log probabilities that none of 0, 1, ... rates is above the largest, by quadrature over mean and variance."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        chance = (np.arange(400) + 0.5) / 400
        sd = np.sqrt(self.scale / scipy.special.gammaincinv(self.shape, chance))[:, None]
        below = scipy.special.log_ndtr(np.log(self.largest / self.median) / sd - np.sqrt(self.spread) * nodes)
        each = np.exp(np.arange(most + 1)[:, None, None] * below) @ weights / weights.sum()
        return np.log(each.mean(1))


def log_pooled(squares: Array, number: Array | int, shape: float, scale: float) -> Float[Array, ""]:
    """Log density of normal numbers around 0 with this sum of squares, their variance InvGamma(shape, scale)."""
    found = gammaln(shape + number / 2) - gammaln(shape) + shape * jnp.log(scale)
    return found - (shape + number / 2) * jnp.log(scale + squares / 2) - number / 2 * np.log(2 * np.pi)
