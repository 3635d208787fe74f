"""Losses for learning from an energy: detailed balance along orders, and the published divergence."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from posterax import Objective

from ._energy import Energy, scrambled
from ._marginals import Marginals
from ._objectives import PENALTIES, path_loss
from ._orders import Path, random_ranks, random_starts
from ._sampling import refreshed
from ._validation import check_choice, check_integer, check_span

_WINDOW = 64  # steps between two looks at R-hat
_WATCHED = 4  # projections of the chains beside log f


class Chains(eqx.Module):
    """Persistent chains, and what is watched of them.

    - `x`: `(C, D)`. `watched`: `(window, C, 5)`, log f and random projections since the last look. `step`: of training.
    """

    x: Int[Array, "C D"]
    watched: Float[Array, "W C J"]
    step: Int[Array, ""]


class EnergyObjective(Objective):
    """What objectives for energies share: log f, and persistent chains that are renewed where they do not mix."""

    energy: eqx.AbstractVar[Energy]
    floor: eqx.AbstractVar[float]
    num_chains: eqx.AbstractVar[int]
    refresh: eqx.AbstractVar[int]
    rejuvenate: eqx.AbstractVar[float]

    def __check_init__(self):
        if not isinstance(self.energy, Energy):
            raise TypeError(f"`energy` must be an Energy(function, num_values); got {type(self.energy).__name__}.")
        for name, least in (("num_chains", 2), ("refresh", 1)):
            check_integer(name, getattr(self, name), least)

    def init(self, model: Marginals, *, key: PRNGKeyArray) -> Chains:
        """Chains at uniform assignments."""
        x = self.energy.random(self.num_chains, key=key)
        return Chains(x, jnp.zeros((_WINDOW, self.num_chains, 1 + _WATCHED)), jnp.asarray(0))

    def log_weight(self, x: Int[Array, "B D"]) -> Float[Array, " B"]:
        """Log f of rows, no lower than `floor`."""
        return jnp.maximum(self.energy(x), self.floor)

    def moved(self, model: Marginals, state: Chains, metropolis: bool, *, key: PRNGKeyArray):
        """Chains after one transition, log f of them, and metrics "accepted" and "r_hat"."""
        model = jax.lax.stop_gradient(model)
        look = (state.step > 0) & (state.step % _WINDOW == 0)
        found = jnp.where(look, split_r_hat(state.watched), jnp.nan)
        move = functools.partial(refreshed, model, state.x, key=key, log_weight=self.log_weight if metropolis else None)
        x, accepted = jax.lax.cond(
            found > self.rejuvenate, lambda: move(model.size), lambda: move(min(self.refresh, model.size))
        )
        log_weight = self.log_weight(x)
        watched = state.watched.at[state.step % _WINDOW].set(projections(x, log_weight))
        return Chains(x, watched, state.step + 1), log_weight, {"accepted": jnp.mean(accepted), "r_hat": found}


class DetailedBalance(EnergyObjective):
    r"""Consistency with an energy: the log marginal of everything is held at log f, and $\log Z$ is that of nothing.

    Along random orders, log marginals less chained conditionals are one constant where the model is right; the squares
    of their differences over windows of `span` steps are minimised, as in `SelfConsistency`, of conditionals and
    marginals together. No gradient of a sampler has a part in it; any assignments with full support will do. These come
    from persistent chains by block Gibbs with a Metropolis step, and a share of them is scrambled.

    - `energy`: log f. `floor`: log f is at least that, so that impossible assignments have squares.
    - `num_chains`: assignments a step. `exploring`: the share of them in which a random part of the values is uniform.
    - `refresh`: variables of each chain that are drawn anew at a step.
    - `rejuvenate`: where split R-hat over 64 steps exceeds it, all variables of all chains are proposed anew at once.
    - `span`, `decay`, `penalty`: see `SelfConsistency`. With a span of 1 it is the published loss of one step.

    Metrics: "residual", rms of one step's, in nats; "accepted", share of blocks; "r_hat" (NaN between looks).

    Source: da Silva, Mesquita and Lahlou (2026), arXiv:2609.11538, section 3; windows after Madan et al. (2023),
    arXiv:2209.12782.
    """

    energy: Energy
    floor: float = float("-inf")
    num_chains: int = eqx.field(static=True, default=32)
    refresh: int = eqx.field(static=True, default=4)
    span: int | None = eqx.field(static=True, default=25)
    decay: float = 0.9
    penalty: str = eqx.field(static=True, default="squared")
    exploring: float = 0.25
    rejuvenate: float = 1.1

    def __check_init__(self):
        check_choice("penalty", self.penalty, PENALTIES)
        check_span(self.span, self.decay)
        if not 0 <= self.exploring <= 1:
            raise ValueError(f"`exploring` must be between 0 and 1; got {self.exploring!r}.")

    def loss(self, model: Marginals, batch: Any, state: Chains, *, key: PRNGKeyArray):
        """See `Objective`; there are no data."""
        del batch
        keys = jr.split(key, 4)
        state, _, metrics = self.moved(model, state, True, key=keys[0])
        x = scrambled(state.x, model.num_values, self.exploring, key=keys[1])
        span = min(self.span or model.size, model.size)
        start = random_starts(len(x), model.size, span, key=keys[2])
        path = Path(x, random_ranks(x.shape, key=keys[3]), start, span)
        height = jnp.where(path.states.all(-1), self.log_weight(x)[:, None], path.log_marginals(model))
        loss, residual = path_loss(height, path.log_conditionals(model), self.decay, self.penalty)
        return model.size * loss, (state, {"residual": residual, **metrics})


class KullbackLeibler(EnergyObjective):
    r"""The published loss for energies: $KL(p_\theta \| f / Z)$ by REINFORCE, with consistency as a penalty.

    The full assignments come from persistent block Gibbs with the conditionals, without a Metropolis step; the log
    marginal of nothing is anchored, so that log Z is not learned. Biased where marginals and conditionals disagree or
    chains have not mixed; `DetailedBalance` is not.

    - `energy`, `floor`, `num_chains`, `refresh`, `rejuvenate`: see `DetailedBalance`.
    - `weight`: of the penalty. `standardise`: divide by the batch's standard deviation, as the reference does.

    Metrics: "residual", "r_hat"; "divergence", an estimate of KL less log Z, up to the anchor.

    Source: Liu, Ramadge and Adams (2024), arXiv:2310.12920, section 4.2.
    """

    energy: Energy
    floor: float = float("-inf")
    num_chains: int = eqx.field(static=True, default=256)
    refresh: int = eqx.field(static=True, default=4)
    weight: float = 4.0
    standardise: bool = eqx.field(static=True, default=False)
    rejuvenate: float = 1.1

    def loss(self, model: Marginals, batch: Any, state: Chains, *, key: PRNGKeyArray):
        """See `Objective`; there are no data."""
        del batch
        keys = jr.split(key, 3)
        state, log_weight, metrics = self.moved(model, state, False, key=keys[0])
        x = state.x
        full = jax.vmap(model.log_marginal)(x, jnp.ones(x.shape, bool))
        advantage = jax.lax.stop_gradient(full) - log_weight
        centred = advantage - jnp.mean(advantage)
        if self.standardise:
            centred = centred / (jnp.std(advantage) + 1e-6)
        start = random_starts(len(x), model.size, 1, key=keys[1])
        path = Path(x, random_ranks(x.shape, key=keys[2]), start, 1)
        off, residual = path_loss(path.log_marginals(model), path.log_conditionals(model), 1.0, "squared")
        anchor = float(np.log(model.num_values).sum())
        penalty = model.size * off + (model.log_partition - anchor) ** 2
        metrics = {"residual": residual, "divergence": jnp.mean(advantage), "r_hat": metrics["r_hat"]}
        return jnp.mean(centred * full) + self.weight * penalty, (state, metrics)


def projections(x: Int[Array, "C D"], log_weight: Float[Array, " C"]) -> Float[Array, "C J"]:
    """What R-hat is computed of: log f, and fixed random sums of the values."""
    signs = jr.normal(jr.key(0), (x.shape[1], _WATCHED - 1))
    return jnp.column_stack([log_weight, jnp.mean(x, -1), x @ signs])


def split_r_hat(watched: Float[Array, "W C J"]) -> Float[Array, ""]:
    """The largest split R-hat of the quantities: the classical one, each chain in two halves (Gelman et al., 2013)."""
    half = watched.shape[0] // 2
    parts = jnp.concatenate([watched[:half], watched[half : 2 * half]], 1)
    within = jnp.mean(jnp.var(parts, 0, ddof=1), 0)
    between = jnp.var(jnp.mean(parts, 0), 0, ddof=1)
    ratio = (half - 1) / half + between / jnp.maximum(within, 1e-12)
    return jnp.sqrt(jnp.max(jnp.where((within > 0) | (between > 0), ratio, 1.0)))
