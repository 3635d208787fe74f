"""Chains by block Gibbs with the learned conditionals, started anew where they do not mix."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from ._energy_objectives import projections, split_r_hat
from ._marginals import Marginals
from ._sampling import refreshed

WINDOW = 64


def run_chains(
    model: Marginals,
    x: Int[Array, "C D"],
    num_draws: int,
    refresh: int,
    threshold: float,
    log_weight: Callable | None,
    *,
    key: PRNGKeyArray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """States `(C, num_draws, D)`, log f or zeros `(C, num_draws)`, accepted `(C, num_draws)`, and renewals.

    After each window of 64 draws a split R-hat above `threshold` has all variables of all chains proposed at once;
    the renewals are the numbers of draws after which that happened.
    """
    states, logs, taken, renewed = [], [], [], []
    for start in range(0, num_draws, WINDOW):
        steps = jr.fold_in(key, start)
        x, rows = _window(model, x, refresh, log_weight, key=steps)
        watched, kept = np.asarray(split_r_hat(rows[3])), min(WINDOW, num_draws - start)
        for store, row in zip((states, logs, taken), rows, strict=False):
            store.append(np.asarray(row[:kept]))
        if watched > threshold and start + WINDOW < num_draws:
            x = _anew(model, x, log_weight, key=jr.fold_in(steps, WINDOW))
            renewed.append(start + WINDOW)
    joined = [np.swapaxes(np.concatenate(rows), 0, 1) for rows in (states, logs, taken)]
    return joined[0], joined[1], joined[2], renewed


@eqx.filter_jit
def _window(model: Marginals, x: Array, refresh: int, log_weight: Callable | None, *, key: PRNGKeyArray):
    def one(x, key):
        x, accepted = refreshed(model, x, refresh, key=key, log_weight=log_weight)
        log_f = jnp.zeros(len(x)) if log_weight is None else log_weight(x)
        return x, (x, log_f, accepted, projections(x, log_f))

    return jax.lax.scan(one, x, jr.split(key, WINDOW))


@eqx.filter_jit
def _anew(model: Marginals, x: Array, log_weight: Callable | None, *, key: PRNGKeyArray) -> Array:
    return refreshed(model, x, model.size, key=key, log_weight=log_weight)[0]
