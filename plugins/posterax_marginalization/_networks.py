"""Networks from a partly observed assignment to numbers: a row of them for each variable, or one in all."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class PartialNetwork(eqx.Module):
    """A network whose input is a partial assignment: values, and which of them are observed.

    Called on one assignment, `(D,)` and `(D,)`; it gives logits of each variable's values, `(D, K)`, or one number,
    `()`, where it was made to. What it gives does not depend on values that are not observed. A key is for dropout.
    """

    @abc.abstractmethod
    def __call__(
        self, x: Int[Array, " D"], observed: Bool[Array, " D"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "D K"] | Float[Array, ""]:
        """See the class."""


class DenseNetwork(PartialNetwork):
    """A residual perceptron on all variables at once.

    Beside the layers are terms of first order in the indicators of the values, and for one number of second order, so
    that layers need not learn what a log-linear model says.
    """

    num_values: tuple[int, ...] = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    first: Float[Array, "I H"]
    first_bias: Float[Array, " H"]
    inner: Float[Array, "depth H H"]
    inner_bias: Float[Array, "depth H"]
    outer: Float[Array, "depth H H"]
    last: Float[Array, "H O"]
    last_bias: Float[Array, " O"]
    skip: Float[Array, "I O"]
    pairs: Float[Array, "I I"] | None

    def __call__(self, x, observed, key=None):
        """See `PartialNetwork`."""
        seen = indicators(x, observed, self.num_values).reshape(-1)
        keys = None if key is None else jr.split(key, len(self.inner))

        def layer(h, weights):
            inner, bias, outer, key = weights
            within = jax.nn.gelu(_standardised(h) @ inner + bias)
            return h + _dropped(within, self.dropout, key) @ outer, None

        h = seen @ self.first + self.first_bias
        h, _ = jax.lax.scan(layer, h, (self.inner, self.inner_bias, self.outer, keys), unroll=True)
        out = jax.nn.gelu(_standardised(h)) @ self.last + self.last_bias + seen @ self.skip
        if self.pairs is not None:
            return out[0] + seen @ self.pairs @ seen
        return out.reshape(len(self.num_values), -1)


class LatticeNetwork(PartialNetwork):
    """Convolutions, 3 by 3, over a lattice: all sites share their weights, and one number is a sum over sites.

    Nothing in it depends on the size of a periodic lattice: what was learned on a small one can be carried to a larger
    one (`Marginals.on`). Terms of first and second order in neighbouring indicators stand beside the layers.
    """

    num_values: tuple[int, ...] = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    first: Float[Array, "I H"]
    places: Float[Array, "#D H"]
    inner: Float[Array, "depth 9*H H"]
    inner_bias: Float[Array, "depth H"]
    outer: Float[Array, "depth H H"]
    last: Float[Array, "H O"]
    last_bias: Float[Array, "#D O"]
    skip: Float[Array, "9*I O"]
    pairs: Float[Array, "I 9*I"] | None

    def __call__(self, x, observed, key=None):
        """See `PartialNetwork`."""
        seen = indicators(x, observed, self.num_values)
        keys = None if key is None else jr.split(key, len(self.inner))

        def layer(h, weights):
            inner, bias, outer, key = weights
            within = jax.nn.relu(self._around(jax.nn.relu(h)) @ inner + bias)
            return h + _dropped(within, self.dropout, key) @ outer, None

        h = seen @ self.first + self.places
        h, _ = jax.lax.scan(layer, h, (self.inner, self.inner_bias, self.outer, keys), unroll=True)
        around = self._around(seen)
        out = jax.nn.relu(h) @ self.last + self.last_bias + around @ self.skip
        return out if self.pairs is None else jnp.sum(out) + jnp.sum((seen @ self.pairs) * around)

    def _around(self, h: Float[Array, "D H"]) -> Float[Array, "D 9*H"]:
        """The numbers of the nine sites around each; zeros beyond an edge."""
        grid = h.reshape(*self.shape, -1)
        mode = "wrap" if self.periodic else "constant"
        grid = jnp.pad(grid, ((1, 1), (1, 1), (0, 0)), mode=mode)
        rows, columns = self.shape
        near = [grid[a : a + rows, b : b + columns] for a in range(3) for b in range(3)]
        return jnp.concatenate(near, -1).reshape(len(h), -1)


class SequenceNetwork(PartialNetwork):
    """A transformer over the variables in their places, every one attending to all."""

    num_values: tuple[int, ...] = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    pooled: bool = eqx.field(static=True)
    first: Float[Array, "I H"]
    places: Float[Array, "D H"]
    attention: Float[Array, "depth H 3*H"]
    mixing: Float[Array, "depth H H"]
    inner: Float[Array, "depth H F"]
    inner_bias: Float[Array, "depth F"]
    outer: Float[Array, "depth F H"]
    last: Float[Array, "H O"]
    last_bias: Float[Array, "D O"]

    def __call__(self, x, observed, key=None):
        """See `PartialNetwork`."""
        keys = None if key is None else jr.split(key, len(self.inner))

        def layer(h, weights):
            attention, mixing, inner, bias, outer, key = weights
            h = h + self._attend(_standardised(h) @ attention) @ mixing
            within = jax.nn.relu(_standardised(h) @ inner + bias)
            return h + _dropped(within, self.dropout, key) @ outer, None

        h = indicators(x, observed, self.num_values) @ self.first + self.places
        stacks = (self.attention, self.mixing, self.inner, self.inner_bias, self.outer, keys)
        h, _ = jax.lax.scan(layer, h, stacks)
        out = _standardised(h) @ self.last + self.last_bias
        return jnp.sum(out) if self.pooled else out

    def _attend(self, projected: Float[Array, "D 3*H"]) -> Float[Array, "D H"]:
        query, keyed, value = (part.reshape(len(part), self.heads, -1) for part in jnp.split(projected, 3, -1))
        scores = jnp.einsum("ihc,jhc->hij", query, keyed) / query.shape[-1] ** 0.5
        return jnp.einsum("hij,jhc->ihc", jax.nn.softmax(scores, -1), value).reshape(len(projected), -1)


def indicators(x: Int[Array, " D"], observed: Bool[Array, " D"], num_values: tuple[int, ...]) -> Float[Array, "D 1+K"]:
    """Which state each variable is in: not observed, or one of its values."""
    return jax.nn.one_hot(jnp.where(observed, x + 1, 0), 1 + max(num_values))


def values_of(num_values: tuple[int, ...]) -> Bool[np.ndarray, "D K"]:
    """Which values each variable has, of as many as any has."""
    return np.arange(max(num_values)) < np.array(num_values)[:, None]


def _dropped(h: Array, rate: float, key: PRNGKeyArray | None) -> Array:
    return h if key is None or not rate else jnp.where(jr.bernoulli(key, 1 - rate, h.shape), h / (1 - rate), 0.0)


def _standardised(h: Array) -> Array:
    return h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)
