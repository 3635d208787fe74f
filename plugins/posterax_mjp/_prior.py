"""The prior over processes and what is seen of them: what a foundation model is trained on."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._pooled_rates import PooledRates
from ._prior_edges import ConnectedTriangles, EdgePrior
from ._prior_grids import GridPrior, LabelFlips, MixedGrid
from ._prior_rates import BetaRates, InitialPrior, LogUniformRates, MixedRates, RatePrior
from ._process import Process


class Seen(eqx.Module):
    """What is seen of a process.

    - `labels`: `(K, L)`, on the finest grid. `seen`: `(K, L)`, where the paths were looked at.
    - `noise`: the probability that a label is wrong. `times`: `(L,)`, as shares of the horizon.
    """

    labels: Int[Array, "K L"]
    seen: Bool[Array, "K L"]
    noise: Float[Array, ""]
    times: Float[Array, " L"]


class ProcessPrior(eqx.Module):
    """A law of processes, in units in which the last observation is at time 1; every part can be replaced.

    The default is that of the paper, as reconstructed from its published matrices: rates below 10 per horizon.

    - `edges`: which jumps can be made. `rates`: how fast. `initial`: the law of the first state. `grid`: when paths are
      looked at. `noise`: how often labels are wrong.

    Source: Berghaus et al. (2024), arXiv:2406.06419.
    """

    edges: EdgePrior = ConnectedTriangles()
    rates: RatePrior = BetaRates()
    initial: InitialPrior = InitialPrior()
    grid: GridPrior = MixedGrid()
    noise: LabelFlips = LabelFlips()

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Process:
        """One process of this many states."""
        one, two, three = jr.split(key, 3)
        rates = self.rates.sample(self.edges.sample(num_states, key=one), key=two)
        return Process(rates, self.initial.sample(rates, key=three))

    def observe(self, process: Process, num_paths: int, *, key: PRNGKeyArray) -> Seen:
        """Labels of some paths of a process."""
        one, two, three, four = jr.split(key, 4)
        times = self.grid.times(1.0)
        states = process.sample(times, num_paths, key=one)
        prob = self.noise.sample(key=two)
        labels = self.noise.flipped(states, process.num_states, prob, key=three)
        return Seen(labels, self.grid.sample(num_paths, key=four), prob, jnp.asarray(times))

    def log_prob(self, rates: Float[Array, "k k"]) -> Float[Array, ""]:
        """Log density of rates, of those that are not 0; edges are counted for at most eight states."""
        edges = (rates > 0) & ~jnp.eye(len(rates), dtype=bool)
        return self.edges.log_prob(edges) + self.rates.log_prob(rates, edges)


def wide_prior() -> ProcessPrior:
    """The paper's prior with rates of three kinds.

    With probability 0.6 the paper's; 0.2: of all orders of magnitude up to 100 per horizon; 0.2: of one process alike,
    and none above 100.
    """
    return ProcessPrior(rates=MixedRates((BetaRates(), LogUniformRates(), alike()), (0.6, 0.2, 0.2)))


def alike() -> PooledRates:
    """Rates around some level from about 0.4 to 10 per horizon, most of them within a factor of 2 of it."""
    return PooledRates(median=2.0, spread=2.0, shape=3.0, scale=1.0, largest=100.0)
