"""Orders of the variables, and the partial assignments along them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._marginals import Marginals


def random_ranks(
    shape: tuple[int, ...], *, key: PRNGKeyArray, last: Bool[Array, "B D"] | None = None
) -> Int[Array, "B D"]:
    """The place of each variable in a uniformly random order, one order a row.

    - `last`: variables that come after all others, in random order too.
    """
    noise = jr.uniform(key, shape)
    return _places(noise if last is None else noise + last)


def ranks_by_group(group: Int[Array, "B D"], ranks: Int[Array, "B D"]) -> Int[Array, "B D"]:
    """Places in an order that goes group by group, and within a group as `ranks` do."""
    return _places(group * ranks.shape[-1] + ranks)


def _places(values: Array) -> Int[Array, "B D"]:
    return jnp.argsort(jnp.argsort(values, -1), -1)


def random_subsets(shape: tuple[int, ...], *, key: PRNGKeyArray) -> Bool[Array, "B D"]:
    """Subsets whose size is uniform on 0, ..., D, and that are uniform given their size."""
    one, two = jr.split(key)
    sizes = jr.randint(two, (shape[0], 1), 0, shape[1] + 1)
    return random_ranks(shape, key=one) < sizes


class Path:
    """Partial assignments x_{S_t}, t = `start`, ..., `start` + `span`, with one more variable observed at each step.

    - `x`: `(B, D)`, full assignments. `ranks`: `(B, D)`, place of each variable in its row's order. `start`: `(B,)`.

    Fields: `states`, `(B, span + 1, D)`, which variables are observed; `steps`, `(B, span)`, which one comes next.
    """

    def __init__(self, x: Int[Array, "B D"], ranks: Int[Array, "B D"], start: Int[Array, " B"], span: int):
        times = start[:, None] + jnp.arange(span + 1)
        self.x = x
        self.states = ranks[:, None, :] < times[:, :, None]
        self.steps = jnp.take_along_axis(jnp.argsort(ranks, -1), times[:, :-1], -1)

    def log_conditionals(self, model: Marginals) -> Float[Array, "B span"]:
        """Log p(x_d | x_{S_t}) of the variable d that comes next, at each step."""
        logs = self._each(model.log_probs, self.states[:, :-1])
        own = jnp.take_along_axis(self.x, self.steps, -1)
        rows, times = jnp.indices(self.steps.shape)
        return logs[rows, times, self.steps, own]

    def log_marginals(self, model: Marginals) -> Float[Array, "B span+1"]:
        """The model's log p(x_{S_t}), not normalised, at each state."""
        return self._each(model.log_marginal, self.states)

    def _each(self, answer: Callable, states: Bool[Array, "B T D"]) -> Float[Array, "B T ..."]:
        x = jnp.broadcast_to(self.x[:, None], states.shape)  # flat: batches of batches take a tenth longer
        found = jax.vmap(answer)(*(a.reshape(-1, a.shape[-1]) for a in (x, states)))
        return found.reshape(*states.shape[:2], *found.shape[1:])


def random_starts(num: int, size: int, span: int, *, key: PRNGKeyArray) -> Int[Array, " num"]:
    """Where windows of `span` steps begin along orders of `size` steps.

    Windows that would reach beyond an end are moved to it, so that the ends are in more of them.
    """
    return jnp.clip(jr.randint(key, (num,), 1 - span, size), 0, size - span)
