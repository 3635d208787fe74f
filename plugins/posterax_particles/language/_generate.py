"""Tokens drawn from a decoder for many prompts at once."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from posterax_models._decoder import Cache, Decoder


@dataclass(frozen=True)
class Generated:
    """What `generate` found, a row a prompt, in NumPy arrays.

    - `tokens`: `(rows, max_tokens)`, the stop token included; 0 from `lengths` on.
    - `log_probs`: of each token under the law it was drawn from, in nats, `(rows, max_tokens)`; 0 from `lengths` on.
    - `lengths`: tokens of each row, at least 1.
    - `stopped`: whether the row ended with a stop token; if not, it ended for its length.
    """

    tokens: Int[np.ndarray, "rows max_tokens"]
    log_probs: Float[np.ndarray, "rows max_tokens"]
    lengths: Int[np.ndarray, " rows"]
    stopped: Bool[np.ndarray, " rows"]

    def row(self, number: int) -> list[int]:
        """The tokens of one row."""
        return self.tokens[number, : self.lengths[number]].tolist()


class PrefixCache:
    """Keys and values of sequences that were read before, so that their continuations need not read them again.

    - `entries`: how many sequences are kept; the one that was not used for the longest time goes first. Each takes
      `8 * layers * kv_heads * head_dim` bytes a token.

    It serves one decoder, the first that it is given with.
    """

    def __init__(self, entries: int = 256):
        if entries < 1:
            raise ValueError(f"`entries` must be at least 1; got {entries}.")
        self.entries = entries
        self._held: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._decoder: Decoder | None = None

    def __len__(self) -> int:
        return len(self._held)

    def longest(self, tokens: tuple[int, ...]) -> tuple[int, np.ndarray | None]:
        """How many of the first tokens are known, and the keys and values of at least these, as in `put`."""
        best, found = 0, None
        for held in self._held:
            if (common := _common(held, tokens)) > best:
                best, found = common, held
        if found is None:
            return 0, None
        self._held.move_to_end(found)
        return best, self._held[found]

    def put(self, tokens: tuple[int, ...], kv: np.ndarray) -> None:
        """Keeps keys and values of a sequence, `(layers, 2, kv_heads, len(tokens), head_dim)`."""
        self._held[tokens] = kv
        self._held.move_to_end(tokens)
        while len(self._held) > self.entries:
            self._held.popitem(last=False)

    def serve(self, decoder: Decoder) -> None:
        """Raises ValueError if another decoder made what is kept."""
        self._decoder = self._decoder or decoder
        if self._decoder is not decoder:
            raise ValueError("`cache` holds what another decoder has read; make a `PrefixCache` for each decoder.")


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    size = min(len(first), len(second))
    if first[:size] == second[:size]:
        return size
    return next(i for i in range(size) if first[i] != second[i])


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    key: PRNGKeyArray,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop_ids: Iterable[int] = (),
    cache: PrefixCache | None = None,
) -> Generated:
    r"""Draws a continuation of each prompt.

    - `prompts`: token ids, at least one a row; rows may differ in length.
    - `max_tokens`: tokens of a continuation at most.
    - `key`: one key, or one a row. A row depends on its own key alone, not on the other rows (beyond the rounding
      of sums); of one key, row i takes `fold_in(key, i)`.
    - `temperature`: the law is $p^{1/\mathrm{temperature}}$, normalised. At 0 the likeliest token is taken, and
      `log_probs` are those at temperature 1.
    - `top_p`: draws come from the likeliest tokens only, as few as hold this probability (Holtzman et al. 2020,
      arXiv:1904.09751, section 3.1; ties with the last of them are kept); `log_probs` are of that law.
    - `stop_ids`: a row ends after any of them.
    - `cache`: read and added to, so that a prompt which continues an earlier one with its answer costs only what
      is new.

    Raises ValueError for arguments out of range, tokens outside the vocabulary among them.

    Programs are compiled for sizes rounded up (lengths and rows to powers of two, rows beyond 64 to multiples of 64).
    Prompts are padded on the left, so the whole batch writes its keys and values at the same place.
    """
    prompts = [tuple(map(int, prompt)) for prompt in prompts]
    stop = tuple(sorted({int(token) for token in stop_ids}))
    _require(decoder, prompts, max_tokens, temperature, top_p, stop)
    rows, room = len(prompts), _power_of_two(max_tokens)
    if rows == 0:
        none = np.zeros((0, max_tokens))
        return Generated(none.astype(np.int32), none.astype(np.float32), np.zeros(0, np.int32), np.zeros(0, bool))
    tokens, past, start = _padded(decoder, prompts, cache)
    settings = _Settings(room, greedy=temperature == 0, nucleus=top_p < 1, keep=cache is not None)
    found, kv = _run(
        decoder, tokens, past, start, _uniforms(key, rows, len(start), room), np.arange(len(start)) < rows,
        _filled(stop), np.int32(max_tokens), np.float32(temperature or 1), np.float32(top_p), settings,
    )  # fmt: skip
    found = Generated(*(np.asarray(leaf)[:rows] for leaf in found))
    if cache is not None:
        kv = np.stack([np.stack([layer.k, layer.v]) for layer in kv])
        for i, prompt in enumerate(prompts):
            read = prompt + tuple(found.row(i)[:-1])  # the last token was drawn and never read
            cache.put(read, kv[:, :, i, :, start[i] : start[i] + len(read)].copy())
    return Generated(found.tokens[:, :max_tokens], found.log_probs[:, :max_tokens], found.lengths, found.stopped)


def _require(decoder, prompts, max_tokens, temperature, top_p, stop) -> None:
    if max_tokens < 1:
        raise ValueError(f"`max_tokens` must be at least 1; got {max_tokens}.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"`temperature` must be 0 or greater, and finite; got {temperature}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"`top_p` must be above 0 and at most 1; got {top_p}.")
    vocabulary = decoder.config.vocab_size
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"Every prompt must have a token to go on from; prompt {i} has none. Begin it with BOS.")
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise ValueError(
                f"Tokens must be in 0 ... {vocabulary - 1}; prompt {i} spans {min(prompt)} ... {max(prompt)}."
            )
    if stop and (stop[0] < 0 or stop[-1] >= vocabulary):
        raise ValueError(f"`stop_ids` must be in 0 ... {vocabulary - 1}; got {list(stop)}.")


def _uniforms(key: PRNGKeyArray, rows: int, padded: int, steps: int) -> Float[Array, "steps padded 2"]:
    typed = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jr.wrap_key_data(key)
    if typed.shape not in {(), (rows,)}:
        raise ValueError(f"`key` must be one key, or one a row, ({rows},); got keys of shape {typed.shape}.")
    data, number = np.asarray(jr.key_data(typed)), np.arange(padded)
    if typed.ndim == 0:
        data = np.broadcast_to(data, (padded, *data.shape))
    else:
        data, number = data[np.minimum(number, rows - 1)], 0 * number
    return _drawn(data, number, jr.key_impl(typed), steps)


@partial(jax.jit, static_argnums=(2, 3))
def _drawn(data, number, kind, steps: int):
    def row(data, number):
        return jr.uniform(jr.fold_in(jr.wrap_key_data(data, impl=kind), number), (steps, 2))

    return jax.vmap(row, out_axes=1)(data, number)


def _filled(stop: tuple[int, ...]) -> Int[np.ndarray, " n"]:
    """Stop tokens and as many that are none as make a multiple of 8, so that few shapes occur."""
    return np.array(stop + (-1,) * (8 - len(stop) % 8), np.int32)


def _power_of_two(number: int) -> int:
    return max(8, 1 << (int(number) - 1).bit_length())


def _round_rows(rows: int) -> int:
    return 1 << (rows - 1).bit_length() if rows <= 64 else -(-rows // 64) * 64


def _padded(decoder: Decoder, prompts: list[tuple[int, ...]], cache: PrefixCache | None) -> tuple:
    """What is to be read, `(rows, t)`, what was read before that, and where each row starts.

    All rows end at the same place. What is read is as long as the least known row needs.
    """
    c, rows = decoder.config, _round_rows(len(prompts))
    width = _power_of_two(max(map(len, prompts)))
    known, held = dict.fromkeys(prompts, 0), {}
    if cache is not None:
        cache.serve(decoder)
        for prompt in known:
            known[prompt], held[prompt] = cache.longest(prompt[:-1])
    new = min(width, _power_of_two(max(len(prompt) - known[prompt] for prompt in prompts)))
    tokens, start = np.zeros((rows, new), np.int32), np.full(rows, width - 1, np.int32)
    past = np.zeros((c.num_layers, 2, rows, c.num_kv_heads, width - new, c.head_dim), decoder.norm.dtype)
    for i, prompt in enumerate(prompts):
        start[i] = width - len(prompt)
        recent = prompt[-new:]
        tokens[i, new - len(recent) :] = recent
        if (before := len(prompt) - len(recent)) > 0:
            past[:, :, i, :, start[i] :] = held[prompt][:, :, :, :before]
    return tokens, tuple(Cache(*layer) for layer in past), start


class _Settings(NamedTuple):
    room: int
    greedy: bool
    nucleus: bool
    keep: bool


class _State(NamedTuple):
    step: Array
    cache: tuple[Cache, ...]
    last: Array
    tokens: Array
    log_probs: Array
    lengths: Array
    running: Array


@eqx.filter_jit
def _run(decoder, tokens, past, start, uniforms, running, stop, limit, temperature, top_p, settings: _Settings) -> Any:
    decoder = decoder.unstacked()
    rows, width = len(start), past[0].k.shape[-2] + tokens.shape[1]

    def draw(logits, u):
        if settings.greedy:
            log_p = jax.nn.log_softmax(logits)
            return log_p, log_p.argmax(-1)
        log_p = jax.nn.log_softmax(logits / temperature)
        log_p = _nucleus(log_p, top_p) if settings.nucleus else log_p
        return log_p, jax.vmap(_inverted)(log_p, u)

    def body(state: _State) -> _State:
        step = state.step
        logits, cache = decoder.extend(state.last[:, None], state.cache, width - 1 + step, start)
        log_p, drawn = draw(logits[:, 0], uniforms[step])
        log_prob = jnp.take_along_axis(log_p, drawn[:, None], axis=1)[:, 0]
        drawn, log_prob = jnp.where(state.running, drawn, 0), jnp.where(state.running, log_prob, 0)
        return _State(
            step + 1,
            cache,
            last=drawn,
            tokens=state.tokens.at[step].set(drawn),
            log_probs=state.log_probs.at[step].set(log_prob),
            lengths=state.lengths + state.running,
            running=state.running & ~(drawn[:, None] == stop).any(-1),
        )

    # The last token of the prompts is read by the loop, which so is the only place that makes logits and draws.
    cache = _longer(past, tokens.shape[1] - 1)
    _, cache = decoder.read(tokens[:, :-1], cache, width - tokens.shape[1], start)
    cache = _longer(cache, settings.room + 1)
    none = jnp.zeros((settings.room, rows), jnp.int32)
    state = _State(jnp.int32(0), cache, tokens[:, -1], none, none.astype(float), none[0], running)
    state = jax.lax.while_loop(lambda state: (state.step < limit) & state.running.any(), body, state)
    found = state.tokens.T, state.log_probs.T, state.lengths, ~state.running
    return found, state.cache if settings.keep else None


def _longer(cache, more: int):
    return jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0),) * 2 + ((0, more), (0, 0))), cache)


def _inverted(log_p: Float[Array, " vocab"], u: Float[Array, "2"]) -> Int[Array, ""]:
    """A draw by inversion, of a block and then within it.

    Two random numbers a draw where the Gumbel-max way wants one an entry; and having two, probabilities far below a
    float32 number's resolution of 2^-23 keep their share.
    """
    block = 1 << math.isqrt(log_p.size - 1).bit_length()
    p = jnp.pad(jnp.exp(log_p), (0, -log_p.size % block)).reshape(-1, block)
    chosen = _inverse(p.sum(-1), u[0])
    return chosen * block + _inverse(p[chosen], u[1])


def _inverse(weights: Float[Array, " n"], u: Float[Array, ""]) -> Int[Array, ""]:
    sums = jnp.cumsum(weights)
    possible = jnp.max(jnp.where(weights > 0, jnp.arange(weights.size), 0))
    # Rounding may leave all sums at the mark or below it: it goes to the last entry that is possible.
    return jnp.minimum((sums <= u * sums[-1]).sum(), possible)


def _nucleus(log_p: Float[Array, "rows vocab"], top_p: Array) -> Float[Array, "rows vocab"]:
    """The law of the likeliest tokens that together have probability `top_p`."""
    ranked = -jnp.sort(-log_p, axis=-1)
    p = jnp.exp(ranked)
    last = (jnp.cumsum(p, axis=-1) - p < top_p).sum(-1, keepdims=True) - 1
    bar = jnp.take_along_axis(ranked, last, axis=-1)
    return jax.nn.log_softmax(jnp.where(log_p >= bar, log_p, -jnp.inf))
