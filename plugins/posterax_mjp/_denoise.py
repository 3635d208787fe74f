"""Transitions that are expected to have happened, where labels may be wrong: the first half of a step of EM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._generators import generator, series_and_squares
from ._summaries import expectation_steps

_ROUNDS, _ROUNDS_OF_ESTIMATION, _STEPS = 8, 32, 4  # tried: more change nothing in the third digit


class Paths(NamedTuple):
    """Rows of some paths side by side, over different gaps.

    - `step`: `(L, K)`, which gap lies before a row; of first rows it means nothing. `seen`: `(L, K)`, whether there is
      a row at all. `label`: `(L, K)`.
    """

    step: Int[Array, "L K"]
    seen: Bool[Array, "L K"]
    label: Int[Array, "L K"]


class Expected(NamedTuple):
    """`counts`: `(G, k, k)`, transitions over each gap. `firsts`: `(k,)`. `noise`: the share of wrong labels."""

    counts: Float[Array, "G k k"]
    firsts: Float[Array, " k"]
    noise: Float[Array, ""]


def expected_transitions(
    paths: Paths, gaps: Float[Array, " G"], rough: Float[Array, "G k k"], noise: Float[Array, ""], estimate: bool
) -> Expected:
    """By some rounds of EM.

    - `rough`: counted transitions of the labels, to begin with. `estimate`: the noise is a first guess.
    """
    size = rough.shape[-1]
    wrong = 1 - jnp.eye(size)

    def round_(state, _):
        logs, law, noise = state
        probs = series_and_squares(generator(jnp.exp(logs) * wrong), gaps)
        emission = jnp.where(wrong > 0, noise / (size - 1), 1 - noise)
        terms = (jnp.log(jnp.maximum(probs, 1e-12)), jnp.log(law), jnp.log(jnp.maximum(emission, 1e-12)))
        counts, firsts, labels = jax.grad(_log_likelihood)(terms, paths)
        logs = expectation_steps(counts, gaps, logs, _STEPS)
        law = (firsts + 0.5) / jnp.sum(firsts + 0.5)
        told = jnp.sum(labels * wrong) / jnp.maximum(jnp.sum(labels), 1.0)
        return (logs, law, told if estimate else noise), (counts, firsts)

    start = (expectation_steps(rough, gaps, jnp.zeros((size, size)), 10), jnp.full(size, 1 / size), noise)
    (_, _, noise), (counts, firsts) = jax.lax.scan(
        round_, start, None, length=_ROUNDS_OF_ESTIMATION if estimate else _ROUNDS
    )
    return Expected(counts[-1], firsts[-1], noise)


def _log_likelihood(terms: tuple[Array, Array, Array], paths: Paths) -> Float[Array, ""]:
    """Its derivative in the log of a probability is how often that is expected to have been used."""
    steps, law, emission = terms
    matrices = jnp.exp(steps)
    weight = jnp.exp(emission)[:, paths.label]  # (k, L, K)
    begun = jnp.cumsum(paths.seen, 0) > 0
    size, (_, number) = len(law), paths.seen.shape

    def step(carry, given):
        alpha, total = carry
        which, seen, weight, first = given
        before = jnp.where(first[:, None], jnp.exp(law), jnp.einsum("ni,nij->nj", alpha, matrices[which]))
        after = before * weight.T
        norm = jnp.sum(after, -1)
        alpha = jnp.where(seen[:, None], after / norm[:, None], alpha)
        return (alpha, total + jnp.sum(jnp.where(seen, jnp.log(norm), 0.0))), None

    first = begun & ~jnp.concatenate([jnp.zeros((1, number), bool), begun[:-1]])
    given = (paths.step, paths.seen, jnp.moveaxis(weight, 1, 0), first)
    (_, total), _ = jax.lax.scan(step, (jnp.full((number, size), 1 / size), jnp.zeros(())), given)
    return total
