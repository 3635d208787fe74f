"""What a hidden finite state lets one see."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._checks import as_float, require_positive, require_probabilities, require_shape


def safe_log(probs: Array) -> Array:
    """`log`, with `-inf` at zero and a gradient of zero there: what is impossible stays so."""
    possible = probs != 0
    return jnp.where(possible, jnp.log(jnp.where(possible, probs, 1.0)), -jnp.inf)


class AbstractEmission(eqx.Module):
    """The law of one observation in each of a finite number of states."""

    num_states: eqx.AbstractVar[int]

    @abc.abstractmethod
    def log_prob(self, y: Any) -> Float[Array, " states"]:
        """Log density of one observation in each state; zero in all of them where it is missing."""

    @abc.abstractmethod
    def sample(self, state: Int[Array, ""], *, key: PRNGKeyArray) -> Any:
        """One observation made in `state`."""


class CategoricalEmission(AbstractEmission):
    """Symbols 0, 1, ... with probabilities that depend on the state.

    - `probs`: shape `(states, symbols)`, rows with a sum of 1. Zeros are allowed.

    Observations are integers; a negative one is missing, one past the last symbol gives NaN.
    """

    probs: Float[Array, "states symbols"] = eqx.field(converter=as_float)

    def __check_init__(self):
        require_shape("probs", self.probs, ("states", "symbols"))
        require_probabilities("probs", self.probs)

    @property
    def num_states(self) -> int:
        """The number of states."""
        return self.probs.shape[0]

    def log_prob(self, y: Int[Array, ""]) -> Float[Array, " states"]:
        """Log probability of symbol `y` in each state."""
        found = safe_log(self.probs).at[:, jnp.maximum(y, 0)].get(mode="fill", fill_value=jnp.nan)
        return jnp.where(y < 0, 0.0, found)

    def sample(self, state: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        """One symbol."""
        return jr.categorical(key, safe_log(self.probs[state]))


class GaussianEmission(AbstractEmission):
    """A real number with a mean and a standard deviation that depend on the state.

    - `mean`, `sd`: shape `(states,)`, in the units of the observations.

    A NaN observation is missing.
    """

    mean: Float[Array, " states"] = eqx.field(converter=as_float)
    sd: Float[Array, " states"] = eqx.field(converter=as_float)

    def __check_init__(self):
        require_shape("mean", self.mean, ("states",))
        require_shape("sd", self.sd, (self.mean.size,))
        require_positive("sd", self.sd)

    @property
    def num_states(self) -> int:
        """The number of states."""
        return self.mean.shape[0]

    def log_prob(self, y: Float[Array, ""]) -> Float[Array, " states"]:
        """Log density of `y` in each state."""
        seen = ~jnp.isnan(y)
        scaled = (jnp.where(seen, y, 0.0) - self.mean) / self.sd
        return jnp.where(seen, -0.5 * scaled**2 - jnp.log(self.sd) - 0.5 * jnp.log(2 * jnp.pi), 0.0)

    def sample(self, state: Int[Array, ""], *, key: PRNGKeyArray) -> Float[Array, ""]:
        """One real number."""
        return self.mean[state] + self.sd[state] * jr.normal(key)
