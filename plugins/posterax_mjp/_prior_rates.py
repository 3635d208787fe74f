"""How fast the jumps are: laws of rates given the edges."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import betaln
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._generators import generator, limit_law


class RatePrior(eqx.Module):
    """A law of rates, in units of 1 / horizon; what is not an edge has rate 0."""

    @abc.abstractmethod
    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """Rates on these edges."""

    def log_prob(self, rates: Float[Array, "k k"], edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """Log density of the rates on the edges."""
        raise NotImplementedError(f"{type(self).__name__} does not know the density of its rates.")

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which rates lie."""
        return 0.0, np.inf

    def inside(self, rates: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
        """Rates that the law allows, near these: where a search may begin."""
        low, high = self.bounds
        return np.clip(rates, max(1.02 * low, 1e-6 * high if np.isfinite(high) else 1e-9), 0.98 * high)


class _Independent(RatePrior):
    """Rates of all edges independent and alike."""

    @abc.abstractmethod
    def log_density(self, rate: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """Of one rate."""

    def log_prob(self, rates: Float[Array, "k k"], edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `RatePrior`."""
        return jnp.sum(jnp.where(edges, self.log_density(jnp.where(edges, rates, 1.0)), 0.0))


class BetaRates(_Independent):
    """Each rate Beta(a, b) with a drawn from 1, 2 and b from 1, 3, 5, 10, times `largest`.

    - `largest`: the upper end, in units of 1 / horizon.

    Source: reconstructed from the matrices of Berghaus et al. (2024), arXiv:2406.06419.
    """

    largest: float = 10.0

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        one, two, three = jr.split(key, 3)
        a, b = (jnp.asarray(options)[jr.randint(k, edges.shape, 0, len(options))] for k, options in zip(
            (one, two), (_A, _B), strict=True
        ))  # fmt: skip
        return jnp.where(edges, self.largest * jr.beta(three, a, b), 0.0)

    def log_density(self, rate: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """See `_Independent`; -inf above `largest`."""
        share = jnp.asarray(rate)[..., None] / self.largest
        inside = (share > 0) & (share < 1)
        safe = jnp.where(inside, share, 0.5)
        a, b = (jnp.asarray(grid.ravel()) for grid in np.meshgrid(_A, _B))
        each = (a - 1) * jnp.log(safe) + (b - 1) * jnp.log1p(-safe) - betaln(a, b)
        found = jax.nn.logsumexp(each, -1) - np.log(a.size) - jnp.log(self.largest)
        return jnp.where(inside[..., 0], found, -jnp.inf)

    @property
    def bounds(self) -> tuple[float, float]:
        """See `RatePrior`."""
        return 0.0, float(self.largest)


class LogUniformRates(_Independent):
    """Each rate between `smallest` and `largest`, in units of 1 / horizon, uniform on the logarithmic scale."""

    smallest: float = 0.1
    largest: float = 100.0

    def __check_init__(self):
        if not 0 < self.smallest < self.largest:
            raise ValueError(f"`smallest` must be positive and below `largest`; got {self.smallest}, {self.largest}.")

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        low, high = jnp.log(self.smallest), jnp.log(self.largest)
        return jnp.where(edges, jnp.exp(jr.uniform(key, edges.shape, minval=low, maxval=high)), 0.0)

    def log_density(self, rate: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """See `_Independent`; -inf outside."""
        inside = (rate >= self.smallest) & (rate <= self.largest)
        width = jnp.log(jnp.log(self.largest / self.smallest))
        return jnp.where(inside, -jnp.log(jnp.where(inside, rate, 1.0)) - width, -jnp.inf)

    @property
    def bounds(self) -> tuple[float, float]:
        """See `RatePrior`."""
        return float(self.smallest), float(self.largest)


class LogNormalRates(_Independent):
    """Each rate log-normal.

    - `median`: in units of 1 / horizon. `log_sd`: the standard deviation of its logarithm.
    """

    median: float = 1.0
    log_sd: float = 2.0

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        return jnp.where(edges, self.median * jnp.exp(self.log_sd * jr.normal(key, edges.shape)), 0.0)

    def log_density(self, rate: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """See `_Independent`."""
        return jax.scipy.stats.norm.logpdf(jnp.log(rate), jnp.log(self.median), self.log_sd) - jnp.log(rate)


class ReversibleRates(RatePrior):
    r"""Rates in detailed balance, $q_{ij} = s_{ij} \sqrt{\pi_j / \pi_i}$; edges must be symmetric.

    - `conductance`: law of s, of which one triangle is used. `concentration`: of the Dirichlet law of the stationary
      probabilities $\pi$.
    """

    conductance: RatePrior = LogUniformRates(0.3, 10.0)
    concentration: float = 2.0

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        one, two = jr.split(key)
        upper = jnp.triu(self.conductance.sample(edges, key=one), 1)
        law = jr.dirichlet(two, jnp.full(len(edges), self.concentration))
        return (upper + upper.T) * jnp.sqrt(law / law[:, None])


class MixedRates(RatePrior):
    """All rates of a process from one of several laws.

    - `choices`: the laws. `probs`: how probable each is; by default equally.
    """

    choices: tuple[RatePrior, ...] = (BetaRates(), LogUniformRates())
    probs: tuple[float, ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.probs is not None and (len(self.probs) != len(self.choices) or abs(sum(self.probs) - 1) > 1e-6):
            raise ValueError(f"`probs` must hold one probability a choice, summing to 1; got {self.probs}.")

    def sample(self, edges: Bool[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """See `RatePrior`."""
        one, two = jr.split(key)
        each = jnp.stack([choice.sample(edges, key=two) for choice in self.choices])
        return each[jr.choice(one, len(self.choices), p=jnp.asarray(self._probs))]

    def log_prob(self, rates: Float[Array, "k k"], edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `RatePrior`."""
        each = jnp.stack([choice.log_prob(rates, edges) for choice in self.choices])
        return jax.nn.logsumexp(each + jnp.log(jnp.asarray(self._probs)))

    @property
    def bounds(self) -> tuple[float, float]:
        """See `RatePrior`."""
        lows, highs = zip(*(choice.bounds for choice in self.choices), strict=True)
        return min(lows), max(highs)

    def inside(self, rates: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
        """By the law that moves them least."""
        off = ~np.eye(len(rates), dtype=bool)
        each = [choice.inside(rates) for choice in self.choices]
        return min(each, key=lambda moved: float(np.sum(np.log(moved[off] / np.maximum(rates[off], 1e-9)) ** 2)))

    @property
    def _probs(self) -> np.ndarray:
        return np.full(len(self.choices), 1 / len(self.choices)) if self.probs is None else np.asarray(self.probs)


class InitialPrior(eqx.Module):
    """The law of the first state: stationary, or a Dirichlet draw around the uniform law.

    - `stationary_probability`: of the stationary law (of reducible chains the one reached from the uniform law).
    - `concentration`: of the Dirichlet law, for each state.

    Source: measured on the matrices of Berghaus et al. (2024), arXiv:2406.06419.
    """

    stationary_probability: float = 0.5
    concentration: float = 50.0

    def sample(self, rates: Float[Array, "k k"], *, key: PRNGKeyArray) -> Float[Array, " k"]:
        """One law of the first state."""
        one, two = jr.split(key)
        drawn = jr.dirichlet(two, jnp.full(len(rates), self.concentration))
        return jnp.where(jr.bernoulli(one, self.stationary_probability), limit_law(generator(rates)), drawn)


_A, _B = (1.0, 2.0), (1.0, 3.0, 5.0, 10.0)
