"""The evidence lower bound of a sparse variational process, estimated from minibatches."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Objective

from ._kernel import check_positive
from ._variational import Marginals, SparseProcess
from ._variational_scale import Scalar, Scale


class VariationalBound(Objective):
    r"""The negative evidence lower bound of a `SparseProcess`, in nats:

    $$ KL(q(s, u) || p(s, u)) - \frac{N}{|B|} \sum_{i \in B} E_q[\log p(y_i | f(x_i), s)]. $$

    A batch is (x, y). The metrics hold its two terms, `log_likelihood` and `divergence`.

    - `num_rows`: N, rows in all; None where each batch is all of them.
    - `likelihood`: "softmax", y `(B,)` class labels; or "gaussian", y `(B, C)` with
      y_c | f_c, s ~ N(f_c, s noise), the noise tied to the scale, for which the expectation has a closed form.
    - `num_draws`: draws of f for the softmax, each with one s for all rows and classes, rounded up to an even number:
      half of them mirror the others about the mean.
    - `noise`: of the Gaussian likelihood.

    Source: Lee, Yun, Yang and Lee (2022), arXiv:2107.01408, appendix; Hensman, Matthews and Ghahramani (2015),
    AISTATS, for the Gaussian process.
    """

    num_rows: int | None = None
    likelihood: Literal["softmax", "gaussian"] = "softmax"
    num_draws: int = 16
    noise: float = 0.1
    precision: ClassVar = 64

    def __check_init__(self):
        if self.likelihood not in ("softmax", "gaussian"):
            raise ValueError(f"`likelihood` must be 'softmax' or 'gaussian'; got {self.likelihood!r}.")
        if self.num_draws < 1:
            raise ValueError(f"`num_draws` must be at least 1; got {self.num_draws}.")
        if self.num_rows is not None and self.num_rows < 1:
            raise ValueError(f"`num_rows` must be at least 1, the rows in all; got {self.num_rows}.")
        check_positive("noise", self.noise)

    def loss(self, model: SparseProcess, batch: Any, state, *, key: PRNGKeyArray):
        x, y = batch
        marginals = model.marginals(x)
        if self.likelihood == "softmax":
            terms = expected_log_softmax(marginals, model.scale, y, self.num_draws, key=key)
        else:
            terms = expected_log_normal(marginals, model.scale, y, self.noise)
        total = jnp.mean(terms) * (x.shape[0] if self.num_rows is None else self.num_rows)
        divergence = model.divergence()
        return divergence - total, (state, {"log_likelihood": total, "divergence": divergence})


def expected_log_softmax(
    marginals: Marginals, scale: Scale, labels: Array, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, " n"]:
    """Unbiased estimates of E_q[log softmax(f(x_i))_{y_i}], in nats, from draws that share their s."""
    logits = jax.vmap(jax.nn.log_softmax)(sample_latent(marginals, scale, num_draws, key=key))
    return jnp.mean(jnp.take_along_axis(logits, labels[None, :, None], axis=-1)[..., 0], axis=0)


def sample_latent(
    marginals: Marginals, scale: Scale, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, "draws n classes"]:
    """Draws of f with the right law at each point over all classes: one s a draw, points independent given it.

    An odd `num_draws` gives one more: each draw has its mirror image, and all strata of s weigh the same.
    """
    key_scale, key_normal = jr.split(key)
    half = -(-num_draws // 2)
    log_scales = scale.sample_log(key_scale, half)
    moves = jax.vmap(lambda log_scale, key: sample_move(marginals, log_scale, key=key))(
        log_scales, jr.split(key_normal, half)
    )
    return jnp.concatenate([marginals.mean + moves, marginals.mean - moves])


def sample_move(marginals: Marginals, log_scale: Scalar, *, key: PRNGKeyArray) -> Float[Array, "n classes"]:
    """How far one draw of f, given s, lies from the mean."""
    spread = jnp.sqrt(jnp.maximum(marginals.variance, 1e-200))  # its gradient is finite at zero, too
    return jnp.exp(0.5 * log_scale) * spread * jr.normal(key, marginals.mean.shape)


def expected_log_normal(
    marginals: Marginals, scale: Scale, y: Float[Array, "n classes"], noise: float
) -> Float[Array, " n"]:
    """E_q[log N(y_i; f(x_i), s noise)], in nats, with E[1/s] = a/b: that of log s stands beside it."""
    quad = (y - marginals.mean) ** 2 / scale.level + marginals.variance
    return -0.5 * jnp.sum(jnp.log(2 * jnp.pi * noise) + scale.mean_log + quad / noise, axis=1)
