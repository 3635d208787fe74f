"""Language models inside JAX whose steps have a fixed number of tokens: their filters are jitted as a whole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from posterax_models import Decoder

from .._feynman_kac import FeynmanKac
from .._filter import FilterState, _Filter


class Written(NamedTuple):
    """A text that is to be weighed.

    - `tokens`: `(max_steps * tokens_per_step,)`, zeros where nothing has been written.
    - `step`: number of the last step, from 0.
    - `hidden`: the decoder's last hidden state.
    - `log_probs`: of each token under the law that it was drawn from, in nats; zeros where nothing has been written.
    """

    tokens: Int[Array, " length"]
    step: Int[Array, ""]
    hidden: Float[Array, " hidden"]
    log_probs: Float[Array, " length"]


class DecodedSteps(FeynmanKac):
    r"""A `Decoder` that continues a prompt, `tokens_per_step` tokens at a step, as a Feynman-Kac model.

    All samplers on Feynman-Kac models run on it; `filter_tokens` gives texts. A particle keeps the keys and values of
    its own tokens, so no token is read twice.

    - `decoder`: `decoder.unstacked()` where it is not so already.
    - `prompt`: `(p,)`, tokens.
    - `log_potential_of`: gives $\log \psi_t$ of what is `Written`: a PyTree that can be called, so that its numbers may
      change without compiling again.
    - `max_steps`, `tokens_per_step`: of an answer; all have as many.
    - `target`: "product" or "telescoping", see `Reasoning`.
    - `temperature`: of the next-token law; positive.
    """

    decoder: Decoder
    prompt: Int[Array, " p"]
    log_potential_of: Callable[[Written], Array]
    max_steps: int = eqx.field(static=True)
    tokens_per_step: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="product")
    temperature: float = 1.0

    def __check_init__(self):
        if self.target not in {"product", "telescoping"}:
            raise ValueError(f'`target` must be "product" or "telescoping"; got {self.target!r}.')
        if not isinstance(self.decoder.blocks, tuple):
            raise ValueError("`decoder` keeps its layers in one stack; pass `decoder.unstacked()`.")

    @property
    def num_steps(self) -> int:
        """`max_steps`."""
        return self.max_steps

    def start(self, *, key):
        """The first step of one particle."""
        return jax.tree.map(lambda leaf: leaf[0], self.starts(1, key=key))

    def move(self, t, before, *, key):
        """One step more of one particle."""
        one = jax.tree.map(lambda leaf: leaf[None], before)
        return jax.tree.map(lambda leaf: leaf[0], self.moves(t, one, key=key))

    def starts(self, num, *, key):
        """The prompt read once, and the first step of `num` particles."""
        length = self.prompt.size + self.num_steps * self.tokens_per_step
        logits, cache = self.decoder.extend(self.prompt, self.decoder.empty_cache(length), 0)
        again = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), (logits[-1], cache))
        tokens = jnp.zeros((num, self.num_steps * self.tokens_per_step), jnp.int32)
        log_probs = jnp.zeros(tokens.shape, again[0].dtype)
        logits, cache = again
        return self._written(0, tokens, log_probs, logits, cache, key) | {"lineage": jnp.arange(num)}

    def moves(self, t, before, *, key):
        """One step more of all particles."""
        tokens, log_probs, logits, cache = (before[name] for name in ("tokens", "log_probs", "logits", "cache"))
        written = self._written(t, tokens, log_probs, logits, cache, key)
        return written | {"lineage": before["lineage"]}

    def _written(self, t, tokens, log_probs, logits, cache, key):
        def one(j, carry):  # a loop, so that one token is compiled and not each of a step
            tokens, log_probs, logits, cache, _ = carry
            law = jax.nn.log_softmax(logits / self.temperature)
            drawn = jr.categorical(jr.fold_in(key, j), law, axis=-1).astype(jnp.int32)
            log_prob = jnp.take_along_axis(law, drawn[:, None], axis=-1)
            place = t * self.tokens_per_step + j
            tokens = jax.lax.dynamic_update_slice_in_dim(tokens, drawn[:, None], place, 1)
            log_probs = jax.lax.dynamic_update_slice_in_dim(log_probs, log_prob, place, 1)
            hidden, cache = self.decoder.read(drawn[:, None], cache, self.prompt.size + place)
            return tokens, log_probs, self.decoder.logits(hidden[:, -1]), cache, hidden[:, -1]

        hidden = jnp.zeros((len(tokens), self.decoder.config.hidden_size), logits.dtype)
        carry = (tokens, log_probs, logits, cache, hidden)
        tokens, log_probs, logits, cache, hidden = jax.lax.fori_loop(0, self.tokens_per_step, one, carry)
        written = Written(tokens, jnp.broadcast_to(t, len(tokens)), hidden, log_probs)
        log_psi = jax.vmap(self.log_potential_of)(written)
        return {"tokens": tokens, "log_probs": log_probs, "logits": logits, "cache": cache, "log_psi": log_psi}

    def log_start(self, x):
        """Log potential of the first step."""
        return x["log_psi"]

    def log_potential(self, t, before, x):
        """Log potential of the text, over that of the text before for the telescoping target."""
        return x["log_psi"] if self.target == "product" else x["log_psi"] - before["log_psi"]


class TokenPopulation(eqx.Module):
    """What `filter_tokens` gives.

    - `tokens`: `(n, num_steps * tokens_per_step)`.
    - `log_weights`, `log_potentials`: `(n,)`; the latter of the whole texts.
    - `log_evidence`: in nats; biased where the sampler's `no_evidence` says why.
    - `trace`: figures by name, `(num_steps,)`; `unique_lineages` counts the first steps that still have descendants.
    """

    tokens: Int[Array, "n length"]
    log_weights: Float[Array, " n"]
    log_potentials: Float[Array, " n"]
    log_evidence: Float[Array, ""]
    trace: dict[str, Any]


def filter_tokens(sampler: Any, model: DecodedSteps, *, key: PRNGKeyArray) -> TokenPopulation:
    """A particle filter over the steps of a decoder; can be jitted, and mapped over prompts and keys.

    - `sampler`: a `ParticleFilter` or `EntropicParticleFilter`, with `moments=False`.
    """
    if not isinstance(sampler, _Filter) or sampler.moments:
        raise TypeError(
            f"`sampler` must be a ParticleFilter or EntropicParticleFilter with `moments=False`; got {sampler!r:.80}."
        )
    start_key, step_key = jr.split(key)
    first = sampler.init(model, key=start_key)

    def lineages(state: FilterState) -> Array:
        return jnp.sum(jnp.bincount(state.particles["lineage"], length=sampler.num_particles) > 0)

    def body(state, step):
        state, told = sampler.step(model, state, key=jr.fold_in(step_key, step))
        return state, {**told, "unique_lineages": lineages(state)}

    told = {**sampler.first_info(first), "unique_lineages": lineages(first)}
    last, rows = jax.lax.scan(body, first, jnp.arange(model.num_steps - 1))
    trace = jax.tree.map(lambda one, more: jnp.concatenate([jnp.asarray(one)[None], more]), told, rows)
    particles = last.particles
    return TokenPopulation(particles["tokens"], last.log_weights, particles["log_psi"], last.log_evidence, trace)
