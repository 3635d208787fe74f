"""The conditional law of what is missing: a distribution that draws and weighs whole assignments."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._marginals import Marginals
from ._orders import ranks_by_group
from ._sampling import complete, log_prob_in_order


class ConditionalLaw(eqx.Module):
    """Assignments given some of their values, by chained conditionals in one order.

    - `x`, `observed`: `(..., D)`, what is given. `order`: `(D,)`, in which missing variables are drawn and weighed.

    As a function of the missing values it is a normalised law exactly, in whatever order; laws of different orders
    differ by what the conditionals lack in consistency.
    """

    model: Marginals
    x: Int[Array, "... D"]
    observed: Bool[Array, "... D"]
    order: Int[Array, " D"]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Of the given assignments."""
        return jnp.shape(self.x)[:-1]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(D,)."""
        return jnp.shape(self.x)[-1:]

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Int[Array, "... D"]:
        """Draws, with the given values in their places; as many passes as values are missing."""
        shape = (*sample_shape, *self.x.shape)
        x, there = (jnp.broadcast_to(a, shape).reshape(-1, shape[-1]) for a in (self.x, self.observed))
        return completed(self.model, x, there, key=key, ranks=self._ranks(len(x)))[0].reshape(shape)

    def log_prob(self, value: Any) -> Float[Array, "..."]:
        """Log probability of the missing values in `value`, given the others; -inf where it differs from what is given.

        As many passes as values are missing.
        """
        value = jnp.asarray(value)
        shape = jnp.broadcast_shapes(value.shape, self.x.shape)
        x, given, there = (jnp.broadcast_to(a, shape).reshape(-1, shape[-1]) for a in (value, self.x, self.observed))
        told = _weighed(self.model, x, there, self._ranks(len(x)))
        agrees = jnp.all(~there | (x == given), -1)
        return jnp.where(agrees, told, -jnp.inf).reshape(shape[:-1])

    def _ranks(self, num: int) -> Int[Array, "B D"]:
        return jnp.broadcast_to(jnp.argsort(self.order), (num, len(self.order)))


@eqx.filter_jit
def completed(
    model: Marginals, x: Array, observed: Array, *, key: PRNGKeyArray, ranks: Array | None = None
) -> tuple[Array, Array]:
    """`complete`, compiled."""
    return complete(model, x, observed, key=key, ranks=ranks)


@eqx.filter_jit
def _weighed(model: Marginals, x: Array, observed: Array, ranks: Array) -> Array:
    ranks = ranks_by_group(jnp.where(observed, 0, 1), ranks)
    return log_prob_in_order(model, x, ranks, jnp.sum(observed, -1), jnp.full(len(x), x.shape[1]))


@eqx.filter_jit
def log_marginals(model: Marginals, x: Int[Array, "n D"], observed: Bool[Array, "n D"]) -> Float[Array, " n"]:
    """Log p(x_S) of rows, log Z taken off."""
    return jax.vmap(model.log_marginal)(x, observed) - model.log_partition


@eqx.filter_jit
def log_probs(model: Marginals, x: Int[Array, "n D"], observed: Bool[Array, "n D"]) -> Float[Array, "n D K"]:
    """Log probabilities of all variables' values, of rows."""
    return jax.vmap(model.log_probs)(x, observed)
