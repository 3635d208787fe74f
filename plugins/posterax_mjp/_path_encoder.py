"""The paper's network: a recurrent encoder of paths, and attention over them."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._intervals import roomy
from ._panel import PanelData
from ._rate_law import RateLaw

_MOST_STATES, _NUM_QUERIES, _HIDDEN = 6, 16, 128


class PathRows(eqx.Module):
    """Paths side by side, the rows of each packed to the front.

    - `labels`: `(K, L)`. `times`: `(K, L)`, since the first row of a path, in units of the horizon. `there`: `(K, L)`,
      whether there is such a row. `num_states`: how many states there are.
    """

    labels: Int[Array, "K L"]
    times: Float[Array, "K L"]
    there: Bool[Array, "K L"]
    num_states: int = eqx.field(static=True)


class PathEncoder(eqx.Module):
    """A bidirectional LSTM reads each path; learned queries attend to what it says of all of them.

    The order of states matters to it, and there are at most six. After Berghaus et al. (2024): tokens of a label, its
    time and the time since the row before; the outputs of both directions at the last row; 16 queries of one head,
    side by side, and the number of paths over 100; two networks of two layers with SELU. Here a third number for each
    pair of states tells whether its jump can be made, and the rate is gamma with the mean and standard deviation that
    the network gives it.

    Source: Berghaus et al. (2024), arXiv:2406.06419, section 3 and its published configurations.
    """

    forward: eqx.nn.LSTMCell
    backward: eqx.nn.LSTMCell
    queries: Float[Array, "16 A"]
    keys: Float[Array, "2*W A"]
    values: Float[Array, "2*W A"]
    rate_head: eqx.nn.MLP
    first_head: eqx.nn.MLP
    most_states: ClassVar[int] = _MOST_STATES

    @staticmethod
    def init(width: int = 64, *, key: PRNGKeyArray) -> "PathEncoder":
        """With random weights; `width`: of each direction."""
        keys = jr.split(key, 7)
        normal = lambda key, *shape: jr.normal(key, shape) / jnp.sqrt(shape[-2])  # noqa: E731
        pooled, pairs = _NUM_QUERIES * width + 1, _MOST_STATES * (_MOST_STATES - 1)

        def head(outputs, key):
            return _lecun(eqx.nn.MLP(pooled, outputs, _HIDDEN, 2, jax.nn.selu, key=key), key)

        return PathEncoder(
            _orthogonal(width, keys[0]), _orthogonal(width, keys[1]), jr.normal(keys[2], (_NUM_QUERIES, width)),
            normal(keys[3], 2 * width, width), normal(keys[4], 2 * width, width), head(3 * pairs, keys[5]),
            head(_MOST_STATES, keys[6]),
        )  # fmt: skip

    @staticmethod
    def read(panel: PanelData, noise: float | None) -> PathRows:
        """What it reads of a panel; the share of wrong labels it has learned."""
        del noise
        if panel.num_states > _MOST_STATES:
            raise ValueError(
                f"This network reads at most {_MOST_STATES} states; got {panel.num_states}. The other one, "
                '`encoder="pairs"`, reads any number.'
            )
        first = panel.time[~panel.follows]
        since = panel.time - np.repeat(first, np.diff(np.flatnonzero(np.append(~panel.follows, True))))
        room = lambda rows: np.pad(rows, [(0, roomy(size) - size) for size in rows.shape])  # noqa: E731
        there = panel.padded(np.ones(len(panel.time), bool), False)
        times = panel.padded((since / panel.horizon).astype(np.float32), 0.0)
        return PathRows(
            jnp.asarray(room(panel.padded(panel.state, 0))), jnp.asarray(room(times)), jnp.asarray(room(there)),
            panel.num_states,
        )  # fmt: skip

    def __call__(self, rows: PathRows) -> RateLaw:
        """The law of rates in units of 1 / horizon, and of the first state."""
        before = jnp.concatenate([rows.times[:, :1], rows.times[:, :-1]], 1)
        tokens = jnp.concatenate(
            [jax.nn.one_hot(rows.labels, _MOST_STATES), rows.times[..., None], (rows.times - before)[..., None]], -1
        )
        paths = jax.vmap(self._path)(tokens, rows.there)
        seen = rows.there[:, 0]
        scores = self.queries @ (paths @ self.keys).T / jnp.sqrt(self.queries.shape[-1])
        attention = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
        pooled = jnp.append((attention @ (paths @ self.values)).ravel(), jnp.sum(seen) / 100)
        told = jnp.zeros((_MOST_STATES, _MOST_STATES, 3))
        start, end = np.nonzero(~np.eye(_MOST_STATES, dtype=bool))
        size = rows.num_states
        told = told.at[start, end].set(self.rate_head(pooled).reshape(-1, 3))[:size, :size]
        log_mean, log_sd, edge = jnp.moveaxis(told, -1, 0)
        log_shape = jnp.clip(2 * (log_mean - log_sd), -4.0, 12.0)[..., None]
        return RateLaw(
            edge, jnp.clip(log_mean, -9.0, 7.0)[..., None], log_shape, jnp.zeros_like(log_shape),
            self.first_head(pooled)[:size],
        )  # fmt: skip

    def _path(self, tokens: Float[Array, "L F"], there: Bool[Array, " L"]) -> Float[Array, " 2*W"]:
        """Both outputs at the last row: the backward one has seen no other there."""
        begin = (jnp.zeros(self.forward.hidden_size), jnp.ones(self.forward.hidden_size))

        def step(state, given):
            token, there = given
            after = self.forward(token, state)
            return jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state), None

        (ahead, _), _ = jax.lax.scan(step, begin, (tokens, there))
        last = tokens[jnp.maximum(jnp.sum(there) - 1, 0)]
        return jnp.concatenate([ahead, self.backward(last, begin)[0]])


def _orthogonal(width: int, key: PRNGKeyArray) -> eqx.nn.LSTMCell:
    cell = eqx.nn.LSTMCell(_MOST_STATES + 2, width, key=key)
    one, two = jr.split(key)
    make = jax.nn.initializers.orthogonal()
    weights = (make(one, cell.weight_ih.shape), make(two, cell.weight_hh.shape), jnp.zeros(4 * width))
    return eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, weights)


def _lecun(network: eqx.nn.MLP, key: PRNGKeyArray) -> eqx.nn.MLP:
    make = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    keys = jr.split(key, len(network.layers))
    weights = [make(one, layer.weight.shape) for one, layer in zip(keys, network.layers, strict=True)]
    biases = [jnp.zeros(layer.weight.shape[0]) for layer in network.layers]
    where = lambda n: [layer.weight for layer in n.layers] + [layer.bias for layer in n.layers]  # noqa: E731
    return eqx.tree_at(where, network, weights + biases)
