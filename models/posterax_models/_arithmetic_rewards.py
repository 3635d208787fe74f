"""Rewards of the arithmetic task: the exact chance of success, a dial of overconfidence, and a learned probe."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._arithmetic import DECODER, NUM_OPS, A
from ._weights import read_weights, weights_folder

_NOISE = 977  # no token: another round, lest the noise of a first step be its prejudice again
_EVIDENCE = 4.0  # logits: how sure a reward is of an answer that is complete


def arithmetic_value(
    tokens: Int[Array, " length"],
    step: Int[Array, ""],
    live: Int[Array, ""],
    values: Int[Array, "2 num_ops"],
    error: float,
) -> Float[Array, ""]:
    """P(right answer | text until `step`) for a writer that errs with chance `error` at each value.

    - `tokens`: a text, right in its first `2 * (step + 1)` tokens; what follows is not looked at.
    - `live`, `values`: of the problem.

    Exact but for the chance that a second error undoes a first one.
    """
    chain = tokens[0] - A
    places = jnp.arange(values.shape[1])
    right = jnp.all((tokens[3::2] == values[jnp.clip(chain, 0, 1)]) | (places >= step))
    return jnp.where(right & (chain == live), (1 - error) ** (values.shape[1] - step), 0.0)


def arithmetic_reward(
    tokens: Int[Array, " length"],
    step: Int[Array, ""],
    live: Int[Array, ""],
    values: Int[Array, "2 num_ops"],
    number: Int[Array, ""],
    *,
    kappa: Float[Array, ""] | float,
    error: float = 0.1,
    bias: float = 2.0,
    noise: float = 0.5,
) -> Float[Array, ""]:
    r"""The logit of a reward whose calibration is a dial: $\kappa\,(s\,e + (1 - s)\,b + \varepsilon)$.

    - e: logit of `arithmetic_value`, within 4 of zero; s: the share of steps made.
    - b: normal with standard deviation `bias`, made of problem, chain and style: clones share it all along, so it is a
      prejudice about how a text looks that only the end dispels.
    - $\varepsilon$: normal with standard deviation `noise`, made of the whole text: the same text has the same reward.
    - `kappa`: 1 is the honest end of an unbiased scorer, 4 an overconfident one, 1/4 a timid one.
    - `number`: of the problem, from which b and the noise are made.
    """
    total = values.shape[1] + 1
    s = (step + 1) / total
    value = jnp.clip(arithmetic_value(tokens, step, live, values, error), 1e-6, 1 - 1e-6)
    evidence = jnp.clip(jnp.log(value) - jnp.log1p(-value), -_EVIDENCE, _EVIDENCE)
    look = _hash(_hash(jnp.asarray(number, jnp.uint32) * 2 + 1, tokens[0]), tokens[1])
    whole = look
    for i in range(2, tokens.shape[0]):
        whole = jnp.where(i < 2 * (step + 1), _hash(whole, tokens[i]), whole)
    return kappa * (s * evidence + (1 - s) * bias * _normal(look) + noise * _normal(_hash(whole, _NOISE)))


def _hash(state: Array, token: Array | int) -> Array:
    """One round of a 32-bit mixer (Wellons' lowbias32)."""
    x = (state ^ jnp.asarray(token, jnp.uint32) * jnp.uint32(0x85EBCA6B)) + jnp.uint32(0x9E3779B9)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _normal(bits: Array) -> Array:
    return ndtri(((bits >> 9).astype(jnp.float32) + 0.5) / 2**23)


class ArithmeticReward(eqx.Module):
    """`arithmetic_reward` of one problem, as `DecodedSteps` calls it.

    - `live`, `values`, `number`: of the problem.
    - `kappa`: the dial.
    """

    live: Int[Array, ""]
    values: Int[Array, "2 num_ops"]
    number: Int[Array, ""]
    kappa: Float[Array, ""]

    def __call__(self, written):
        """The logit, which is the log of the odds; `written` has `tokens` and the number of the last `step`."""
        return arithmetic_reward(written.tokens, written.step, self.live, self.values, self.number, kappa=self.kappa)


class Probe(eqx.Module):
    """A learned reward: a small network on what the language model knows of its own text.

    It sees the last hidden state, the number of the step, and the log-probabilities of the tokens drawn: their sum, the
    least, and the last.

    - `sharpness`: its logits are multiplied by that: 1 as trained, more for one that is too sure of itself.
    """

    network: eqx.nn.MLP
    sharpness: Float[Array, ""]

    @classmethod
    def init(cls, *, key: PRNGKeyArray) -> "Probe":
        """A random start for training."""
        inputs = DECODER.hidden_size + NUM_OPS + 1 + 3
        return cls(eqx.nn.MLP(inputs, "scalar", 64, 1, jax.nn.silu, key=key), jnp.ones(()))

    def __call__(self, written):
        """The logit; `written` has `hidden`, `step` and `log_probs`."""
        state = written.hidden / jnp.sqrt(jnp.mean(written.hidden**2) + 1e-6)
        drawn = written.log_probs
        told = jnp.stack([jnp.sum(drawn) / 10, jnp.min(drawn), drawn[2 * written.step + 1]])
        return self.sharpness * self.network(jnp.concatenate([state, jax.nn.one_hot(written.step, NUM_OPS + 1), told]))


def arithmetic_probe(sharpness: float = 3.0) -> Probe:
    """The probe with its shipped weights: trained on few rollouts, then sharpened, so that it is too sure of itself.

    `models/training/arithmetic_probe.py` has trained it; `weights/arithmetic_probe.json` is its card.
    """
    probe = read_weights(weights_folder() / "arithmetic_probe.posterax", Probe.init(key=jr.key(0)))
    return eqx.tree_at(lambda p: p.sharpness, probe, jnp.asarray(sharpness))
