"""A Markov chain on finitely many states as a law of sequences: all its marginals are closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._checks import as_float, require_probabilities, require_shape
from ._emission import safe_log


class MarkovChainLaw(eqx.Module):
    """Sequences x_1, ..., x_D on the states 0..K-1, each state depending on the one before.

    - `initial_probs`: `(K,)`. `transition_matrix`: `(K, K)`; row i holds the probabilities of going from state i.
    - `length`: D.
    """

    initial_probs: Float[Array, " states"] = eqx.field(converter=as_float)
    transition_matrix: Float[Array, "states states"] = eqx.field(converter=as_float)
    length: int = eqx.field(static=True)

    def __check_init__(self):
        require_shape("initial_probs", self.initial_probs, ("states",))
        require_shape("transition_matrix", self.transition_matrix, (self.num_states, self.num_states))
        require_probabilities("initial_probs", self.initial_probs)
        require_probabilities("transition_matrix", self.transition_matrix)
        if self.length < 1:
            raise ValueError(f"`length` must be 1 or more; got {self.length}.")

    @staticmethod
    def random(num_states: int, length: int, *, seed: int, concentration: float = 1.0) -> "MarkovChainLaw":
        """One with Dirichlet rows; the smaller `concentration`, the surer each move."""
        rows = np.random.default_rng(seed).dirichlet(np.full(num_states, concentration), num_states + 1)
        return MarkovChainLaw(rows[0], rows[1:], length)

    @property
    def num_states(self) -> int:
        """K."""
        return self.initial_probs.shape[0]

    def log_marginal(self, x: Int[Array, " D"], observed: Bool[Array, " D"]) -> Float[Array, ""]:
        """Log probability that the observed ones have the values of `x`, in nats; the others are summed out."""
        log_transition, states = safe_log(self.transition_matrix), jnp.arange(self.num_states)

        def allowed(value, seen):
            return jnp.where(seen & (states != value), -jnp.inf, 0.0)

        def step(log_probs, given):
            return jax.nn.logsumexp(log_probs[:, None] + log_transition, 0) + allowed(*given), None

        first = safe_log(self.initial_probs) + allowed(x[0], observed[0])
        return jax.nn.logsumexp(jax.lax.scan(step, first, (x[1:], observed[1:]))[0])

    def log_weight(self, x: Int[Array, "... D"]) -> Float[Array, "..."]:
        """Log probability of full sequences, in nats."""
        x = jnp.asarray(x)
        moves = safe_log(self.transition_matrix)[x[..., :-1], x[..., 1:]]
        return safe_log(self.initial_probs)[x[..., 0]] + moves.sum(-1)

    def sample(self, num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
        """Independent exact draws."""
        log_transition = safe_log(self.transition_matrix)
        keys = jr.split(key, self.length)

        def step(state, key):
            state = jr.categorical(key, log_transition[state], -1)
            return state, state

        first = jr.categorical(keys[0], safe_log(self.initial_probs), shape=(num,))
        later = jax.lax.scan(step, first, keys[1:])[1]
        return jnp.concatenate([first[None], later]).T
