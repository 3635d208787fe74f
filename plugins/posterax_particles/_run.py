"""A whole filter in one compiled call, and what follows from it: smoothing and forecasts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from posterax._keys import check_key
from posterax._tree import strengthen

from ._draw import index_by_weight
from ._feynman_kac import FeynmanKac, require_model
from ._filter import FilterState, _Filter
from ._history import backward_draws, genealogies
from ._state_space import StateSpaceModel


class Filtered(eqx.Module):
    """What a filter has found.

    - `state`: the last population: `.particles`, `.log_weights`, and `.history` where paths are kept.
    - `stats`: by name, `(time, ...)`: `ess`, `entropy`, `log_evidence` up to each time, `temperature`, `resampled`,
      `moves`, and filtering moments such as `states_mean`.
    - `no_evidence`: why `log_evidence` is None.
    """

    state: FilterState
    stats: dict[str, Array]
    no_evidence: str | None = eqx.field(static=True)

    @property
    def log_evidence(self) -> Float[Array, ""] | None:
        """Log of the estimated likelihood of all observations, in nats; None where it would be biased."""
        return self.state.log_evidence if self.no_evidence is None else None


@eqx.filter_jit
def run_filter(sampler: _Filter, model: FeynmanKac, *, key: PRNGKeyArray) -> Filtered:
    """Run one population of a particle filter from the first time to the last.

    Can be jitted, and batched with `jax.vmap` over keys or models: `posterax.sample` is for what is to be watched,
    interrupted and handed to ArviZ.

    - `sampler`: a `ParticleFilter` or `EntropicParticleFilter`.
    - `model`: a `FeynmanKac` model.
    """
    if not isinstance(sampler, _Filter):
        raise TypeError(f"`sampler` must be a ParticleFilter or EntropicParticleFilter; got {type(sampler).__name__}.")
    model = require_model(model, "run_filter")
    key_init, key_steps = jr.split(check_key(key, "run_filter"))
    state = strengthen(sampler.init(model, key=key_init))

    def step(state, key):
        state, info = sampler.step(model, state, key=key)
        return strengthen(state), info

    first = sampler.first_info(state)
    state, rest = jax.lax.scan(step, state, jr.split(key_steps, model.num_steps)[1:])
    stats = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, rest)
    return Filtered(state, stats, sampler.no_evidence)


@eqx.filter_jit
def smooth(
    filtered: Filtered, model: FeynmanKac, num: int, *, key: PRNGKeyArray, method: str = "backward"
) -> PyTree[Array]:
    """Equally weighted draws of the whole path given all observations, `(num, time, ...)`.

    - `filtered`: of a filter with `paths=True`.
    - `num`: how many paths.
    - `method`: "backward" simulates backwards, at a cost of n * num transitions a time; "genealogy" follows the
      ancestors of the last particles, which is free, but leaves few different states at early times.
    """
    history = filtered.state.history
    if history is None:
        raise ValueError("Smoothing needs the populations of all times: filter with `paths=True`.")
    if method not in {"backward", "genealogy"}:
        raise ValueError(f'`method` must be "backward" or "genealogy"; got {method!r}.')
    key = check_key(key, "smooth")
    if method == "backward":
        return backward_draws(model, history, num, key=key)
    return genealogies(history, index_by_weight(history.log_weights[-1], num, key=key))


@eqx.filter_jit
def forecast(
    filtered: Filtered, model: StateSpaceModel, *, steps: int, num: int, key: PRNGKeyArray
) -> tuple[PyTree[Array], PyTree[Array]]:
    """Draws of the states and observations that follow the last time: both `(num, steps, ...)`.

    - `filtered`: of any filter of that model.
    - `model`: the state-space model; its `transition` and `emission` are asked for the times after the last.
    - `steps`, `num`: how many times, how many draws.
    """
    if not isinstance(model, StateSpaceModel):
        raise TypeError(f"`model` must be the StateSpaceModel; got {type(model).__name__}.")
    key_start, key_steps = jr.split(check_key(key, "forecast"))
    state = filtered.state
    index = index_by_weight(state.log_weights, num, key=key_start)
    first = jax.tree.map(lambda leaf: leaf[index], state.particles)

    def one(x, key):
        def step(x, item):
            t, key = item
            key_move, key_see = jr.split(key)
            x = model.transition(t, x).sample(key_move)
            return x, (x, model.emission(t, x).sample(key_see))

        return jax.lax.scan(step, x, (state.t + 1 + jnp.arange(steps), jr.split(key, steps)))[1]

    found: Any = jax.vmap(one)(first, jr.split(key_steps, num))
    return found
