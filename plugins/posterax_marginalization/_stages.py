"""Training in stages: from data, or from an energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray
from posterax import Batches, Checkpoint, Objective, Trained, train
from posterax._checkpoint import as_checkpoint

from . import _law
from ._marginals import Marginals
from ._objectives import OrderAgnostic, Rows, SelfConsistency

_PATH_STATES = 4096  # partial assignments in a step of the second stage
_PIECE = 4096  # rows that are completed together


class Joint(Objective):
    """Both stages at once: conditionals by likelihood, both networks by consistency.

    - `consistency`: with `freeze=False`. `weight`: of it.
    """

    consistency: SelfConsistency
    weight: float = 1.0

    def loss(self, model: Marginals, batch: Rows, state: Any, *, key: PRNGKeyArray):
        """See `Objective`."""
        one, two = jr.split(key)
        fit, _ = OrderAgnostic().loss(model, batch, None, key=one)
        off, (_, metrics) = self.consistency.loss(model, batch, None, key=two)
        return fit + self.weight * off, (state, {**metrics, "negative_log_likelihood": fit})


class Mixed(eqx.Module):
    """Batches of rows of the data and of the model's own draws, half and half; a function of a key."""

    data: Int[Array, "n D"]
    own: Int[Array, "m D"]
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Rows:
        """One batch."""
        one, two = jr.split(key)
        half = self.size // 2
        rows = [
            self.data[jr.randint(one, (self.size - half,), 0, len(self.data))],
            self.own[jr.randint(two, (half,), 0, len(self.own))],
        ]
        x = jnp.concatenate(rows)
        return Rows(x, jnp.ones(x.shape, bool))


def optimiser(
    settings: Any, num_steps: int, *, weight_decay: float = 0.0, clip: float | None = None, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam whose rate rises over a twentieth of the steps and falls to 0 as a cosine."""
    warm = max(1, num_steps // 20)
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warm, max(num_steps, warm + 1))
    adam = optax.adamw(rate, b2=b2, weight_decay=weight_decay)
    return adam if clip is None else optax.chain(optax.clip_by_global_norm(clip), adam)


def two_stages(
    model: Marginals, rows: Rows, settings: Any, consistency: SelfConsistency, *, key: PRNGKeyArray, checkpoint: Any,
    **run: Any,
) -> tuple[Marginals, Int[Array, "n D"], dict[str, Trained]]:  # fmt: skip
    """Conditionals by likelihood; then, with these frozen, marginals by consistency on data and the model's own draws.

    Missing values are filled by the conditionals before the second stage. With the model the completed rows.
    """
    keys = jr.split(key, 4)
    size = min(settings.batch_size, len(rows.x))
    first = train(
        model, OrderAgnostic(), Batches(rows, size), num_steps=settings.num_steps, key=keys[0],
        optimiser=optimiser(settings, settings.num_steps, weight_decay=settings.weight_decay),
        trainable=_only(model, "conditional"), checkpoint=_stage(checkpoint, "conditional"), **run,
    )  # fmt: skip
    model = first.model
    full = filled(model, rows, key=keys[1])
    own = drawn(model, settings.num_imagined, key=keys[2])
    span = 1 if consistency.form != "path" else min(consistency.span or model.size, model.size)
    batch = Mixed(full, own, max(2, min(size, _PATH_STATES // (span + 1))) if span > 1 else size)
    second = train(
        model, consistency, batch, num_steps=settings.marginal_steps, key=keys[3],
        optimiser=optimiser(settings, settings.marginal_steps),
        trainable=_only(model, "marginal"), checkpoint=_stage(checkpoint, "marginal"), **run,
    )  # fmt: skip
    return second.model, jnp.concatenate([full, own]), {"conditional": first, "marginal": second}


def filled(model: Marginals, rows: Rows, *, key: PRNGKeyArray) -> Int[Array, "n D"]:
    """Rows with what is missing drawn from the conditionals."""
    if np.asarray(rows.present).all():
        return jnp.asarray(rows.x)
    return completed(model, rows.x, rows.present, key=key)


def drawn(model: Marginals, num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
    """Draws of the conditionals, each in an order of its own."""
    zeros = np.zeros((num, model.size), np.int32)
    return completed(model, zeros, zeros.astype(bool), key=key)


def completed(
    model: Marginals, x: Any, observed: Any, *, key: PRNGKeyArray, order: Int[np.ndarray, " D"] | None = None
) -> Int[Array, "n D"]:
    """Rows with what is not observed drawn, in pieces that bound memory; in this order, or random ones."""
    pieces = []
    for number, start in enumerate(range(0, len(x), _PIECE)):
        part = slice(start, start + _PIECE)
        key_part = jr.fold_in(key, number)
        rows = jnp.asarray(x[part]), jnp.asarray(observed[part])
        ranks = None if order is None else jnp.broadcast_to(np.argsort(order), rows[0].shape)
        pieces.append(_law.completed(model, *rows, key=key_part, ranks=ranks)[0])
    return jnp.concatenate(pieces)


def _only(model: Marginals, network: str) -> Any:
    nothing = jax.tree.map(lambda _: False, model)
    chosen = jax.tree.map(eqx.is_inexact_array, getattr(model, network))
    return eqx.tree_at(lambda m: getattr(m, network), nothing, chosen)


def _stage(checkpoint: Any, name: str) -> Checkpoint | None:
    """The place of one stage's checkpoint within that of the training."""
    habits = as_checkpoint(checkpoint)
    return None if habits is None else habits.within(name)
