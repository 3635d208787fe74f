"""A causal transformer in the architecture of Llama and Qwen2, for training and for generation with a cache."""

import math
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

Place = int | Int[Array, "*batch"]


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretch of the rotary wavelengths, by which a model reads texts longer than it was trained on.

    - `factor`: what wavelengths beyond `original_length / low_freq_factor` tokens are multiplied by; those under
      `original_length / high_freq_factor` stay, and between the two the frequency is interpolated.
    - `original_length`: tokens, `original_max_position_embeddings` in published files.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def __post_init__(self):
        if min(self.factor, self.low_freq_factor, self.original_length) <= 0:
            raise ValueError(f"Every number of `rope_scaling` must be positive; got {self}.")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(f"`high_freq_factor` must be greater than `low_freq_factor`; got {self}.")


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a `Decoder`.

    - `vocab_size`, `hidden_size`, `intermediate_size`, `num_layers`, `num_heads`: sizes, all at least 1.
    - `num_kv_heads`: a divisor of `num_heads`; each key and value is shared by `num_heads / num_kv_heads` queries.
      0 stands for `num_heads`.
    - `head_dim`: even; 0 stands for `hidden_size / num_heads`.
    - `rope_theta`: base of the rotary wavelengths, the longest being about `2π rope_theta` tokens.
    - `rope_scaling`: None for plain rotary embeddings.
    - `rms_norm_eps`: added to the mean square before its root is taken.
    - `attention_bias`: biases of queries, keys and values, as in Qwen2.
    - `tie_embeddings`: the matrix that embeds tokens also makes the logits.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int = 0
    head_dim: int = 0
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_embeddings: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
        object.__setattr__(self, "num_kv_heads", self.num_kv_heads or self.num_heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // self.num_heads)
        if self.num_kv_heads < 0 or self.num_heads % self.num_kv_heads:
            raise ValueError(f"`num_kv_heads` must divide `num_heads`, {self.num_heads}; got {self.num_kv_heads}.")
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"`head_dim` must be positive and even; got {self.head_dim}. Rotations act on pairs.")
        if self.rope_theta <= 0:
            raise ValueError(f"`rope_theta` must be positive; got {self.rope_theta}.")


class Cache(eqx.Module):
    """Keys (already rotated) and values of the tokens read so far.

    Each of shape `(kv_heads, length, head_dim)`, after an axis of layers (unless `Decoder.unstacked`) and one of the
    batch, if there is one.
    """

    k: Float[Array, "*layers_and_batch kv_heads length head_dim"]
    v: Float[Array, "*layers_and_batch kv_heads length head_dim"]


Caches = Cache | tuple[Cache, ...]  # the latter a layer each


class Block(eqx.Module):
    """One layer's parameters, or with a leading axis those of all layers.

    Every matrix takes its input from the left, `(in, out)`. `qkv` holds queries, keys and values side by side along
    its outputs, each of them head by head; `gate_up` the gate and then what it gates.
    """

    attention_norm: Float[Array, "*layers hidden"]
    qkv: Float[Array, "*layers hidden qkv"]
    qkv_bias: Float[Array, "*layers qkv"] | None
    out: Float[Array, "*layers heads hidden"]
    mlp_norm: Float[Array, "*layers hidden"]
    gate_up: Float[Array, "*layers hidden two_intermediate"]
    down: Float[Array, "*layers intermediate hidden"]


class Decoder(eqx.Module):
    r"""A causal transformer: the logits of each next token of a sequence.

    Layers $x \leftarrow x + A(N(x))$, then $x \leftarrow x + W_d(\mathrm{silu}(W_g y) \odot W_u y)$ with $y = N(x)$,
    where $N$ divides by the root mean square and $A$ is grouped-query attention with rotated queries and keys.
    Matrices may be of lower precision (bfloat16) than the norms, whose precision all the rest keeps.

    - `embedding`: `(vocab, hidden)`.
    - `blocks`: parameters of all layers, stacked along the first axis; or a layer each (`unstacked`).
    - `norm`: `(hidden,)`, the last norm.
    - `head`: `(hidden, vocab)`; None where `config.tie_embeddings`.

    Sources: Touvron et al. (2023), arXiv:2302.13971, section 2.2; rotary embeddings Su et al. (2021),
    arXiv:2104.09864, equation 34, pairing coordinate i with i + head_dim / 2 as published weights do; grouped
    queries Ainslie et al. (2023), arXiv:2305.13245; biases Yang et al. (2024), arXiv:2407.10671, section 2.2.
    """

    embedding: Float[Array, "vocab hidden"]
    blocks: Block | tuple[Block, ...]
    norm: Float[Array, " hidden"]
    head: Float[Array, "hidden vocab"] | None
    config: DecoderConfig = eqx.field(static=True)

    @classmethod
    def init(cls, config: DecoderConfig, *, key: PRNGKeyArray) -> "Decoder":
        r"""A random start for training.

        Matrices are normal with standard deviation $1/\sqrt{\text{inputs}}$, those that write to the residual
        stream divided by $\sqrt{2 \cdot \text{layers}}$; embeddings and head have 0.02, so that the first
        predictions are nearly uniform. Norms are 1, biases 0.
        """
        c, keys = config, iter(jr.split(key, 6))

        def normal(sd: float, *shape: int) -> Array:
            return sd * jr.normal(next(keys), shape)

        def layers(inputs: int, outputs: int, scale: float = 1.0) -> Array:
            return normal(scale / math.sqrt(inputs), c.num_layers, inputs, outputs)

        heads, width = c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        residual = 1 / math.sqrt(2 * c.num_layers)
        blocks = Block(
            attention_norm=jnp.ones((c.num_layers, c.hidden_size)),
            qkv=layers(c.hidden_size, width),
            qkv_bias=jnp.zeros((c.num_layers, width)) if c.attention_bias else None,
            out=layers(heads, c.hidden_size, residual),
            mlp_norm=jnp.ones((c.num_layers, c.hidden_size)),
            gate_up=layers(c.hidden_size, 2 * c.intermediate_size),
            down=layers(c.intermediate_size, c.hidden_size, residual),
        )
        embedding = normal(0.02, c.vocab_size, c.hidden_size)
        head = None if c.tie_embeddings else normal(0.02, c.hidden_size, c.vocab_size)
        return cls(embedding, blocks, jnp.ones(c.hidden_size), head, c)

    def __call__(self, tokens: Int[Array, " time"]) -> Float[Array, "time vocab"]:
        """Logits of the next token after each token of one sequence, `(T, V)`; use `jax.vmap` for many."""
        return self.logits(self.read(tokens, None, 0)[0])

    def unstacked(self) -> "Decoder":
        """The same decoder with a pytree for each layer: slower to compile, and no copy of a layer to compute it."""
        if isinstance(self.blocks, tuple):
            return self
        blocks = tuple(jax.tree.map(itemgetter(i), self.blocks) for i in range(self.config.num_layers))
        return Decoder(self.embedding, blocks, self.norm, self.head, self.config)

    def empty_cache(self, length: int, batch: tuple[int, ...] = ()) -> Caches:
        """Room for `length` tokens of each sequence; `batch` is `()` or `(sequences,)`."""
        c = self.config

        def zeros(*layers: int) -> Cache:
            none = jnp.zeros((*layers, *batch, c.num_kv_heads, length, c.head_dim), self.norm.dtype)
            return Cache(none, none)

        return tuple(zeros() for _ in self.blocks) if isinstance(self.blocks, tuple) else zeros(c.num_layers)

    def extend(
        self, tokens: Int[Array, "*batch time"], cache: Caches, position: Place, start: Place = 0
    ) -> tuple[Float[Array, "*batch time vocab"], Caches]:
        """Logits after each of the tokens, which follow on what `cache` holds, and the cache with them.

        - `tokens`: `(t,)`, or `(batch, t)` with a cache of as many sequences.
        - `position`: where in the cache the first token goes, the same for the whole batch; may be traced. Beyond
          `length - t` it would be moved back in silence: the caller sees to it that there is room.
        - `start`: the first place that counts, 0 unless sequences are padded on the left; one number, or one a
          sequence, `(batch,)`. Rotations count from there.

        Under `jax.vmap` the cache would be copied at each call; a batch here is written in place.
        """
        hidden, cache = self.read(tokens, cache, position, start)
        return self.logits(hidden), cache

    def read(
        self, tokens: Int[Array, "*batch time"], cache: Caches | None, position: Place, start: Place = 0
    ) -> tuple[Float[Array, "*batch time hidden"], Any]:
        """As `extend`, but what `logits` takes, `(..., t, hidden)`; without a cache (None), None comes back."""
        places, start = position + jnp.arange(tokens.shape[-1]), jnp.asarray(start)[..., None]
        length = tokens.shape[-1] if cache is None else jax.tree.leaves(cache)[0].shape[-2]
        held = jnp.arange(length) + (position if cache is None else 0)
        # Padding sees itself, lest it have nothing to see and become NaN.
        seen = (held <= places[:, None]) & ((held >= start[..., None]) | (held == places[:, None]))
        rotation = _rotation(self.config, places - start, self.norm.dtype)

        def layer(x, now: tuple[Block, Any]):
            return _layer(self.config, now[0], now[1], x, rotation, seen, position)

        x = self.embedding[tokens].astype(self.norm.dtype)
        if not isinstance(self.blocks, tuple):
            return jax.lax.scan(layer, x, (self.blocks, cache))
        caches = []
        for i, block in enumerate(self.blocks):
            x, layer_cache = layer(x, (block, cache[i] if isinstance(cache, tuple) else None))
            caches.append(layer_cache)
        return x, None if cache is None else tuple(caches)

    def logits(self, hidden: Float[Array, "*time hidden"]) -> Float[Array, "*time vocab"]:
        """Logits from what `read` returns."""
        normed = _rms_norm(hidden, self.norm, self.config.rms_norm_eps)
        return _times(normed, self.embedding.T if self.head is None else self.head)


def _layer(config: DecoderConfig, block: Block, cache: Cache | None, x, rotation, seen, position):
    """One layer on `(..., t, hidden)`, and the cache with what is new."""
    c, eps, shape = config, config.rms_norm_eps, x.shape[:-1]
    qkv = _times(_rms_norm(x, block.attention_norm, eps), block.qkv)
    if block.qkv_bias is not None:
        qkv = qkv + block.qkv_bias.astype(qkv.dtype)
    qkv = qkv.reshape(*shape, c.num_heads + 2 * c.num_kv_heads, c.head_dim)
    qk, v = jnp.split(qkv, [c.num_heads + c.num_kv_heads], axis=-2)
    q, k = jnp.split(_rotate(qk, rotation), [c.num_heads], axis=-2)
    q = q.reshape(*shape, c.num_kv_heads, -1, c.head_dim) / math.sqrt(c.head_dim)
    new = Cache(k.swapaxes(-3, -2), v.swapaxes(-3, -2))
    if cache is not None:
        # Written first and read then: the other way about, a loop over tokens would copy the cache at each turn.
        new = cache = jax.tree.map(
            partial(jax.lax.dynamic_update_slice_in_dim, start_index=position, axis=-2), cache, new
        )
    scores = jnp.einsum("...ksh,...tkgh->...kgts", new.k, q)
    weights = jax.nn.softmax(jnp.where(seen[..., None, None, :, :], scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("...kgts,...ksh->...tkgh", weights, new.v)
    x = x + _times(mixed.reshape(*shape, -1), block.out)
    gate, up = jnp.split(_times(_rms_norm(x, block.mlp_norm, eps), block.gate_up), 2, axis=-1)
    return x + _times(jax.nn.silu(gate) * up, block.down), cache


def _times(x: Array, matrix: Array) -> Array:
    return jnp.matmul(x.astype(matrix.dtype), matrix, preferred_element_type=x.dtype)


def _rms_norm(x: Array, scale: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * scale


def _rotation(config: DecoderConfig, positions: Array, dtype) -> Array:
    """Cosines and sines, `(2, ..., t, 1, head_dim / 2)`."""
    frequencies = config.rope_theta ** (-jnp.arange(0, config.head_dim, 2) / config.head_dim)
    if (s := config.rope_scaling) is not None:
        turns = s.original_length * frequencies / (2 * math.pi)
        kept = jnp.clip((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0)
        frequencies = frequencies * (kept + (1 - kept) / s.factor)
    angles = positions[..., None, None] * frequencies
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)]).astype(dtype)


def _rotate(x: Array, rotation: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = rotation
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
