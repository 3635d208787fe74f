"""Simulated processes with the summaries of what is seen of them: what the network learns from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._denoise import Paths, expected_transitions
from ._path_encoder import PathRows
from ._prior import ProcessPrior, Seen
from ._process import Process
from ._summaries import Summaries, summarise

_LONGEST_GAP = 24  # of the finest grid; longer ones, which are rare, count as that long


class Examples(eqx.Module):
    """Processes of one number of states: `rates`, `(n, k, k)`, per horizon; `initial`, `(n, k)`; what is `told`."""

    rates: Float[Array, "n k k"]
    initial: Float[Array, "n k"]
    told: Summaries | PathRows


class ExampleBatches(eqx.Module):
    """Batches with some processes of each number of states; a function of a key.

    - `examples`: one set for each number of states. `sizes`: how many of each are in a batch.
    """

    examples: tuple[Examples, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Examples, ...]:
        """One batch."""
        keys, batch = jr.split(key, len(self.examples)), []
        for examples, size, one in zip(self.examples, self.sizes, keys, strict=True):
            chosen = jr.randint(one, (size,), 0, len(examples.rates))
            batch.append(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], examples))
        return tuple(batch)

    def num_examples(self, num_steps: int) -> int:
        """Different processes in so many batches, at most."""
        del num_steps
        return sum(len(found.rates) for found in self.examples)


class PathBatches(eqx.Module):
    """Batches of paths, simulated anew for each; a function of a key.

    - `num_states`: numbers of states; `size` processes of each are in a batch, of `most_paths` or fewer paths.
    """

    prior: ProcessPrior
    num_states: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    most_paths: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Examples, ...]:
        """One batch."""
        keys = jr.split(key, (len(self.num_states), self.size))
        return tuple(
            jax.vmap(lambda key, k=k: self._one(k, key))(some) for k, some in zip(self.num_states, keys, strict=True)
        )

    def num_examples(self, num_steps: int) -> int:
        """Different processes in so many batches."""
        return num_steps * self.size * len(self.num_states)

    def _one(self, num_states: int, key: PRNGKeyArray) -> Examples:
        process, seen = _seen(self.prior, num_states, self.most_paths, key)
        order = jnp.argsort(~seen.seen, axis=1)
        there, labels = (jnp.take_along_axis(rows, order, 1) for rows in (seen.seen, seen.labels))
        times = seen.times[order] - seen.times[order[:, :1]]
        return Examples(
            process.rates, process.initial, PathRows(labels, jnp.where(there, times, 0.0), there, num_states)
        )


def examples(
    prior: ProcessPrior, num_states: int, num: int, *, most_paths: int, key: PRNGKeyArray, piece: int = 64
) -> Examples:
    """Simulated ones; the number of paths is log-uniform between 1 and `most_paths`.

    - `piece`: so many are made at a time.
    """
    pieces = []
    for number in range(-(-num // piece)):
        keys = jr.split(jr.fold_in(key, number), piece)
        pieces.append(jax.tree.map(np.asarray, _simulated(prior, num_states, most_paths, keys)))
    made: Examples = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *pieces)
    leaves = [leaf.reshape(num, -1) for leaf in jax.tree.leaves(made)]
    good = np.all([np.isfinite(leaf).all(1) for leaf in leaves], 0)
    return jax.tree.map(lambda leaf: leaf[good], made)


@eqx.filter_jit
def _simulated(prior: ProcessPrior, num_states: int, most_paths: int, keys: PRNGKeyArray) -> Examples:
    def one(key):
        process, seen = _seen(prior, num_states, most_paths, key)
        return Examples(process.rates, process.initial, summaries_of(seen, num_states))

    return jax.lax.map(one, keys, batch_size=8)


def _seen(prior: ProcessPrior, num_states: int, most_paths: int, key: PRNGKeyArray) -> tuple[Process, Seen]:
    one, two, three = jr.split(key, 3)
    process = prior.sample(num_states, key=one)
    seen = prior.observe(process, most_paths, key=two)
    number = jnp.exp(jr.uniform(three, maxval=np.log(most_paths)))
    there = seen.seen & (jnp.arange(most_paths) < number)[:, None]
    return process, eqx.tree_at(lambda s: s.seen, seen, there)


def summaries_of(seen: Seen, num_states: int) -> Summaries:
    """Of labels on a grid, whose share of wrong ones is known."""
    length = seen.labels.shape[1]
    gaps = jnp.arange(1, _LONGEST_GAP + 1) / (length - 1.0)
    paths = _side_by_side(seen)
    counts, firsts = _counted(seen, num_states)
    found = expected_transitions(paths, gaps, counts, seen.noise, estimate=False)
    noisy = seen.noise > 0
    return summarise(jnp.where(noisy, found.counts, counts), gaps, jnp.where(noisy, found.firsts, firsts), seen.noise)


def _before(seen: Seen) -> Array:
    """The place of the row before, `(K, L)`; -1 where there is none."""
    place = jnp.where(seen.seen, jnp.arange(seen.labels.shape[1]), -1)
    last = jax.lax.cummax(place, axis=1)
    return jnp.concatenate([jnp.full((len(place), 1), -1), last[:, :-1]], 1)


def _gap(seen: Seen) -> Array:
    return jnp.clip(jnp.arange(seen.labels.shape[1]) - _before(seen), 1, _LONGEST_GAP) - 1


def _side_by_side(seen: Seen) -> Paths:
    return Paths(_gap(seen).T, seen.seen.T, seen.labels.T)


def _counted(seen: Seen, size: int) -> tuple[Array, Array]:
    """Transitions of the labels over each gap, and first labels."""
    before = _before(seen)
    pair = seen.seen & (before >= 0)
    start = jnp.take_along_axis(seen.labels, jnp.maximum(before, 0), 1)
    code = jnp.where(pair, (_gap(seen) * size + start) * size + seen.labels, _LONGEST_GAP * size**2)
    counts = jnp.zeros(_LONGEST_GAP * size**2 + 1).at[code.ravel()].add(1.0)[:-1]
    first = jnp.where(seen.seen & (before < 0), seen.labels, size)
    firsts = jnp.zeros(size + 1).at[first.ravel()].add(1.0)[:-1]
    return counts.reshape(_LONGEST_GAP, size, size), firsts
