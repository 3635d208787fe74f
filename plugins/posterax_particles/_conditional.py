"""Conditional sequential Monte Carlo: a Markov kernel on whole paths that leaves their law as it is."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from posterax.weights import log_mean

from ._draw import index_by_weight
from ._feynman_kac import FeynmanKac
from ._history import begun, genealogies, written


def conditional_sweep(
    model: FeynmanKac,
    reference: PyTree[Array],
    num_particles: int,
    *,
    key: PRNGKeyArray,
    ancestor_sampling: bool = True,
) -> PyTree[Array]:
    """A path drawn from a particle filter in which one particle is bound to follow `reference`.

    Leaves the law of paths invariant, whatever the number of particles. Ancestors are multinomial at every step.

    - `reference`: a path, leading axis of time.
    - `num_particles`: at least 2, the reference included.
    - `ancestor_sampling`: draw the reference a new past at each time; it then moves far better with few particles, and
      needs `log_transition`.

    Source: Andrieu, Doucet and Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x, section 4.3; Lindsten, Jordan
    and Schon (2014), http://jmlr.org/papers/v15/lindsten14a.html, algorithm 1.
    """
    return conditional_run(model, reference, num_particles, key=key, ancestor_sampling=ancestor_sampling)[0]


def conditional_run(
    model: FeynmanKac, reference: PyTree[Array], num_particles: int, *, key: PRNGKeyArray, ancestor_sampling: bool
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """The path of `conditional_sweep`, and the log of the evidence that its particles estimate, in nats."""
    check_particles(num_particles)
    _check_reference(model, reference)
    key_start, key_steps, key_pick = jr.split(key, 3)
    at = lambda t: jax.tree.map(lambda leaf: leaf[t], reference)  # noqa: E731

    def with_reference(t, free):
        return jax.tree.map(lambda one, rest: jnp.concatenate([one[None].astype(rest.dtype), rest]), at(t), free)

    particles = with_reference(0, model.starts(num_particles - 1, key=key_start))
    log_weights = jax.vmap(model.log_start)(particles)

    def step(carry, item):
        particles, log_weights, history, log_evidence = carry
        t, key = item
        key_free, key_past, key_move = jr.split(key, 3)
        free = index_by_weight(log_weights, num_particles - 1, key=key_free)
        past = jnp.zeros((), free.dtype)
        if ancestor_sampling:
            transitions = jax.vmap(lambda before: model.log_transition(t, before, at(t)))(particles)
            past = index_by_weight(log_weights + transitions, key=key_past)
        ancestors = jnp.concatenate([past[None], free]).astype(jnp.int32)
        before = jax.tree.map(lambda leaf: leaf[ancestors], particles)
        moved = model.moves(t, jax.tree.map(lambda leaf: leaf[1:], before), key=key_move)
        particles = with_reference(t, moved)
        log_weights = jax.vmap(lambda old, new: model.log_potential(t, old, new))(before, particles)
        history = written(history, t, particles, log_weights, ancestors)
        return (particles, log_weights, history, log_evidence + log_mean(log_weights)), None

    history = begun(model.num_steps, particles, log_weights)
    carry = (particles, log_weights, history, log_mean(log_weights))
    items = (jnp.arange(1, model.num_steps), jr.split(key_steps, model.num_steps)[1:])
    (_, log_weights, history, log_evidence), _ = jax.lax.scan(step, carry, items)
    chosen = index_by_weight(log_weights, 1, key=key_pick)
    return jax.tree.map(lambda leaf: leaf[0], genealogies(history, chosen)), log_evidence


def check_particles(num_particles: Any) -> None:
    """Raise `ValueError` where there is no room for a particle beside the reference."""
    if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 2:
        raise ValueError(
            "`num_particles` must be an integer, 2 or more, as one particle is the reference itself; got "
            f"{num_particles!r}."
        )


def _check_reference(model: FeynmanKac, reference: PyTree) -> None:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(reference)}
    if lengths != {(model.num_steps,)}:
        raise ValueError(
            f"`reference` must be a path with a leading axis of {model.num_steps}, the model's number of times; got "
            f"leading axes {sorted(lengths)}."
        )
