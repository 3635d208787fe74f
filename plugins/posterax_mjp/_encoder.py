"""The default network: from summaries of transitions to a law of the rates, whatever the names of the states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._panel import PanelData
from ._panel_summaries import summaries_of_panel
from ._rate_law import RateLaw
from ._summaries import Summaries

_NUM_PAIR, _NUM_STATE, _NUM_ALL = 9, 5, 4
_FLOOR, _CEILING = -9.0, 7.0  # of logarithms of rates, jumps and times that are told


class PairEncoder(eqx.Module):
    """Layers on pairs of states that see a pair, its reverse, all pairs that share a state, and all.

    Any number of states, and of paths, has the same weights. What it gives for i -> j moves with i and j when labels
    are permuted. It corrects what the summaries say: a law of a rate is told in their standard deviations from them.

    - `embed`, `layers`, `head`: weights. `width`: of the layers. `num_components`: of a rate's mixture.
    """

    num_components: int = eqx.field(static=True)
    embed: Float[Array, "F W"]
    inner: Float[Array, "depth 9*W W"]
    inner_bias: Float[Array, "depth W"]
    outer: Float[Array, "depth W W"]
    head: Float[Array, "W O"]
    head_bias: Float[Array, " O"]
    first_head: Float[Array, "W 1"]

    @staticmethod
    def init(width: int = 64, depth: int = 4, num_components: int = 3, *, key: PRNGKeyArray) -> "PairEncoder":
        """With random weights; at first it says what the summaries say."""
        keys = jr.split(key, 5)
        inputs, outputs = _NUM_PAIR + 2 * _NUM_STATE + _NUM_ALL + 1, 1 + 3 * num_components
        normal = lambda key, *shape: jr.normal(key, shape) / jnp.sqrt(shape[-2])  # noqa: E731
        spread = jnp.linspace(-0.5, 0.5, num_components)
        bias = jnp.concatenate([jnp.array([2.0]), spread, jnp.zeros(2 * num_components)])
        return PairEncoder(
            num_components, normal(keys[0], inputs, width), normal(keys[1], depth, 9 * width, width),
            jnp.zeros((depth, width)), 0.3 * normal(keys[2], depth, width, width),
            0.1 * normal(keys[3], width, outputs), bias, 0.1 * normal(keys[4], width, 1),
        )  # fmt: skip

    @staticmethod
    def read(panel: PanelData, noise: float | None) -> Summaries:
        """What it reads of a panel."""
        return summaries_of_panel(panel, noise)

    def __call__(self, summaries: Summaries) -> RateLaw:
        """The law of rates in units of 1 / horizon, and of the first state."""
        h = _features(summaries) @ self.embed
        size = h.shape[0]
        other = ~jnp.eye(size, dtype=bool)[..., None]

        def layer(h, weights):
            inner, bias, outer = weights
            n = _standardised(h)
            seen = jnp.where(other, n, 0.0)
            rows, columns = (jnp.sum(seen, axis) / (size - 1) for axis in (1, 0))
            every = jnp.broadcast_to(jnp.mean(rows, 0), n.shape)
            at = lambda values, axis: jnp.broadcast_to(jnp.expand_dims(values, axis), n.shape)  # noqa: E731
            near = [
                n,
                n.swapaxes(0, 1),
                at(rows, 1),
                at(columns, 0),
                at(columns, 1),
                at(rows, 0),
                at(_own(n), 1),
                at(_own(n), 0),
                every,
            ]
            return h + jax.nn.gelu(jnp.concatenate(near, -1) @ inner + bias) @ outer, None

        h, _ = jax.lax.scan(layer, h, (self.inner, self.inner_bias, self.outer))
        told = _standardised(h)
        edge, *rest = jnp.split(told @ self.head + self.head_bias, (1,), -1)
        shift, sharper, weight = jnp.split(rest[0], 3, -1)
        sds = jnp.clip(summaries.sds, 0.003, 2.0)[..., None]
        log_mean = jnp.clip(summaries.log_rates, _FLOOR, _CEILING)[..., None] + sds * shift
        log_shape = -2 * jnp.log(sds) + sharper  # a gamma law of shape a has log sd about a^(-1/2)
        firsts = _own(told) @ self.first_head
        return RateLaw(edge[..., 0], log_mean, log_shape, weight, firsts[:, 0])


def _features(summaries: Summaries) -> Float[Array, "k k F"]:
    size = len(summaries.firsts)
    log = lambda values: jnp.clip(jnp.log(values + 0.01), _FLOOR, 12.0) / 3  # noqa: E731
    sds = jnp.clip(summaries.sds, 0.003, 3.0)
    rates = jnp.clip(summaries.log_rates, _FLOOR, _CEILING)
    pair = [
        log(summaries.counts), rates / 3, jnp.exp(rates) / (1 + jnp.exp(rates)), sds, jnp.log(sds) / 3,
        jnp.log(jnp.clip(summaries.alone, 0.003, 3.0)) / 3, log(summaries.jumps), rates - jnp.log(10.0) > 0,
        rates / jnp.maximum(sds, 0.1) / 10,
    ]  # fmt: skip
    own = jnp.eye(size)
    leaving = summaries.counts.sum(1)
    state = [
        log(summaries.dwells), log(leaving), log(jnp.diagonal(summaries.counts)), log(summaries.firsts),
        summaries.firsts / jnp.maximum(summaries.firsts.sum(), 1.0),
    ]  # fmt: skip
    everything = [log(summaries.total), log(summaries.firsts.sum()), jnp.log(summaries.noise + 1e-3) / 3, size / 8.0]
    states = jnp.stack(state, -1)
    shape = (size, size)
    return jnp.concatenate(
        [
            jnp.where(own[..., None] > 0, 0.0, jnp.stack(pair, -1)),
            jnp.broadcast_to(states[:, None], (*shape, _NUM_STATE)),
            jnp.broadcast_to(states[None], (*shape, _NUM_STATE)),
            jnp.broadcast_to(jnp.stack([jnp.asarray(v, float) for v in everything]), (*shape, _NUM_ALL)),
            own[..., None],
        ],
        -1,
    )


def _own(pairs: Float[Array, "k k W"]) -> Float[Array, "k W"]:
    """Entries of the diagonal."""
    return jnp.diagonal(pairs, axis1=0, axis2=1).T


def _standardised(h: Array) -> Array:
    centred = h - jnp.mean(h, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
