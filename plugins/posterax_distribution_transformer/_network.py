"""The network: tokens of the prior attend to each other and to the data, and each becomes a normal of the posterior."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._tokens import LIMITS, Tokens

TRUNKS = ("transformer", "deepsets")


class Perceptron(eqx.Module):
    """Two dense layers with GELU between them, of rows `(..., in)`."""

    first: Float[Array, "in hidden"]
    first_bias: Float[Array, " hidden"]
    second: Float[Array, "hidden out"]
    second_bias: Float[Array, " out"]

    @staticmethod
    def init(size: int, hidden: int, out: int, rng: np.random.Generator, *, zero: bool = False) -> "Perceptron":
        """Random weights of variance 1 / inputs; with `zero` the output is 0 at first."""
        second = _zeros(hidden, out) if zero else _random(rng, (hidden, out), hidden)
        return Perceptron(_random(rng, (size, hidden), size), _zeros(hidden), second, _zeros(out))

    def __call__(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """The outputs."""
        return jax.nn.gelu(x @ self.first + self.first_bias) @ self.second + self.second_bias


class Norm(eqx.Module):
    """Brings each row to mean 0 and variance 1, then scales and shifts it."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]

    @staticmethod
    def init(size: int) -> "Norm":
        """The identity after normalising."""
        return Norm(1 + _zeros(size), _zeros(size))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """The normalised rows."""
        off = x - x.mean(-1, keepdims=True)
        return off * jax.lax.rsqrt(jnp.mean(off**2, -1, keepdims=True) + 1e-6) * self.scale + self.shift


class Attention(eqx.Module):
    """Multi-head attention of tokens to a memory."""

    query: Float[Array, "d h c"]
    key: Float[Array, "d h c"]
    value: Float[Array, "d h c"]
    out: Float[Array, "h c d"]

    @staticmethod
    def init(size: int, heads: int, rng: np.random.Generator, *, zero: bool) -> "Attention":
        """Random weights of variance 1 / inputs; with `zero` the output is 0 at first."""
        shape = (size, heads, size // heads)
        query, key, value = (_random(rng, shape, size) for _ in range(3))
        out = _zeros(*shape[1:], size) if zero else _random(rng, (*shape[1:], size), size)
        return Attention(query, key, value, out)

    def __call__(
        self, x: Float[Array, "k d"], memory: Float[Array, "m d"], present: Bool[Array, " m"]
    ) -> Float[Array, "k d"]:
        """What each token takes from the memory's rows that are present; nothing where none is."""
        query, key, value = (
            jnp.einsum("td,dhc->thc", rows, weights)
            for rows, weights in ((x, self.query), (memory, self.key), (memory, self.value))
        )
        logits = jnp.einsum("khc,mhc->hkm", query, key) / math.sqrt(query.shape[-1])
        logits = jnp.where(present, logits, -1e9)
        weights = jnp.where(present, jax.nn.softmax(logits, -1), 0.0)
        return jnp.einsum("khc,hcd->kd", jnp.einsum("hkm,mhc->khc", weights, value), self.out)


class Block(eqx.Module):
    """One layer of the trunk: self-attention, cross-attention, perceptron, each added to what came in."""

    among: Attention
    across: Attention
    rows: Perceptron
    norms: tuple[Norm, Norm, Norm]
    memory_norm: Norm

    @staticmethod
    def init(width: int, heads: int, hidden: int, rng: np.random.Generator) -> "Block":
        """Self-attention and perceptron add nothing at first."""
        return Block(
            Attention.init(width, heads, rng, zero=True), Attention.init(width, heads, rng, zero=False),
            Perceptron.init(width, hidden, width, rng, zero=True),
            (Norm.init(width), Norm.init(width), Norm.init(width)), Norm.init(width),
        )  # fmt: skip

    def __call__(self, x, live, memory, present):
        """The tokens, one layer on."""
        y = self.norms[0](x)
        x = x + self.among(y, y, live)
        x = x + self.across(self.norms[1](x), self.memory_norm(memory), present)
        return x + self.rows(self.norms[2](x))


class Mixing(eqx.Module):
    """A layer of the encoder: rows of data attend to each other, then a perceptron, each added to what came in."""

    among: Attention
    rows: Perceptron
    norms: tuple[Norm, Norm]

    @staticmethod
    def init(width: int, heads: int, hidden: int, rng: np.random.Generator) -> "Mixing":
        """Adds nothing at first."""
        among = Attention.init(width, heads, rng, zero=True)
        rows = Perceptron.init(width, hidden, width, rng, zero=True)
        return Mixing(among, rows, (Norm.init(width), Norm.init(width)))

    def __call__(self, x, present):
        """The rows, one layer on."""
        y = self.norms[0](x)
        x = x + self.among(y, y, present)
        return x + self.rows(self.norms[1](x))


class Pooled(eqx.Module):
    """A layer without attention: each token sees the means of all tokens and of the data (deep sets)."""

    rows: Perceptron
    norms: tuple[Norm, Norm]

    @staticmethod
    def init(width: int, heads: int, hidden: int, rng: np.random.Generator) -> "Pooled":
        """Adds nothing at first."""
        del heads
        rows = Perceptron.init(3 * width, hidden, width, rng, zero=True)
        return Pooled(rows, (Norm.init(width), Norm.init(width)))

    def __call__(self, x, live, memory, present):
        """The tokens, one layer on."""
        y, seen = self.norms[0](x), self.norms[1](memory)
        means = [_mean(rows, there) for rows, there in ((y, live), (seen, present))]
        wide = [jnp.broadcast_to(mean, x.shape) for mean in means]
        return x + self.rows(jnp.concatenate([y, *wide], -1))


def _random(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Array:
    return jnp.asarray(rng.normal(size=shape) / math.sqrt(inputs), jnp.float32)


def _zeros(*shape: int) -> Array:
    return jnp.asarray(np.zeros(shape), jnp.float32)


def _mean(rows: Array, there: Array) -> Array:
    return jnp.where(there[:, None], rows, 0.0).sum(0) / jnp.maximum(there.sum(), 1)


class Network(eqx.Module):
    """From numbers that describe prior and data to those that describe a mixture of normals.

    - `prior`: embeds each component of a mixture prior, or all parameters of another one.
    - `slots`: for parameters: makes K tokens of their embedding. None for mixtures.
    - `sources`: one for each source of data: embeds its rows.
    - `layers`: the trunk's, stacked.
    - `head`: from a token to the numbers of a normal; prior and posterior share it.
    - `encoder`: layers among the rows of data, stacked; or None.
    - `residual`: the head's numbers are added to those of the prior's components.
    """

    prior: Perceptron
    slots: Perceptron | None
    sources: tuple[Perceptron, ...]
    layers: Block | Pooled
    head: Perceptron
    encoder: Mixing | None = None
    residual: bool = eqx.field(static=True, default=False)

    def __call__(self, seen: Tokens) -> tuple[Float[Array, "K p"], Float[Array, "K p"]]:
        """Numbers of the prior's and of the posterior's normals, `(K, p)` each: see `read`."""
        tokens, live = self.prior(seen.prior), seen.live
        if self.slots is not None:
            tokens = jax.vmap(lambda slot: slot(tokens[0]))(self.slots)
        memory = jnp.concatenate([embed(rows) for embed, rows in zip(self.sources, seen.sources, strict=True)])
        present = jnp.concatenate(seen.present)
        if self.encoder is not None:
            memory, _ = jax.lax.scan(lambda rows, mix: (mix(rows, present), None), memory, self.encoder)
        last, _ = jax.lax.scan(lambda x, block: (block(x, live, memory, present), None), tokens, self.layers)
        before, after = self.head(tokens), self.head(last)
        return (before + seen.prior, after + seen.prior) if self.residual else (before, after)


def make_network(
    prior_size: int, source_sizes: Sequence[int], num_slots: int, out: int,
    *, width: int, heads: int, depth: int, hidden: int, trunk: str, encoder_depth: int, residual: bool,
    key: PRNGKeyArray,
) -> Network:  # fmt: skip
    """A network at random.

    - `num_slots`: K for a prior of parameters; 0 for mixtures, whose components are the tokens.
    - `encoder_depth`: layers among the rows of data; 0 for none.
    - `residual`: for mixtures: the head changes the prior's components, and at first not at all.
    """
    rng = np.random.default_rng(np.asarray(jr.key_data(key)).ravel().tolist())
    layer = {"transformer": Block, "deepsets": Pooled}[trunk]

    def perceptron(size: int, out: int) -> Perceptron:
        return Perceptron.init(size, width, out, rng)

    return Network(
        prior=perceptron(prior_size, width),
        slots=_stacked([perceptron(width, width) for _ in range(num_slots)]) if num_slots else None,
        sources=tuple(perceptron(size, width) for size in source_sizes),
        layers=_stacked([layer.init(width, heads, hidden, rng) for _ in range(depth)]),
        head=Perceptron.init(width, width, out, rng, zero=residual),
        encoder=_stacked([Mixing.init(width, heads, hidden, rng) for _ in range(encoder_depth)])
        if encoder_depth
        else None,
        residual=residual,
    )


def _stacked(modules: list) -> Any:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *modules)


class Whitened(eqx.Module):
    """A mixture of normals by the matrices that whiten its components: what the head speaks of.

    - `log_weights`: `(..., K)`. `mean`: `(..., K, n)`.
    - `log_scale`: `(..., K, n)`, $-\\log d$. `lower`: `(..., K, n, n)`, unit lower triangular B.

    Component k is the law of x with D B (x - mean) standard normal, D diagonal with entries d: its covariance is
    $(D B)^{-1} (D B)^{-\\top}$, and no triangular system is to be solved for its density.
    """

    log_weights: Float[Array, "... K"]
    mean: Float[Array, "... K n"]
    log_scale: Float[Array, "... K n"]
    lower: Float[Array, "... K n n"]

    def log_prob(self, x: Float[Array, "... n"]) -> Float[Array, "..."]:
        """Log density, in nats."""
        off = x[..., None, :] - self.mean
        white = jnp.einsum("...ij,...j->...i", self.lower, off) * jnp.exp(-self.log_scale)
        each = -0.5 * jnp.sum(white**2, -1) - jnp.sum(self.log_scale, -1)
        return jax.nn.logsumexp(self.log_weights + each, -1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)


def read(numbers: Float[Array, "K p"], live: Bool[Array, " K"], size: int) -> Whitened:
    """The mixture that a head's outputs stand for: logit of the weight, mean, logarithms of scales, what is below B.

    - `size`: n. Without numbers for B, components are independent normals.
    """
    log_weights = jax.nn.log_softmax(jnp.where(live, numbers[..., 0], -jnp.inf), -1)
    mean, log_scale = numbers[..., 1 : 1 + size], jnp.clip(numbers[..., 1 + size : 1 + 2 * size], *LIMITS)
    lower = jnp.broadcast_to(jnp.eye(size), (*mean.shape, size))
    below = numbers[..., 1 + 2 * size :]
    if below.shape[-1]:
        rows, columns = jnp.tril_indices(size, -1)
        lower = lower.at[..., rows, columns].set(below)
    return Whitened(log_weights, mean, log_scale, lower)
