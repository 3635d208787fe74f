"""Where particles come from: their history, and the paths that it holds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ._draw import index_by_weight
from ._feynman_kac import FeynmanKac


class History(eqx.Module):
    """All populations of a run.

    - `particles`: leading axes `(time, n)`.
    - `log_weights`: `(time, n)`, with any constant at each time.
    - `ancestors`: `(time, n)`: which particle of the time before each one continues; at time 0, itself.
    """

    particles: PyTree[Array]
    log_weights: Float[Array, "time n"]
    ancestors: Int[Array, "time n"]


def begun(num_steps: int, particles: PyTree[Array], log_weights: Float[Array, " n"]) -> History:
    """Room for `num_steps` populations, with the first."""

    def room(leaf):
        return jnp.zeros((num_steps, *leaf.shape), leaf.dtype).at[0].set(leaf)

    first = jnp.arange(log_weights.size, dtype=jnp.int32)
    return History(*jax.tree.map(room, (particles, log_weights, first)))


def written(history: History, t, particles, log_weights, ancestors) -> History:
    """With the population of time t."""
    new = History(particles, log_weights, ancestors)
    return jax.tree.map(lambda room, leaf: room.at[t].set(leaf), history, new)


def genealogies(history: History, last: Int[Array, " num"] | None = None) -> PyTree[Array]:
    """The paths that lead to particles of the last time, `(num, time, ...)`.

    - `last`: which ones; all by default.

    The farther back, the fewer are different: all descend from the few that resampling left.
    """
    index = jnp.arange(history.log_weights.shape[1], dtype=jnp.int32) if last is None else last
    _, indices = jax.lax.scan(lambda i, ancestors: (ancestors[i], i), index, history.ancestors, reverse=True)
    return _picked(history.particles, indices)


def backward_draws(model: FeynmanKac, history: History, num: int, *, key: PRNGKeyArray) -> PyTree[Array]:
    """`num` paths by backward simulation, `(num, time, ...)`: each time, any particle may be the one before.

    Asymptotically exact draws of the smoothing law that do not share ancestors. Costs n * num transitions a time.

    Source: Godsill, Doucet and West (2004), doi:10.1198/016214504000000151.
    """
    key_last, key_rest = jr.split(key)
    log_weights = history.log_weights
    times = jnp.arange(log_weights.shape[0] - 1)
    last = index_by_weight(log_weights[-1], num, key=key_last)
    last_particles = jax.tree.map(lambda leaf: leaf[-1], history.particles)

    def back(after, item):
        t, particles, log_weights, key = item
        return_to = lambda x: jax.vmap(lambda before: model.log_transition(t + 1, before, x))(particles)  # noqa: E731
        transitions = jax.vmap(return_to)(after)
        index = jax.vmap(lambda row, k: index_by_weight(log_weights + row, key=k))(transitions, jr.split(key, num))
        return jax.tree.map(lambda leaf: leaf[index], particles), index

    earlier = jax.tree.map(lambda leaf: leaf[:-1], (history.particles, log_weights))
    first = jax.tree.map(lambda leaf: leaf[last], last_particles)
    keys = jr.split(key_rest, log_weights.shape[0])[1:]
    _, indices = jax.lax.scan(back, first, (times, *earlier, keys), reverse=True)
    return _picked(history.particles, jnp.concatenate([indices, last[None]]))


def _picked(particles: PyTree[Array], indices: Int[Array, "time num"]) -> PyTree[Array]:
    """Paths of particles by their index at each time, the paths' axis first."""

    def one(leaf):
        picked = jax.vmap(lambda row, index: row[index])(leaf, indices)
        return jnp.swapaxes(picked, 0, 1)

    return jax.tree.map(one, particles)
