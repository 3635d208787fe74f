"""Which jumps a process can make: laws of edge sets."""

import abc
import functools
import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class EdgePrior(eqx.Module):
    """A law of edge sets: which off-diagonal rates are not 0."""

    @abc.abstractmethod
    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """One edge set; False on the diagonal."""

    def log_prob(self, edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """Log probability of an edge set."""
        raise NotImplementedError(f"{type(self).__name__} does not know the probability of an edge set.")


class CompleteEdges(EdgePrior):
    """Every state can jump to every other one."""

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """See `EdgePrior`."""
        del key
        return ~jnp.eye(num_states, dtype=bool)

    def log_prob(self, edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `EdgePrior`."""
        return jnp.where(jnp.all(edges | jnp.eye(len(edges), dtype=bool)), 0.0, -jnp.inf)


class ConnectedTriangles(EdgePrior):
    """Complete, or both triangles of the matrix random, and each connected when read as an undirected graph.

    Every entry of a triangle is there with probability 1/2, drawn again until the triangle is connected, and both until
    every state has an exit. Strong connection is not enforced.

    - `complete_probability`: of all edges at once.

    Source: reconstructed from the matrices of Berghaus et al. (2024), arXiv:2406.06419.
    """

    complete_probability: float = 0.5
    _most_states: ClassVar[int] = 8  # whose sets are counted for `log_prob`

    def __check_init__(self):
        if not 0 <= self.complete_probability <= 1:
            raise ValueError(f"`complete_probability` must lie in [0, 1]; got {self.complete_probability!r}.")

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """See `EdgePrior`."""
        complete = ~jnp.eye(num_states, dtype=bool)
        upper = jnp.triu(complete)

        def triangle(key, half):
            def again(state):
                _, graph = state
                return ~_connected(graph | graph.T)

            def draw(state):
                key, _ = state
                key, this = jr.split(key)
                return key, jr.bernoulli(this, 0.5, half.shape) & half

            return jax.lax.while_loop(again, draw, draw((key, half)))

        def both(state):
            key, _ = state
            key, one, two = jr.split(key, 3)
            return key, triangle(one, upper)[1] | triangle(two, upper.T)[1]

        choose, key = jr.split(key)
        _, sparse = jax.lax.while_loop(lambda s: ~jnp.all(jnp.any(s[1], -1)), both, both((key, complete)))
        return jnp.where(jr.bernoulli(choose, self.complete_probability), complete, sparse)

    def log_prob(self, edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `EdgePrior`; for at most eight states."""
        size = len(edges)
        edges = edges & ~jnp.eye(size, dtype=bool)
        upper, lower = jnp.triu(edges), jnp.tril(edges)
        valid = _connected(upper | upper.T) & _connected(lower | lower.T) & jnp.all(jnp.any(edges, -1))
        sparse = jnp.where(valid, jnp.log1p(-self.complete_probability) - np.log(_count(size)), -jnp.inf)
        complete = jnp.where(jnp.sum(edges) == size * (size - 1), jnp.log(self.complete_probability), -jnp.inf)
        return jnp.logaddexp(sparse, complete)


class BirthDeathEdges(EdgePrior):
    """Jumps between neighbours alone: i to i - 1 and to i + 1."""

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """See `EdgePrior`."""
        del key
        return jnp.abs(jnp.arange(num_states)[:, None] - jnp.arange(num_states)) == 1

    def log_prob(self, edges: Bool[Array, "k k"]) -> Float[Array, ""]:
        """See `EdgePrior`."""
        return jnp.where(jnp.all(edges == self.sample(len(edges), key=None)), 0.0, -jnp.inf)  # pyright: ignore[reportArgumentType]


class SymmetricEdges(EdgePrior):
    """Edges of `base` and their reverses: what reversible rates need."""

    base: EdgePrior = ConnectedTriangles()

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """See `EdgePrior`."""
        edges = jnp.triu(self.base.sample(num_states, key=key))
        return edges | edges.T


class AbsorbingEdges(EdgePrior):
    """Edges of `base`, but random states, at least one and at most all but one, are never left.

    - `probability`: of each state to be one of these, before they are drawn again.
    """

    base: EdgePrior = ConnectedTriangles()
    probability: float = 0.25

    def sample(self, num_states: int, *, key: PRNGKeyArray) -> Bool[Array, "k k"]:
        """See `EdgePrior`."""
        one, two, three = jr.split(key, 3)
        edges = self.base.sample(num_states, key=one)
        ranks = jnp.argsort(jr.uniform(two, (num_states,)))
        number = jnp.clip(jr.binomial(three, num_states, self.probability), 1, num_states - 1)
        return edges & (ranks >= number)[:, None]


def _connected(graph: Bool[Array, "k k"]) -> Bool[Array, ""]:
    """Whether an undirected graph is connected."""
    reach = graph | jnp.eye(len(graph), dtype=bool)
    for _ in range(max(1, int(np.ceil(np.log2(max(len(graph) - 1, 2)))))):
        reach = (reach.astype(jnp.float32) @ reach.astype(jnp.float32)) > 0
    return jnp.all(reach)


@functools.cache
def _count(size: int) -> int:
    """How many sparse edge sets there are: pairs of connected triangles in which every state has an exit.

    By inclusion and exclusion over the states without one; connected graphs are counted subset by subset.
    """
    if size > ConnectedTriangles._most_states:
        raise ValueError(f"Edge sets are counted for at most {ConnectedTriangles._most_states} states; got {size}.")
    total = 0
    for stuck in range(2**size):
        up = [(i, j) for i, j in itertools.combinations(range(size), 2) if not stuck >> i & 1]
        down = [(i, j) for i, j in itertools.combinations(range(size), 2) if not stuck >> j & 1]
        total += (-1) ** stuck.bit_count() * _connected_subgraphs(size, up) * _connected_subgraphs(size, down)
    return total


def _connected_subgraphs(size: int, edges: list[tuple[int, int]]) -> int:
    """How many sets of these edges connect all states."""
    within = [2 ** sum(chosen >> i & 1 and chosen >> j & 1 for i, j in edges) for chosen in range(2**size)]
    connected = [0] * 2**size
    for chosen in range(1, 2**size):
        lowest, part = chosen & -chosen, (chosen - 1) & chosen
        connected[chosen] = within[chosen]
        while part:  # the part that holds the lowest state is connected, the rest is free
            if part & lowest:
                connected[chosen] -= connected[part] * within[chosen ^ part]
            part = (part - 1) & chosen
    return connected[-1]
