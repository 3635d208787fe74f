"""Orders of the variables, and the partial assignments along them."""

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
    noise = noise if last is None else noise + last
    return jnp.argsort(jnp.argsort(noise, -1), -1)


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
        self.x, self.span, self.start = x, span, start
        times = start[:, None] + jnp.arange(span + 1)
        self.states = ranks[:, None, :] < times[:, :, None]
        order = jnp.argsort(ranks, -1)
        self.steps = jnp.take_along_axis(order, times[:, :-1], -1)

    def log_conditionals(self, model: Marginals, *, key: PRNGKeyArray | None = None) -> Float[Array, "B span"]:
        """Log p(x_d | x_{S_t}) of the variable d that comes next, at each step."""
        rows, width = self.states[:, :-1].reshape(-1, self.x.shape[-1]), self.x.shape[-1]
        values = jnp.broadcast_to(self.x[:, None], (*self.states[:, :-1].shape[:2], width)).reshape(-1, width)
        keys = None if key is None else jr.split(key, len(rows))
        logs = jax.vmap(model.log_probs)(values, rows, keys)
        own = jnp.take_along_axis(self.x, self.steps, -1).reshape(-1)
        step = self.steps.reshape(-1)
        return logs[jnp.arange(len(rows)), step, own].reshape(self.steps.shape)

    def log_marginals(self, model: Marginals) -> Float[Array, "B span+1"]:
        """The model's log p(x_{S_t}), not normalised, at each state."""
        shape = self.states.shape
        values = jnp.broadcast_to(self.x[:, None], shape).reshape(-1, shape[-1])
        return jax.vmap(model.log_marginal)(values, self.states.reshape(-1, shape[-1])).reshape(shape[:2])


def random_starts(num: int, size: int, span: int, *, key: PRNGKeyArray) -> Int[Array, " num"]:
    """Where windows of `span` steps begin along orders of `size` steps; each step is in equally many."""
    return jnp.clip(jr.randint(key, (num,), 1 - span, size), 0, size - span)
