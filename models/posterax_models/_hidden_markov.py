"""A hidden Markov chain with finitely many states, and its exact recursions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._checks import as_float, require_probabilities, require_shape
from ._emission import AbstractEmission, safe_log


def _log_sum_exp(x: Array, axis: int = -1) -> Array:
    """Log of the sum of exponentials; `-inf` with a gradient of zero where all terms are impossible."""
    peak = jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    total = jnp.exp(x - peak).sum(axis)
    impossible = total == 0
    log_total = jnp.log(jnp.where(impossible, 1.0, total)) + peak.squeeze(axis)
    return jnp.where(impossible, -jnp.inf, log_total)


class HMMFiltered(eqx.Module):
    """What is known at each time from the observations up to there.

    - `predicted_probs`: state probabilities given all earlier observations, `(time, states)`.
    - `probs`: given these and the present one, `(time, states)`.
    - `log_likelihood_terms`: log density of each observation given all earlier ones, `(time,)`.
    """

    predicted_probs: Float[Array, "time states"]
    probs: Float[Array, "time states"]
    log_likelihood_terms: Float[Array, " time"]

    @property
    def log_likelihood(self) -> Float[Array, ""]:
        """Log density of all observations, in nats."""
        return self.log_likelihood_terms.sum()


class HMMSmoothed(eqx.Module):
    """What is known at each time from all observations.

    - `probs`: state probabilities, `(time, states)`.
    - `pair_probs`: probabilities of a state (axis 1) and the next one (axis 2), `(time - 1, states, states)`.
    """

    probs: Float[Array, "time states"]
    pair_probs: Float[Array, "time_less_1 states states"]


class HiddenMarkovChain(eqx.Module):
    r"""A Markov chain on the states $0..K-1$, seen through noise.

    - `initial_probs`: shape `(K,)`, of the first state.
    - `transition_matrix`: shape `(K, K)`; row i holds the probabilities of going from state i.
    - `emission`: the law of an observation in each state (`CategoricalEmission`, `GaussianEmission`).

    Zeros are allowed anywhere. All recursions run in log space, so nothing underflows in long series;
    observations that no path can produce have log likelihood `-inf`, state probabilities zero, and gradient
    zero. Everything acts on one series of shape `(time,)`; use `jax.vmap` for many. The states being
    discrete, there is no `Target` of the path: `log_joint` is its density.

    Source: Rabiner (1989), doi:10.1109/5.18626, sections III.A-B; paths by Scott (2002),
    doi:10.1198/016214502753479464.
    """

    initial_probs: Float[Array, " states"] = eqx.field(converter=as_float)
    transition_matrix: Float[Array, "states states"] = eqx.field(converter=as_float)
    emission: AbstractEmission

    def __check_init__(self):
        require_shape("initial_probs", self.initial_probs, ("states",))
        num_states = self.initial_probs.size
        require_shape("transition_matrix", self.transition_matrix, (num_states, num_states))
        require_probabilities("initial_probs", self.initial_probs)
        require_probabilities("transition_matrix", self.transition_matrix)
        if self.emission.num_states != num_states:
            raise ValueError(
                f"`emission` must have the {num_states} states of `initial_probs`; got {self.emission.num_states}."
            )

    @eqx.filter_jit
    def filter(self, observed: Any) -> HMMFiltered:
        """Forward filter: state probabilities from what came before, and likelihood."""
        log_predicted, log_probs, terms = self._forward(self._log_emissions(observed))
        return HMMFiltered(jnp.exp(log_predicted), jnp.exp(log_probs), terms)

    @eqx.filter_jit
    def log_likelihood(self, observed: Any) -> Float[Array, ""]:
        """Log density of all observations, in nats."""
        return self._forward(self._log_emissions(observed))[2].sum()

    @eqx.filter_jit
    def smooth(self, observed: Any) -> HMMSmoothed:
        """Forward-backward smoother: probabilities of states, and of neighbours, from the whole series."""
        log_emissions = self._log_emissions(observed)
        _, log_probs, terms = self._forward(log_emissions)
        log_transition = safe_log(self.transition_matrix)
        # Rabiner's backward variable, divided by the density of what it stands for.
        finite_terms = jnp.where(jnp.isfinite(terms), terms, 0.0)

        def step(log_ahead, now):
            log_emission, term = now
            arriving = log_transition + log_emission + log_ahead - term
            return _log_sum_exp(arriving), arriving

        last = jnp.zeros(self.initial_probs.size)
        _, arriving = jax.lax.scan(step, last, (log_emissions[1:], finite_terms[1:]), reverse=True)
        pair_probs = jnp.exp(log_probs[:-1, :, None] + arriving)
        probs = jnp.concatenate([pair_probs.sum(2), jnp.exp(log_probs[-1:])])
        return HMMSmoothed(probs, pair_probs)

    @eqx.filter_jit
    def sample_path(self, observed: Any, *, key: PRNGKeyArray) -> Int[Array, " time"]:
        """One exact draw of the whole state path given `observed`, shape `(time,)`."""
        _, log_probs, _ = self._forward(self._log_emissions(observed))
        log_transition = safe_log(self.transition_matrix)
        keys = jr.split(key, log_probs.shape[0])

        def step(next_state, now):
            log_prob, key = now
            state = jr.categorical(key, log_prob + log_transition[:, next_state])
            return state, state

        last = jr.categorical(keys[-1], log_probs[-1])
        _, states = jax.lax.scan(step, last, (log_probs[:-1], keys[:-1]), reverse=True)
        return jnp.concatenate([states, last[None]])

    @eqx.filter_jit
    def most_likely_path(self, observed: Any) -> tuple[Int[Array, " time"], Float[Array, ""]]:
        """Viterbi: the path of shape `(time,)` with the highest `log_joint`, and that value."""
        log_emissions = self._log_emissions(observed)
        log_transition = safe_log(self.transition_matrix)

        def forward(best, log_emission):
            through = best[:, None] + log_transition
            return through.max(0) + log_emission, through.argmax(0)

        def backward(next_state, pointers):
            return pointers[next_state], pointers[next_state]

        first = self._log_initial() + log_emissions[0]
        best, pointers = jax.lax.scan(forward, first, log_emissions[1:])
        last = best.argmax()
        _, states = jax.lax.scan(backward, last, pointers, reverse=True)
        return jnp.concatenate([states, last[None]]), best.max()

    @eqx.filter_jit
    def log_joint(self, path: Int[Array, " time"], observed: Any) -> Float[Array, ""]:
        """Log density of one state path and the observations together, in nats."""
        moves = safe_log(self.transition_matrix)[path[:-1], path[1:]]
        seen = jnp.take_along_axis(self._log_emissions(observed), path[:, None], axis=1)
        return safe_log(self.initial_probs)[path[0]] + moves.sum() + seen.sum()

    @eqx.filter_jit
    def simulate(self, *, num_steps: int, key: PRNGKeyArray) -> tuple[Int[Array, " time"], Array]:
        """One exact draw of states and observations together, both of shape `(num_steps,)`."""
        key_first, key_moves, key_seen = jr.split(key, 3)
        log_transition = safe_log(self.transition_matrix)

        def step(state, key):
            state = jr.categorical(key, log_transition[state])
            return state, state

        first = jr.categorical(key_first, safe_log(self.initial_probs))
        _, later = jax.lax.scan(step, first, jr.split(key_moves, num_steps - 1))
        path = jnp.concatenate([first[None], later])
        emit = jax.vmap(lambda state, key: self.emission.sample(state, key=key))
        return path, emit(path, jr.split(key_seen, num_steps))

    def _log_initial(self) -> Float[Array, " states"]:
        # A model made in float32 may be used in a float64 run: what is carried has the precision of the run.
        return as_float(safe_log(self.initial_probs))

    def _log_emissions(self, observed: Any) -> Float[Array, "time states"]:
        observed = jnp.asarray(observed)
        require_shape("observed", observed, ("time",))
        return as_float(jax.vmap(self.emission.log_prob)(observed))

    def _forward(self, log_emissions: Array) -> tuple[Array, Array, Array]:
        """Logs of predicted and filtered probabilities, and the terms of the log likelihood."""
        log_transition = safe_log(self.transition_matrix)

        def step(log_predicted, log_emission):
            log_joint = log_predicted + log_emission
            term = _log_sum_exp(log_joint)
            log_probs = log_joint - jnp.where(jnp.isfinite(term), term, 0.0)
            ahead = _log_sum_exp(log_probs[:, None] + log_transition, axis=0)
            return ahead, (log_predicted, log_probs, term)

        return jax.lax.scan(step, self._log_initial(), log_emissions)[1]
