"""Twisted models: moves and weights that look ahead, by a guess of what is still to come."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PyTree

from ._feynman_kac import FeynmanKac, require_model


class Twisted(FeynmanKac):
    r"""A model whose moves and weights look ahead by a twist; its paths keep their law, and the evidence is the same.

    A twist $\psi_t(x)$ is a guess of what all potentials after t will be worth to a particle at time t, of
    $\int \prod_{s > t} M_s G_s$. Moves are drawn in proportion to $M_t G_t \psi_t$, and weighted by the sum of that
    over all choices, divided by $\psi_{t-1}$ of the particle before. So at every time particles stand for the law up to
    there, times $\psi_t$. At the last time the twist is 1, whatever is given: evidence is unbiased however bad the
    guess. Where the guess is exact all weights are equal, and the evidence has no variance.

    A step costs K potentials and K + 1 twists of each particle, where it has K choices.

    - `base`: a `FeynmanKac` model with `choices`, such as a `Bootstrap` of discrete states.
    - `log_twist`: function of (t, x), $\log \psi_t$ of one particle, in nats, up to a constant of each time; finite, or
      `-inf` where nothing that is to come is possible.

    Source: Whiteley and Lee (2014), doi:10.1214/13-AOS1167; Guarniero, Johansen and Lee (2017), arXiv:1511.06286, whose
    twist has the potential at time t in it.
    """

    base: FeynmanKac
    log_twist: Callable

    def __check_init__(self):
        require_model(self.base, "Twisted")

    @property
    def num_steps(self) -> int:
        """That of `base`."""
        return self.base.num_steps

    def choices(self, t, before):
        """Those of `base`, with their twisted probabilities."""
        found, scores = self._scored(t, before)
        return found, scores - logsumexp(scores)

    def start(self, *, key):
        """Drawn from the twisted initial law."""
        return self._drawn(0, None, key)

    def move(self, t, before, *, key):
        """Drawn from the twisted move."""
        return self._drawn(t, before, key)

    def log_start(self, x):
        """Log of the sum over all choices."""
        return logsumexp(self._scored(0, None)[1])

    def log_potential(self, t, before, x):
        """Log of the sum over all choices, over the twist of the particle before."""
        return logsumexp(self._scored(t, before)[1]) - self._log_twist(t - 1, before)

    def log_transition(self, t, before, x):
        """That of `base`, over the twist of the particle before."""
        return self.base.log_transition(t, before, x) - self._log_twist(t - 1, before)

    def _drawn(self, t, before: PyTree[Array] | None, key) -> PyTree[Array]:
        found, scores = self._scored(t, before)
        index = jr.categorical(key, scores)
        return jax.tree.map(lambda leaf: leaf[index], found)

    def _scored(self, t, before: PyTree[Array] | None) -> tuple[PyTree[Array], Float[Array, " K"]]:
        """All choices, and logs of their probability times potential times twist."""
        found, logs = self.base.choices(t, before)
        potential = self.base.log_start if before is None else lambda x: self.base.log_potential(t, before, x)
        told = jax.vmap(lambda x: potential(x) + self._log_twist(t, x))(found)
        return found, jnp.where(jnp.isneginf(logs), -jnp.inf, logs + told)

    def _log_twist(self, t, x: PyTree[Array]) -> Float[Array, ""]:
        return jnp.where(t == self.num_steps - 1, 0.0, self.log_twist(jnp.asarray(t), x))
