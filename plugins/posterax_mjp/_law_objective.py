"""What the network is trained by: the log density that it gives to the truth."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray
from posterax import Objective

from ._training_data import Examples


class RateLawLikelihood(Objective):
    r"""Negative log density of simulated rates under the inferred law, and cross-entropy of the first state's law.

    Smallest, on average over the prior, where the law is the posterior's product of marginals: minimising the expected
    forward Kullback-Leibler divergence. Per pair of states, and averaged over the numbers of states in a batch.

    - `initial_weight`: of the first state's law.

    Source: Papamakarios and Murray (2016), arXiv:1605.06376; edges and rates after Berghaus et al. (2024),
    arXiv:2406.06419, eq. 8, whose squared errors of absent edges are log probabilities here.
    """

    initial_weight: float = eqx.field(static=True, default=1.0)

    def loss(self, model: Any, batch: Examples | tuple[Examples, ...], state: Any, *, key: PRNGKeyArray):
        """See `Objective`; the metric "rates" is the part of the rates."""
        del key
        sets = (batch,) if isinstance(batch, Examples) else batch
        rates, initial = jnp.mean(jnp.stack([_one(model, examples) for examples in sets]), 0)
        return rates + self.initial_weight * initial, (state, {"rates": rates})


def _one(model: Any, examples: Examples) -> Array:
    def of(rates, initial, told):
        law, size = model(told), len(initial)
        off = jnp.where(jnp.eye(size, dtype=bool), 0.0, rates)
        density = law.log_prob({"rates": off}) / (size * (size - 1))
        return jnp.stack([-density, -jnp.sum(initial * jax.nn.log_softmax(law.initial_logits))])

    return jnp.mean(jax.vmap(of)(examples.rates, examples.initial, examples.told), 0)
