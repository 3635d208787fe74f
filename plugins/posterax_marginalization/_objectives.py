"""Losses for learning from data: order-agnostic conditionals, and marginals that agree with them."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from posterax import Objective

from ._marginals import Marginals
from ._networks import values_of
from ._orders import Path, random_ranks, random_starts
from ._validation import check_choice, check_span

PENALTIES = ("squared", "huber", "linex")


class Rows(eqx.Module):
    """Assignments, some of whose values may be missing.

    - `x`: `(B, D)`, values 0, ..., K - 1. `present`: `(B, D)`, False where a value is missing.
    """

    x: Int[Array, "B D"]
    present: Bool[Array, "B D"]


class OrderAgnostic(Objective):
    r"""Negative log-likelihood of a random order of the variables, in nats a row, from one pass for each.

    For a number t of variables observed, uniform on 0, ..., n - 1, the mean log probability of each of the n - t others
    times n: unbiased for the whole chain of conditionals, averaged over orders. It is also the loss of absorbing
    discrete diffusion. Missing values are neither observed nor asked for; n is the number of those that are there.

    Source: Uria, Murray and Larochelle (2014), arXiv:1310.1757; Hoogeboom et al. (2021), arXiv:2110.02037, eq. 5.
    """

    def loss(self, model: Marginals, batch: Rows, state: Any, *, key: PRNGKeyArray):
        """See `Objective`; the model's conditionals alone have a part in it."""
        key_order, key_size, key_drop = jr.split(key, 3)
        count = jnp.sum(batch.present, -1)
        ranks = random_ranks(batch.x.shape, key=key_order, last=~batch.present)
        known = jnp.floor(jr.uniform(key_size, count.shape) * count).astype(ranks.dtype)[:, None]
        observed = ranks < known
        logs = jax.vmap(model.log_probs)(batch.x, observed, jr.split(key_drop, len(batch.x)))
        own = jnp.take_along_axis(logs, batch.x[..., None], -1)[..., 0]
        asked = batch.present & ~observed
        each = -count * jnp.sum(jnp.where(asked, own, 0.0), -1) / jnp.maximum(jnp.sum(asked, -1), 1)
        return jnp.mean(each), (state, {})


class SelfConsistency(Objective):
    r"""How far marginals and conditionals are from $p(x_S)\, p(x_d \mid x_S) = p(x_{S + d})$, in nats squared.

    - `form`: "path": along an order marginals and chained conditionals are compared between any two of `span`
      successive partial assignments, weighted by `decay` to the power of their distance; "one-step": between
      neighbours, the published loss, which is "path" with a span of 1; "sum": $\log p(x_S)$ with the log of the sum
      over all values of one more variable, by marginals alone.
    - `span`: steps of an order in a window; None for the whole order, from nothing observed to everything.
    - `penalty`: "squared"; "huber", linear from 1 nat on; "linex", $e^r - r - 1$ of a residual r, whose minimum is the
      log of the mean over orders, not the mean of logs.
    - `freeze`: leave the conditionals as they are (the second of two stages).

    Where nothing is observed the log marginal is held at `log_partition`; residuals are summed over the D steps of an
    order. Minimal at 0 for models that are consistent.

    Source: Liu, Ramadge and Adams (2024), arXiv:2310.12920, eqs. 5 and 7; paths after Madan et al. (2023),
    arXiv:2209.12782.
    """

    form: Literal["path", "one-step", "sum"] = eqx.field(static=True, default="path")
    span: int | None = eqx.field(static=True, default=None)
    decay: float = 0.9
    penalty: Literal["squared", "huber", "linex"] = eqx.field(static=True, default="squared")
    freeze: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_choice("form", self.form, ("path", "one-step", "sum"))
        check_choice("penalty", self.penalty, PENALTIES)
        check_span(self.span, self.decay)

    def loss(self, model: Marginals, batch: Rows, state: Any, *, key: PRNGKeyArray):
        """See `Objective`; the metric "residual" is the root mean square of one step's, in nats. Rows are complete."""
        if self.freeze:
            frozen = jax.lax.stop_gradient(model.conditional)
            model = eqx.tree_at(lambda m: m.conditional, model, frozen)
        key_order, key_start = jr.split(key)
        span = 1 if self.form in ("one-step", "sum") else min(self.span or model.size, model.size)
        ranks = random_ranks(batch.x.shape, key=key_order)
        start = random_starts(len(batch.x), model.size, span, key=key_start)
        path = Path(batch.x, ranks, start, span)
        if self.form == "sum":
            off = self._off_sum(model, path)
            return model.size * jnp.mean(penalised(off, self.penalty)), (state, {"residual": _rms(off)})
        height = path.log_marginals(model)
        loss, residual = path_loss(height, path.log_conditionals(model), self.decay, self.penalty)
        return model.size * loss, (state, {"residual": residual})

    def _off_sum(self, model: Marginals, path: Path) -> Float[Array, " B"]:
        values = jnp.arange(max(model.num_values))

        def summed(x, observed, step):
            there = jnp.asarray(values_of(model.num_values))[step]
            each = jax.vmap(lambda v: model.log_marginal(x.at[step].set(v), observed.at[step].set(True)))(values)
            return jax.nn.logsumexp(jnp.where(there, each, -jnp.inf))

        total = jax.vmap(summed)(path.x, path.states[:, 0], path.steps[:, 0])
        return total - jax.vmap(model.log_marginal)(path.x, path.states[:, 0])


def path_loss(
    height: Float[Array, "B span+1"], logs: Float[Array, "B span"], decay: float | Array, penalty: str
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean weighted penalty of the differences between any two states of paths, and the rms of one-step residuals.

    - `height`: log marginals at the states. `logs`: log conditionals between them.

    Heights less chained conditionals are one constant along a consistent path; all differences of them are penalised.
    """
    level = height - jnp.concatenate([jnp.zeros_like(logs[:, :1]), jnp.cumsum(logs, -1)], -1)
    off = level[:, :, None] - level[:, None, :]  # of an earlier state from a later one: above the diagonal
    apart = jnp.arange(level.shape[-1]) - jnp.arange(level.shape[-1])[:, None]
    weights = jnp.where(apart > 0, decay ** (apart - 1.0), 0.0)
    loss = jnp.mean(jnp.sum(weights * penalised(off, penalty), (-1, -2))) / jnp.sum(weights)
    return loss, _rms(level[:, 1:] - level[:, :-1])


def penalised(off: Array, penalty: str) -> Array:
    """The penalty of residuals in nats: chained conditionals less marginals."""
    if penalty == "huber":
        return 2 * jnp.where(jnp.abs(off) < 1, 0.5 * off**2, jnp.abs(off) - 0.5)
    if penalty == "linex":
        low = jnp.minimum(off, 3.0)  # from there on a straight line: one wild residual shall not rule a batch
        return 2 * (jnp.exp(low) * (1 + off - low) - off - 1)
    return off**2


def _rms(off: Array) -> Array:
    return jnp.sqrt(jnp.mean(off**2))
