"""What a method may answer about one data set, distributions and draws of any kind, brought into one form."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .._arviz import bulk_ess
from .._draws import Draws, flatten_chains


class Answer(NamedTuple):
    """What the method says about one data set.

    - `draws`: by the parameter's names, `(L, *event)`.
    - `log_weights`: `(L,)`, None where all weigh the same.
    - `log_q`, `log_q_true`: the method's log density of its draws, `(L,)`, and of the parameter; None without one.
    """

    draws: dict[str, Array]
    log_weights: Array | None = None
    log_q: Array | None = None
    log_q_true: Array | None = None


def as_answer(said: Any, parameter: Mapping[str, Any], num_draws: int, key) -> tuple[Answer, bool, Any]:
    """What a method returned as an `Answer`; whether it is of JAX arrays alone; its effective size and the one needed.

    Raises `TypeError` and `ValueError` where it does not fit the parameter.
    """
    if isinstance(said, Draws):
        flat = _matched(flatten_chains(said.values), parameter)
        if said.log_weights is not None:
            return Answer(flat, jnp.asarray(said.flat_log_weights())), False, (said.effective_sample_size(), 25.0)
        kept = said.replace(values={name: value for name, value in said.values.items() if name in parameter})
        return Answer(_thinned(flat, num_draws)), False, (worth(kept), 0.5 * num_draws)
    if callable(getattr(said, "sample", None)):
        raw = said.sample(key, (num_draws,))
        draws, (log_q, log_q_true) = _matched(raw, parameter), _densities(said, raw, parameter, num_draws)
        jaxy = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(raw))
        return Answer(draws, None, log_q, log_q_true), jaxy, None
    if isinstance(said, Mapping) or hasattr(said, "shape"):
        jaxy = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(said))
        return Answer(_thinned(_matched(said, parameter), num_draws)), jaxy, None
    raise TypeError(
        "`method` must return a distribution (with `sample(key, shape)`), Draws, or arrays of draws by name; got "
        f"{type(said).__name__}."
    )


def _matched(raw: Any, parameter: Mapping[str, Any]) -> dict[str, Array]:
    """Draws by the parameter's names, `(L, *event)`: of one array for a single name, or flattened as `ravel_pytree`."""
    shapes = {name: np.shape(value) for name, value in parameter.items()}
    if not isinstance(raw, Mapping):
        if len(shapes) == 1 and np.shape(raw)[1:] == next(iter(shapes.values())):
            return {next(iter(shapes)): jnp.asarray(raw)}
        flat, unravel = ravel_pytree(dict(parameter))
        if np.ndim(raw) == 2 and np.shape(raw)[1:] == flat.shape:
            return jax.vmap(unravel)(jnp.asarray(raw).astype(flat.dtype))
        came = f"an array of shape {np.shape(raw)}"
    elif all(name in raw and np.shape(raw[name])[1:] == shape for name, shape in shapes.items()):
        return {name: raw[name] for name in shapes}
    else:
        came = f"{ {name: np.shape(value) for name, value in raw.items()} }"
    raise ValueError(
        f"The draws of `method` do not match the parameter, {shapes} after an axis of draws; got {came}. Use the "
        "names and shapes of the joint's prior."
    )


def _thinned(draws: dict[str, Array], num_draws: int) -> dict[str, Array]:
    made = len(next(iter(draws.values())))
    if made < num_draws:
        raise ValueError(f"`method` returned {made} draws; `num_draws` asks for {num_draws}. Lower it, or draw more.")
    index = ((np.arange(num_draws) + 0.5) * made / num_draws).astype(int)
    return draws if made == num_draws else {name: value[index] for name, value in draws.items()}


def _densities(said: Any, raw: Any, parameter: Mapping[str, Any], num_draws: int):
    """The log density of the draws and of the parameter; twice None where there is none."""
    if not callable(getattr(said, "log_prob", None)):
        return None, None
    if isinstance(raw, Mapping):
        truth = dict(parameter)
    elif len(parameter) == 1 and np.shape(raw)[1:] == np.shape(next(iter(parameter.values()))):
        truth = next(iter(parameter.values()))
    else:
        truth = ravel_pytree(dict(parameter))[0]
    try:
        log_q, log_q_true = said.log_prob(raw), said.log_prob(truth)
    except NotImplementedError:
        return None, None
    if np.shape(log_q) != (num_draws,) or np.shape(log_q_true) != ():
        raise ValueError(
            f"`log_prob` of the method's distribution must give one number for each draw, {(num_draws,)} and (); got "
            f"{np.shape(log_q)} and {np.shape(log_q_true)}. With NumPyro: `.to_event(...)` makes axes one event."
        )
    return log_q, log_q_true


def worth(draws: Draws) -> float:
    """The smallest effective sample size of a scalar; 1 where chains stand still."""
    sizes = []
    for name, size in bulk_ess(draws).items():
        moves = np.ptp(draws.values[name], axis=(0, 1)) > 0  # ArviZ has all draws of a constant for independent
        sizes.append(np.ravel(np.where(moves, np.nan_to_num(size, nan=1.0), 1.0)))
    return float(np.min(np.concatenate(sizes)))


def place(less: np.ndarray, equal: np.ndarray, log_weights: np.ndarray | None, uniform: np.ndarray) -> np.ndarray:
    r"""Where the truth is among the draws, on (0, 1): exactly uniform where truth and draws have one distribution.

    $u = (F_< + U (F_= + g)) / (1 + g)$ with $F$ the weight of the draws below and level with the truth, $U$ uniform and
    $g$ the weight of the truth itself: $1/L$ for equal weights, so that $u$ = (rank + U) / (L + 1) with ties broken at
    random. For weighted draws the truth's weight is not known; $g$ = 1/ESS is its mean given the weights at hand, and
    $u$ is uniform but for errors of the order of 1/ESS.

    - `less`, `equal`: `(n, L, k)`, which draws are below the truth, and level with it.
    - `log_weights`: `(n, L)` or None; `uniform`: `(n, k)`.
    """
    if log_weights is None:
        weights = np.full(less.shape[:2], 1 / less.shape[1])
    else:
        weights = np.exp(log_weights.astype(float) - log_weights.max(axis=1, keepdims=True))
        weights = weights / weights.sum(axis=1, keepdims=True)
    ghost = np.sum(weights**2, axis=1)[:, None]
    below, level = (np.einsum("nl,nlk->nk", weights, mask) for mask in (less, equal))
    return (below + uniform * (level + ghost)) / (1 + ghost)
