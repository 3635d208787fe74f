"""Independent draws of an index by its weight, at a cost of n + num instead of n * num."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray


def index_by_weight(
    log_weights: Float[Array, " n"], num: int | None = None, *, key: PRNGKeyArray
) -> Int[Array, "*num"]:
    """Indices with probabilities in proportion to the weights, `(num,)`, or one where `num` is None.

    An index without weight is never drawn, unless none has any: then the last one.
    """
    largest = jnp.max(log_weights)
    ends = jnp.cumsum(jnp.exp(log_weights - jnp.where(jnp.isfinite(largest), largest, 0)))
    shape = () if num is None else (num,)
    below_all = jnp.nextafter(ends[-1], jnp.zeros((), ends.dtype))
    points = jnp.minimum(jr.uniform(key, shape, ends.dtype) * ends[-1], below_all)
    return jnp.minimum(jnp.searchsorted(ends, points, side="right"), ends.size - 1).astype(jnp.int32)
