"""A Markov jump process, and its paths: exactly on a grid of times, or jump by jump."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike
from posterax import check_key

from ._generators import generator, transition_probs


class Process(eqx.Module):
    """Rates of the jumps from state to state, and the law of the first state.

    - `rates`: `(k, k)`, row: from, column: to; per unit of time; the diagonal is not read. `initial`: `(k,)`.
    """

    rates: Float[Array, "k k"] = eqx.field(converter=jnp.asarray)
    initial: Float[Array, " k"] = eqx.field(converter=jnp.asarray)

    @property
    def num_states(self) -> int:
        """How many."""
        return self.rates.shape[-1]

    @property
    def generator(self) -> Float[Array, "k k"]:
        """Rates with the diagonal that makes rows sum to 0."""
        return generator(self.rates)

    def sample(self, times: ArrayLike, num: int, *, key: PRNGKeyArray) -> Int[Array, "num L"]:
        """States of `num` paths at these times, exactly: by the transition probabilities between them.

        - `times`: `(L,)`, numbers that are known when compiling, increasing, from 0 on: the initial law holds at 0.
        """
        times = np.asarray(times, float)
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or (np.diff(times, prepend=0.0) < 0).any():
            raise ValueError(f"`times` must be a row of increasing times, 0 or later; got {times}.")
        gaps = np.diff(times, prepend=0.0)
        unique, index = np.unique(np.round(gaps, 12), return_inverse=True)
        steps = jnp.cumsum(transition_probs(self.generator, jnp.asarray(unique)), -1)
        first, rest = jr.split(key)
        start = _choose(jnp.cumsum(self.initial), jr.uniform(first, (num,)))

        def step(state, given):
            which, uniform = given
            state = _choose(steps[which][state], uniform)
            return state, state

        uniforms = jr.uniform(rest, (len(times), num))
        return jax.lax.scan(step, start, (jnp.asarray(index), uniforms))[1].T

    def sample_jumps(self, horizon: float, num: int, *, max_jumps: int, key: PRNGKeyArray) -> "Jumps":
        """Whole paths until `horizon`, jump by jump (Gillespie's method).

        - `max_jumps`: places for the jumps of a path. Paths that need more end early; `Jumps.complete` tells.
        """
        key = check_key(key, "Process.sample_jumps")
        exits = -jnp.diagonal(self.generator)
        targets = jnp.cumsum(generator(self.rates) + jnp.diag(exits), -1)
        first, rest = jr.split(key)
        start = _choose(jnp.cumsum(self.initial), jr.uniform(first, (num,)))

        def jump(carry, key):
            time, state = carry
            one, two = jr.split(key)
            rate = exits[state]
            wait = jr.exponential(one, (num,)) / jnp.where(rate > 0, rate, 1.0)
            time = jnp.where(rate > 0, time + wait, jnp.inf)
            state = jnp.where(time < horizon, _choose(targets[state], jr.uniform(two, (num,))), state)
            return (time, state), (jnp.where(time < horizon, time, jnp.inf), state)

        _, (times, states) = jax.lax.scan(jump, (jnp.zeros(num), start), jr.split(rest, max_jumps))
        return Jumps(start, times.T, states.T, horizon)


class Jumps(eqx.Module):
    """Whole paths.

    - `start`: `(n,)`, first states. `times`: `(n, J)`, of the jumps; inf where there are no more. `states`: `(n, J)`,
      after each jump. `horizon`: until when.
    """

    start: Int[Array, " n"]
    times: Float[Array, "n J"]
    states: Int[Array, "n J"]
    horizon: float = eqx.field(static=True)

    @property
    def complete(self) -> bool:
        """Whether all paths reach the horizon within the places for their jumps."""
        return bool(jnp.all(jnp.isinf(self.times[:, -1])))

    def at(self, times: ArrayLike) -> Int[Array, "n L"]:
        """States at these times, `(L,)`; between jumps nothing changes."""

        def one(start, jumps, states):
            count = jnp.searchsorted(jumps, jnp.asarray(times, float), side="right")
            return jnp.concatenate([start[None], states])[count]

        return jax.vmap(one)(self.start, self.times, self.states)


def _choose(cumulative: Float[Array, "*n k"], uniform: Float[Array, " n"]) -> Int[Array, " n"]:
    """The state whose interval of the cumulative probabilities holds the number."""
    last = cumulative.shape[-1] - 1
    return jnp.minimum(jnp.sum(uniform[:, None] * cumulative[..., -1:] >= cumulative, -1), last)
