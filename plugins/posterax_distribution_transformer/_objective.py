"""The loss: how unlikely the latent is under the inferred mixture, and under the one that stands for the prior."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array
from posterax import Objective

from ._network import Network, read
from ._problem import InferenceProblem
from ._spec import Scales, Spec
from ._tokens import Tokens


class ExpectedForwardKL(Objective):
    r"""$-\log q(x \mid z, \phi) - \lambda \log q(x \mid \phi)$ of draws (prior, latent, data), in nats.

    Its first term is the expected KL(p(x | z, prior) || q) plus a constant that does not depend on q: a difference of
    two losses is one of expected divergences. The second keeps the head's mixture of the embedded prior close to it.

    - `prior_weight`: lambda.

    Source: Whittle et al. (2025), arXiv:2502.02463, section 3 and proposition 3.1.
    """

    spec: Spec
    prior_weight: float = 1.0

    def loss(self, model: Network, batch: Any, state: Any, *, key: Any):
        """Of a batch (tokens, latents in standard units); metrics "posterior" and "prior" are the two terms."""
        del key
        tokens, latent = batch
        posterior, prior = jax.vmap(lambda seen, x: self._one(model, seen, x))(tokens, latent)
        losses = -jnp.mean(posterior), -jnp.mean(prior)
        return losses[0] + self.prior_weight * losses[1], (state, {"posterior": losses[0], "prior": losses[1]})

    def _one(self, model: Network, seen: Tokens, x: Array) -> tuple[Array, Array]:
        before, after = model(seen)
        size = self.spec.size
        return read(after, seen.live, size).log_prob(x), read(before, seen.live, size).log_prob(x)


class Simulations(eqx.Module):
    """Batches for `train`: fresh problems at each step, drawn and encoded within the compiled step.

    - `size`: problems in a batch.
    - `drop`: the probability with which each source of each problem is left out, so that the network learns to do
      without.
    """

    problem: InferenceProblem
    spec: Spec
    scales: Scales
    size: int
    drop: float

    def __call__(self, key: Any) -> tuple[Tokens, Array]:
        """Tokens and latents in standard units, of `size` problems."""
        return jax.vmap(self._one)(jr.split(key, self.size))

    def _one(self, key: Any) -> tuple[Tokens, Array]:
        key, key_drop = jr.split(key)
        prior, latent, observed = self.problem.draw(key=key)
        tokens = self.scales.tokens(self.spec, self.spec.encode(prior, observed))
        if self.drop:
            kept = jr.uniform(key_drop, (len(self.spec.sources),)) >= self.drop
            present = tuple(there & keep for there, keep in zip(tokens.present, kept, strict=True))
            tokens = Tokens(tokens.prior, tokens.live, tokens.sources, present)
        return tokens, self.scales.latent(self.spec.real(latent))
