"""A small probabilistic circuit on a binary tree of variables: every marginal exact, in one pass."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from posterax import Objective


class TreeCircuit(eqx.Module):
    """Sums and products over a balanced tree of variables: a law whose marginals of any subset are exact.

    Each leaf has `num_sums` categorical laws of its variable; each inner node `num_sums` mixtures of all products of a
    law of its left and one of its right child; the root is one mixture. Learned by `train` with `CircuitLikelihood`.

    - `leaves`: `(D', R, K)`, logits; D' is the number of variables brought up to a power of 2.
    - `sums`: for each level from the leaves up, `(nodes, R, R, R)`, logits of mixtures; `(1, 1, R, R)` at the root.
    - `order`: `(D',)`, which variable each leaf has; those that are none of the D are never observed.
    - `num_values`: K of each variable.

    Source: Peharz et al. (2020), arXiv:2004.06231, on one tree.
    """

    leaves: Float[Array, "leaves R K"]
    sums: tuple[Float[Array, "nodes out R R"], ...]
    order: tuple[int, ...] = eqx.field(static=True)
    num_values: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def init(
        num_values: tuple[int, ...], num_sums: int = 16, order: tuple[int, ...] | None = None, *, key: PRNGKeyArray
    ) -> "TreeCircuit":
        """Weights at random.

        - `num_values`: K of each variable. `num_sums`: R.
        - `order`: the variables from left to right; neighbours should be near each other. As they come by default.
        """
        depth = max(1, math.ceil(math.log2(len(num_values))))
        order = tuple(range(len(num_values))) if order is None else tuple(order)
        if sorted(order) != list(range(len(num_values))):
            raise ValueError(f"`order` must hold each of the {len(num_values)} variables once; got {order}.")
        keys = jr.split(key, depth + 1)
        leaves = jr.normal(keys[0], (2**depth, num_sums, max(num_values)))
        sums = []
        for level in range(depth):
            nodes = 2 ** (depth - level - 1)
            out = 1 if nodes == 1 else num_sums
            sums.append(jr.normal(keys[level + 1], (nodes, out, num_sums, num_sums)))
        return TreeCircuit(leaves, tuple(sums), order + tuple(range(len(order), 2**depth)), tuple(num_values))

    def log_marginal(self, x: Int[Array, " D"], observed: Bool[Array, " D"]) -> Float[Array, ""]:
        """Log probability that the observed variables have the values of `x`, in nats; the others are summed out."""
        size = len(self.num_values)
        order = np.minimum(np.array(self.order), size - 1)
        allowed = np.arange(self.leaves.shape[-1]) < np.array(self.num_values)[order][:, None]
        log_leaf = jax.nn.log_softmax(jnp.where(allowed[:, None, :], self.leaves, -jnp.inf), -1)
        value = jnp.clip(jnp.asarray(x), 0)[order]
        seen = jnp.asarray(observed)[order] & jnp.asarray(np.array(self.order) < size)
        found = jnp.take_along_axis(log_leaf, value[:, None, None], -1)[..., 0]
        nodes = jnp.where(seen[:, None], found, 0.0)
        for logits in self.sums:
            left, right = nodes[0::2], nodes[1::2]
            tops = [side.max(-1, keepdims=True) for side in (left, right)]
            tops = [jnp.where(jnp.isfinite(top), top, 0.0) for top in tops]
            flat = logits.reshape(*logits.shape[:2], -1)
            weights = jax.nn.softmax(flat, -1).reshape(logits.shape)
            mixed = jnp.einsum("norl,nr,nl->no", weights, jnp.exp(left - tops[0]), jnp.exp(right - tops[1]))
            nodes = jnp.log(mixed) + tops[0] + tops[1]
        return nodes[0, 0]


class CircuitLikelihood(Objective):
    """Mean negative log probability of rows, in nats: batches of `{"x": (rows, D), "observed": (rows, D)}`."""

    def loss(self, model, batch, state, *, key):
        """See `Objective`."""
        del key
        return -jnp.mean(jax.vmap(model.log_marginal)(batch["x"], batch["observed"])), (state, {})
