"""Look-ahead: judge a particle by where it would go, before ancestors are drawn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from posterax.weights import log_mean

from ._feynman_kac import FeynmanKac


class LookAhead(eqx.Module):
    r"""Each particle sends out `num` scouts one step ahead; ancestors are drawn by what they find.

    The scouts' mean potential g estimates what the auxiliary particle filter would know exactly. The scouts are then
    thrown away: particles move anew. So a step costs `num` + 1 moves and as many potentials of each particle.

    - `num`: K, scouts of each particle.
    - `mode`: "multiply" draws ancestors by $w g^\lambda$, "replace" by g alone.
    - `power`: $\lambda$; only for "multiply".
    - `correct`: divide the guess out of the weights again. Without that, promising particles count twice: what the
      particles stand for changes, and there is no evidence.

    Source: Giannone et al. (2025), arXiv:2510.05825; Pitt and Shephard (1999), doi:10.1080/01621459.1999.10474153.
    """

    num: int = 1
    mode: str = "multiply"
    power: float = 1.0
    correct: bool = True

    def __check_init__(self):
        if isinstance(self.num, bool) or not isinstance(self.num, int) or self.num < 1:
            raise ValueError(f"`num` must be an integer, 1 or more; got {self.num!r}.")
        if self.mode not in {"multiply", "replace"}:
            raise ValueError(f'`mode` must be "multiply" or "replace"; got {self.mode!r}.')

    def scores(
        self,
        model: FeynmanKac,
        t: Int[Array, ""],
        particles: PyTree[Array],
        log_weights: Float[Array, " n"],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " n"]:
        """Log of what ancestors are to be drawn by, for particles at time t."""

        def scouted(key):
            scouts = model.moves(t + 1, particles, key=key)
            return jax.vmap(lambda x, scout: model.log_potential(t + 1, x, scout))(particles, scouts)

        found = jax.vmap(log_mean, in_axes=1)(jax.vmap(scouted)(jr.split(key, self.num)))
        if self.mode == "replace":
            return jnp.where(jnp.isneginf(log_weights), -jnp.inf, found).astype(log_weights.dtype)
        return combined(log_weights, self.power * found)


def combined(log_weights: Float[Array, " n"], guess: Float[Array, " n"]) -> Float[Array, " n"]:
    """Log-weights with a guess added; a particle without weight has none whatever the guess."""
    return jnp.where(jnp.isneginf(log_weights), -jnp.inf, log_weights + guess).astype(log_weights.dtype)
