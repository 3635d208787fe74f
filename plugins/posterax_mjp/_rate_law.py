"""What is inferred at once: for every jump whether it can be made, and how fast; and the law of the first state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammainc, gammaln
from jaxtyping import Array, Float, PRNGKeyArray


class RateLaw(eqx.Module):
    """A law of the rates of k states in which pairs of states are independent.

    With some probability a jump cannot be made and its rate is 0; else the rate has a mixture of gamma laws.

    - `edge_logits`: `(k, k)`, log odds that a jump can be made. `log_mean`, `log_shape`, `weight_logits`: `(k, k, C)`,
      of the gamma laws. `initial_logits`: `(k,)`. Diagonals mean nothing. `horizon`: the unit of time of the laws.
    """

    edge_logits: Float[Array, "k k"]
    log_mean: Float[Array, "k k C"]
    log_shape: Float[Array, "k k C"]
    weight_logits: Float[Array, "k k C"]
    initial_logits: Float[Array, " k"]
    horizon: float | Float[Array, ""] = 1.0

    @property
    def num_states(self) -> int:
        """How many."""
        return self.edge_logits.shape[-1]

    @property
    def edge_probs(self) -> Float[Array, "k k"]:
        """Probabilities that jumps can be made; 0 on the diagonal."""
        return jnp.where(jnp.eye(self.num_states, dtype=bool), 0.0, jax.nn.sigmoid(self.edge_logits))

    @property
    def initial(self) -> Float[Array, " k"]:
        """The law of the first state."""
        return jax.nn.softmax(self.initial_logits)

    def present_mean(self) -> Float[Array, "k k"]:
        """Means of rates of jumps that can be made."""
        return jnp.sum(self._weights * jnp.exp(self.log_mean), -1) / self.horizon

    def present_variance(self) -> Float[Array, "k k"]:
        """Their variances."""
        square = jnp.exp(2 * self.log_mean) * (1 + jnp.exp(-self.log_shape))
        return jnp.sum(self._weights * square, -1) / self.horizon**2 - self.present_mean() ** 2

    @property
    def mean(self) -> Float[Array, "k k"]:
        """Means of rates, those that are 0 included; 0 on the diagonal."""
        return self.edge_probs * self.present_mean()

    @property
    def variance(self) -> Float[Array, "k k"]:
        """Variances of rates, those that are 0 included."""
        return self.edge_probs * (self.present_variance() + self.present_mean() ** 2) - self.mean**2

    def present_log_prob(self, rates: Float[Array, "k k"]) -> Float[Array, "k k"]:
        """Log density of each rate, given that its jump can be made; rates must be positive."""
        x = rates[..., None] * self.horizon
        shape = jnp.exp(self.log_shape)
        log_rate = self.log_shape - self.log_mean
        each = shape * log_rate + (shape - 1) * jnp.log(x) - jnp.exp(log_rate) * x - gammaln(shape)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.weight_logits) + each, -1) + jnp.log(self.horizon)

    def present_cdf(self, rates: Float[Array, "k k"]) -> Float[Array, "k k"]:
        """The distribution function of each rate, given that its jump can be made."""
        shape = jnp.exp(self.log_shape)
        x = rates[..., None] * self.horizon * shape * jnp.exp(-self.log_mean)
        return jnp.sum(self._weights * gammainc(shape, x), -1)

    def log_prob(self, value: dict[str, Array]) -> Float[Array, ""]:
        """Log density of "rates", `(k, k)`: of those that are not 0, and log probabilities of which these are."""
        rates = value["rates"]
        edges = rates > 0
        density = self.present_log_prob(jnp.where(edges, rates, 1.0))
        each = jnp.where(edges, jax.nn.log_sigmoid(self.edge_logits) + density, jax.nn.log_sigmoid(-self.edge_logits))
        return jnp.sum(jnp.where(jnp.eye(self.num_states, dtype=bool), 0.0, each), (-1, -2))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Draws of "rates", `(*sample_shape, k, k)`."""
        one, two, three = jr.split(key, 3)
        shape = (*sample_shape, *self.edge_logits.shape)
        which = jr.categorical(one, jnp.broadcast_to(self.weight_logits, (*shape, self.log_mean.shape[-1])))[..., None]
        log_mean, log_shape = (
            jnp.take_along_axis(jnp.broadcast_to(values, (*shape, values.shape[-1])), which, -1)[..., 0]
            for values in (self.log_mean, self.log_shape)
        )
        rates = jnp.exp(jr.loggamma(two, jnp.exp(log_shape)) - log_shape + log_mean) / self.horizon
        return {"rates": jnp.where(jr.bernoulli(three, jnp.broadcast_to(self.edge_probs, shape)), rates, 0.0)}

    @property
    def _weights(self) -> Float[Array, "k k C"]:
        return jax.nn.softmax(self.weight_logits)
