"""One step of selection: who survives, and what weight the survivors carry. All particle methods share it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from posterax import Always, EssBelow
from posterax.weights import AbstractResampler, effective_sample_size, log_mean, normalise

_KEPT = 1e-3  # share of ancestors drawn by the weights themselves where a guess is looked at


class Selection(NamedTuple):
    """Which particles go on.

    - `ancestors`: for each new particle, the old one that it continues.
    - `log_weights`: of the new particles. Their mean weight is that of the old ones, on average over the draw.
    - `resampled`: False where all went on as they were.
    """

    ancestors: Int[Array, " n"]
    log_weights: Float[Array, " n"]
    resampled: Bool[Array, ""]


def select(
    log_weights: Float[Array, " n"],
    *,
    key: PRNGKeyArray,
    scores: Float[Array, " n"] | None = None,
    inverse_temperature: Float[Array, ""] | float = 1.0,
    when: Always | EssBelow,
    resampler: AbstractResampler,
    corrected: bool = True,
) -> Selection:
    r"""Draw ancestors with probabilities $p_i \propto e^{\beta v_i}$, and give each the weight $w_i / (n p_i)$.

    That keeps what the weighted particles stand for, and their mean weight, whatever the scores are: without scores and
    temperature it is plain resampling, with scores the auxiliary particle filter, with a temperature entropic annealing
    with residual weights. Uncorrected, all get the mean weight instead: the published annealing, which changes what
    they stand for. Particles are not touched, so they may be anything: index them with `ancestors`.

    - `log_weights`: $\log w$, with any constant.
    - `scores`: v; the log-weights by default.
    - `inverse_temperature`: $\beta$, in [0, 1].
    - `when`: `EssBelow(share)` looks at the effective sample size of the scores before annealing.

    Where no particle has weight, or one is NaN, all go on as they are.
    """
    num = log_weights.size
    before = log_mean(log_weights)
    usable = jnp.isfinite(before)
    scores = log_weights if scores is None else scores
    guessed = scores is not log_weights
    drawn = _annealed(scores, inverse_temperature)
    if guessed and corrected:  # a guess of zero must not lose a particle that has weight
        drawn = jnp.logaddexp(normalise(drawn), normalise(log_weights) + jnp.log(_KEPT))

    def resample():
        ancestors = resampler(drawn, key=key)
        ancestors = jnp.where(ancestors < 0, jnp.arange(num, dtype=ancestors.dtype), ancestors)
        carried = jnp.full(num, before, log_weights.dtype)
        if corrected and (guessed or not _is_one(inverse_temperature)):
            carried = (log_weights - normalise(drawn) - jnp.log(num))[ancestors].astype(log_weights.dtype)
        return Selection(ancestors, jnp.where(usable, carried, log_weights), usable)

    def keep():
        return Selection(jnp.arange(num, dtype=jnp.int32), log_weights, jnp.zeros((), bool))

    if isinstance(when, Always):
        return resample()
    low = effective_sample_size(scores) < when.share * num
    return jax.lax.cond(low & usable, resample, keep)


def _annealed(scores, inverse_temperature):
    if _is_one(inverse_temperature):
        return scores
    # Zero times minus infinity: a particle without a chance stays without one at any temperature.
    return jnp.where(jnp.isneginf(scores), -jnp.inf, inverse_temperature * scores)


def _is_one(inverse_temperature) -> bool:
    return isinstance(inverse_temperature, float) and inverse_temperature == 1.0
