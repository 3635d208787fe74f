"""Objective: what training minimises."""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class Objective(eqx.Module):
    """A scalar loss of a model on a batch, perhaps random, perhaps with a memory.

    Settings live in the objective; what it must remember between steps (persistent chains, replay buffers, running
    means) in the state that `init` makes: a PyTree of arrays, without keys, or None. `posterax.train` owns the loop.

    - `precision`: 64 where the loss needs float64, else None.
    """

    precision: ClassVar[int | None] = None

    def init(self, model: PyTree, *, key: PRNGKeyArray) -> PyTree:
        """The first state; None for most."""
        del model, key

    @abc.abstractmethod
    def loss(
        self, model: PyTree, batch: Any, state: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
        """The loss, and with it the next state and metrics: scalars by name, recorded at every step."""
