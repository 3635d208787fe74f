"""Draws, one variable after another: filling what is missing, log probabilities along orders, block Gibbs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._marginals import Marginals
from ._orders import random_ranks, ranks_by_group

_Rows = Int[Array, "B D"]
_Seen = Bool[Array, "B D"]


def complete(
    model: Marginals, x: _Rows, observed: _Seen, *, key: PRNGKeyArray, ranks: Int[Array, "B D"] | None = None
) -> tuple[_Rows, Float[Array, " B"]]:
    """Draw what is not observed, one variable after another, each given all before it.

    - `ranks`: the order, one a row; at random by default. Observed variables come first whatever it says.

    With the draws their log probabilities given what was observed. As many passes as the most that a row lacks.
    """
    key, key_order = jr.split(key)
    ranks = random_ranks(x.shape, key=key_order) if ranks is None else ranks
    ranks = ranks_by_group(jnp.where(observed, 0, 1), ranks)
    known = jnp.sum(observed, -1)

    def one(t, carry):
        x, log_prob = carry
        step, logs = _next(model, x, ranks, t)
        drawn = jr.categorical(jr.fold_in(key, t), logs).astype(x.dtype)
        fresh = t >= known
        x = jnp.where(fresh[:, None] & (jnp.arange(x.shape[1]) == step[:, None]), drawn[:, None], x)
        return x, log_prob + jnp.where(fresh, _at(logs, drawn), 0.0)

    return jax.lax.fori_loop(jnp.min(known), x.shape[1], one, (jnp.where(observed, x, 0), jnp.zeros(len(x))))


def log_prob_in_order(
    model: Marginals, x: _Rows, ranks: Int[Array, "B D"], first: Int[Array, " B"], last: Int[Array, " B"]
) -> Float[Array, " B"]:
    """Log probability of the variables at places `first`, ..., `last` - 1 of an order given those before them."""

    def one(t, total):
        step, logs = _next(model, x, ranks, t)
        own = _at(logs, jnp.take_along_axis(x, step[:, None], -1)[:, 0])
        return total + jnp.where((first <= t) & (t < last), own, 0.0)

    return jax.lax.fori_loop(jnp.min(first), jnp.max(last), one, jnp.zeros(len(x)))


def log_prob_by_orders(
    model: Marginals, x: _Rows, target: _Seen, given: _Seen, num_orders: int, *, key: PRNGKeyArray
) -> Float[Array, "orders B"]:
    """Log p(x_A | x_B) along random orders of the variables of A; row by row, each order an estimate of its own."""

    def one(key):
        group = jnp.where(given, 0, jnp.where(target, 1, 2))
        ranks = ranks_by_group(group, random_ranks(x.shape, key=key))
        known = jnp.sum(given, -1)
        return log_prob_in_order(model, x, ranks, known, known + jnp.sum(target & ~given, -1))

    return jax.lax.map(one, jr.split(key, num_orders))


def refreshed(
    model: Marginals, x: _Rows, num: int, *, key: PRNGKeyArray, log_weight: Callable | None = None
) -> tuple[_Rows, Float[Array, " B"]]:
    """One transition of block Gibbs: `num` variables of each row, at random, are erased and drawn anew, one by one.

    - `log_weight`: log f of rows, `(B, D)` to `(B,)`: then a Metropolis step accepts or refuses the block, so that the
      transition leaves f / Z as it is, whatever the conditionals are. Without it their own law is the target.

    With the rows, the share accepted of each: 0 or 1.
    """
    key, key_order, key_accept = jr.split(key, 3)
    size = x.shape[1]
    ranks = random_ranks(x.shape, key=key_order)

    def one(t, carry):
        new, forward, backward = carry
        step, logs = _next(model, new, ranks, t)
        drawn = jr.categorical(jr.fold_in(key, t), logs).astype(x.dtype)
        if log_weight is not None:  # the way back erases the same block and draws the old values in the same order
            old = _next(model, x, ranks, t)[1]
            forward = forward + _at(logs, drawn)
            backward = backward + _at(old, jnp.take_along_axis(x, step[:, None], -1)[:, 0])
        return jnp.where(jnp.arange(size) == step[:, None], drawn[:, None], new), forward, backward

    zeros = jnp.zeros(len(x))
    new, forward, backward = jax.lax.fori_loop(size - num, size, one, (x, zeros, zeros))
    if log_weight is None:
        return new, jnp.ones(len(x))
    log_ratio = log_weight(new) - log_weight(x) + backward - forward
    accepted = jnp.log(jr.uniform(key_accept, zeros.shape)) < log_ratio
    return jnp.where(accepted[:, None], new, x), accepted.astype(zeros.dtype)


def _next(
    model: Marginals, x: _Rows, ranks: Int[Array, "B D"], t: Array
) -> tuple[Int[Array, " B"], Float[Array, "B K"]]:
    """The variable at place t of each row's order, and the log probabilities of its values given those before it."""
    step = jnp.argmax(ranks == t, -1)
    logs = jax.vmap(model.log_probs)(x, ranks < t)
    return step, logs[jnp.arange(len(x)), step]


def _at(logs: Float[Array, "B K"], values: Int[Array, " B"]) -> Float[Array, " B"]:
    return jnp.take_along_axis(logs, values[:, None], -1)[:, 0]
