"""Feynman-Kac models: what every particle method here runs on."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree


class FeynmanKac(eqx.Module):
    r"""A Markov chain whose paths are weighted by potentials.

    Paths $x_0, \dots, x_{T-1}$ have the law proportional to
    $M_0(dx_0) G_0(x_0) \prod_{t=1}^{T-1} M_t(x_{t-1}, dx_t) G_t(x_{t-1}, x_t)$, and the integral of that is the
    evidence. Write for one particle, any PyTree of arrays; the methods batch. Times are counted from 0 and traced.

    Source: Del Moral (2004), *Feynman-Kac Formulae*; Chopin and Papaspiliopoulos (2020), *An Introduction to Sequential
    Monte Carlo*, chapter 5.
    """

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """T, the number of times."""

    @abc.abstractmethod
    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """A particle drawn from $M_0$."""

    @abc.abstractmethod
    def log_start(self, x: PyTree[Array]) -> Float[Array, ""]:
        """The log potential $G_0(x)$."""

    @abc.abstractmethod
    def move(self, t: Int[Array, ""], before: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        """A particle at time t >= 1 drawn from $M_t$, given the one `before` it."""

    @abc.abstractmethod
    def log_potential(self, t: Int[Array, ""], before: PyTree[Array], x: PyTree[Array]) -> Float[Array, ""]:
        """The log potential $G_t$ at time t >= 1."""

    def starts(self, num: int, *, key: PRNGKeyArray) -> PyTree[Array]:
        """`num` independent particles from `start`; override it where they are cheaper to draw together."""
        return jax.vmap(lambda k: self.start(key=k))(jr.split(key, num))

    def moves(self, t: Int[Array, ""], before: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        """`move` of each particle of `before`, independently; override it where they are cheaper to draw together."""
        num = jax.tree.leaves(before)[0].shape[0]
        return jax.vmap(lambda x, k: self.move(t, x, key=k))(before, jr.split(key, num))

    def log_ahead(self, t: Int[Array, ""], x: PyTree[Array]) -> Float[Array, ""] | None:
        r"""How promising a particle at time t is: the log of a guess of $\int M_{t+1}(x, dx') G_{t+1}(x, x')$.

        Ancestors are drawn by weight times this guess, and it is divided out again. None for no guess.
        """
        return None

    def choices(self, t: Int[Array, ""], before: PyTree[Array] | None) -> tuple[PyTree[Array], Float[Array, " K"]]:
        """All particles that the one `before` can move to, leading axis K, with logs of their probabilities in $M_t$.

        At time 0 there is none before (None), and they are those of $M_0$. `Twisted` needs them.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no `choices`, the list of all particles that one can move to, which `Twisted` "
            "needs. Write it, or let the guess choose ancestors alone: `Auxiliary(model, ahead=log_twist)`."
        )

    def log_transition(self, t: Int[Array, ""], before: PyTree[Array], x: PyTree[Array]) -> Float[Array, ""]:
        """Log of the density of $M_t G_t$ from `before` to `x`, up to what does not depend on `before`.

        Backward simulation and ancestor sampling need it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no `log_transition`, the density of a move from one particle to another, which "
            "backward simulation and ancestor sampling need. Write it, or use genealogies "
            '(`method="genealogy"`, `ancestor_sampling=False`).'
        )


def require_model(model: Any, what: str) -> FeynmanKac:
    """`model`, or a `TypeError` or `ValueError` in the name of `what`."""
    if not isinstance(model, FeynmanKac):
        raise TypeError(
            f"{what} runs on a FeynmanKac model; got {type(model).__name__}. For a state-space model and its "
            "observations: `Bootstrap(model, observed)`."
        )
    return model
