"""Correct objectives, each written out so that one line can be spoilt: see mutants.toml."""

import jax
import jax.numpy as jnp
import jax.random as jr
from posterax import Objective

_CALLS = []


class Likelihood(Objective):
    """The negative log-likelihood of rows under a model with `log_prob`."""

    def loss(self, model, batch, state, *, key):
        values = jax.vmap(model.log_prob)(batch)
        return -jnp.mean(values), (state, {"best": jnp.max(values)})


class Squares(Objective):
    """The mean square of errors, with a memory of its running mean."""

    def init(self, model, *, key):
        return jnp.zeros(())

    def loss(self, model, batch, state, *, key):
        x, y = batch
        error = jnp.mean((y - jax.vmap(model)(x)) ** 2)
        return error, (0.9 * state + 0.1 * jax.lax.stop_gradient(error), {"running": state})


class Subsampled(Objective):
    """The negative log-likelihood of rows drawn with replacement: unbiased for that of all."""

    num: int = 8

    def loss(self, model, batch, state, *, key):
        chosen = jr.randint(key, (self.num,), 0, batch.shape[0])
        values = jax.vmap(model.log_prob)(batch[chosen])
        return -jnp.mean(values), (state, {})


class ScoreMatching(Objective):
    """Score matching: half the squared score, plus its divergence; no normaliser needed."""

    def loss(self, model, batch, state, *, key):
        def of_row(x):
            score = jax.grad(model.log_prob)
            divergence = jnp.trace(jax.jacfwd(score)(x))
            return 0.5 * jnp.sum(score(x) ** 2) + divergence

        return jnp.mean(jax.vmap(of_row)(batch)), (state, {})
