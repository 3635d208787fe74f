"""Fits a sparse variational process to labels, and reads class probabilities and latent laws off it."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Batches, Trained, train
from posterax._precision import precision

from ._inducing_points import greedy_inducing
from ._variational import SparseProcess
from ._variational_elbo import VariationalBound, sample_move

_CANDIDATES = 20  # rows among which each inducing point is chosen, times their number
_MOST = 200  # inducing points, where nothing else is said


def fit_process(
    settings: Any, x: np.ndarray, labels: np.ndarray, num_classes: int, *, key: PRNGKeyArray, **run: Any
) -> Trained:
    """The training of a process on all labels; `settings` is a `ScaleMixtureClassifier`, `run` goes to `train`."""
    key_points, key_train = jr.split(key)
    n = len(x)
    num = min(settings.num_inducing or _MOST, n)
    with precision(64):
        among = np.sort(np.asarray(jr.choice(key_points, n, (min(n, _CANDIDATES * num),), replace=False)))
        points = jnp.asarray(x[among[greedy_inducing(settings.kernel, x[among], num)]])
        process = SparseProcess.at_prior(
            settings.kernel, points, num_classes, settings.scale_prior, settings.covariance, settings.jitter
        )
        data = (jnp.asarray(x), jnp.asarray(labels))
    batches = Batches(data, settings.batch_size) if settings.batch_size < n else data
    trainable = process.trainable(
        kernel=settings.learn_kernel, inducing=settings.learn_inducing, point=settings.learn_scale
    )
    return train(
        process, VariationalBound(n, "softmax", settings.num_draws), batches, num_steps=settings.num_steps,
        optimiser=settings.optimiser or _adam(settings.learning_rate, settings.num_steps), key=key_train,
        trainable=trainable, **run,
    )  # fmt: skip


@functools.cache
def _adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))


@eqx.filter_jit
def log_mean_softmax(
    process: SparseProcess, x: Float[Array, "n ..."], num_draws: int, key: PRNGKeyArray
) -> Float[Array, "n classes"]:
    """Log of softmax averaged over draws of f, one s a draw for all points; each draw beside its mirror image."""
    key_scale, key_normal = jr.split(key)
    marginals, half = process.marginals(x), -(-num_draws // 2)
    log_scales = process.scale.sample_log(key_scale, half)

    def add(i, total):
        move = sample_move(marginals, log_scales[i], key=jr.fold_in(key_normal, i))
        return total + jax.nn.softmax(marginals.mean + move) + jax.nn.softmax(marginals.mean - move)

    total = jax.lax.fori_loop(0, half, add, jnp.zeros_like(marginals.mean))
    return jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny) / (2 * half))


@eqx.filter_jit
def latent_law(process: SparseProcess, x: Float[Array, "n ..."]) -> tuple[Array, Array, Array]:
    """Degrees of freedom, location `(n, C)` and `(C, n, n)` Cholesky factors of f at all points together."""
    mean, covariance = process.joint(x)
    covariance += process.jitter * jnp.mean(jnp.diagonal(covariance, axis1=1, axis2=2)) * jnp.eye(x.shape[0])
    return process.scale.df, mean, jnp.linalg.cholesky(process.scale.level * covariance)
