"""The decoder against its own full forward pass; against `transformers` it is held where it is loaded."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax_models import Decoder, DecoderConfig, RopeScaling
from posterax_particles.language._generate import PrefixCache, generate

TINY = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_heads": 4}
STRETCHED = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=16)
VARIANTS = {
    "plain": {},
    "grouped": {"num_kv_heads": 2, "attention_bias": True},
    "single-kv-head": {"num_kv_heads": 1, "head_dim": 6, "tie_embeddings": True},
    "stretched": {"rope_theta": 100.0, "rope_scaling": STRETCHED},
}


@functools.cache
def made(variant="grouped"):
    shapes = eqx.filter_eval_shape(Decoder.init, DecoderConfig(**TINY, **VARIANTS[variant]), key=jr.key(0))
    rng = np.random.default_rng(3)

    def leaf(shape):  # larger than the start for training: clear favourites, and biases that are not zero
        normal = rng.normal(size=shape.shape)
        return jnp.asarray(1 + 0.1 * normal if shape.shape[-2:] in {(16,), (2, 16)} else 0.4 * normal, jnp.float32)

    return jax.tree.map(leaf, shapes)


_full = eqx.filter_jit(Decoder.__call__)


def full(decoder, tokens):
    """Logits of one sequence, by a program for 16 tokens: what follows a token does not change its logits."""
    return np.asarray(_full(decoder, np.pad(tokens, (0, 16 - len(tokens)))))[: len(tokens)]


@eqx.filter_jit
def _extend(decoder, tokens, cache, position, start):
    return decoder.extend(tokens, cache, position, start)


def extend(decoder, tokens, cache, position, start=0):
    return _extend(decoder, tokens, cache, jnp.asarray(position), jnp.asarray(start))


def drawn(shape, seed=0):
    return np.random.default_rng(seed).integers(0, TINY["vocab_size"], shape)


# The cache


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sequence_read_in_pieces_has_the_logits_of_the_whole(variant):
    decoder, tokens = made(variant), drawn(12)
    for form in (decoder, decoder.unstacked()) if variant == "grouped" else (decoder,):
        cache, pieces = form.empty_cache(16), []
        for begin in (0, 4, 8):
            logits, cache = extend(form, tokens[begin : begin + 4], cache, begin)
            pieces.append(logits)
        np.testing.assert_allclose(np.concatenate(pieces), full(decoder, tokens), atol=1e-5)


def test_a_batch_with_padding_on_the_left_has_the_logits_of_each_row():
    decoder, lengths = made(), (8, 3, 1)
    rows = [drawn(length, seed) for seed, length in enumerate(lengths)]
    padded = np.stack([np.pad(row, (8 - len(row), 0)) for row in rows])
    start = np.array([8 - length for length in lengths])
    for form in (decoder, decoder.unstacked()):
        first, cache = extend(form, padded[:, :4], form.empty_cache(8, (3,)), 0, start)
        rest, _ = extend(form, padded[:, 4:], cache, 4, start)
        logits = np.concatenate([first, rest], axis=1)
        for row, begin, found in zip(rows, start, logits, strict=True):
            np.testing.assert_allclose(found[begin:], full(decoder, row), atol=1e-5)


def test_later_tokens_do_not_change_earlier_logits():
    decoder, tokens = made(), drawn(8)
    changed = np.concatenate([tokens[:5], (tokens[5:] + 1) % TINY["vocab_size"]])
    before, after = full(decoder, tokens), full(decoder, changed)
    np.testing.assert_array_equal(before[:5], after[:5])
    assert np.abs(before[5:] - after[5:]).max() > 1e-2


# Parts of the architecture


def test_attention_depends_on_distances_and_not_on_places():
    decoder, tokens = made(), drawn(4)
    cache = decoder.empty_cache(16)
    here, _ = extend(decoder, tokens, cache, 0)
    moved, _ = extend(decoder, tokens, cache, 0, -1000)  # rotations begin at 1,000
    np.testing.assert_allclose(moved, here, atol=2e-4)  # angles of 1,000 radians have a rounding of 6e-5


def test_grouped_queries_are_full_attention_with_repeated_keys_and_values():
    grouped = made()
    c, blocks = grouped.config, grouped.blocks
    wide = DecoderConfig(**TINY, attention_bias=True)
    kv = c.num_kv_heads * c.head_dim

    def repeat(leaf):
        q, k, v = np.split(np.asarray(leaf), [c.num_heads * c.head_dim, c.num_heads * c.head_dim + kv], axis=-1)
        heads = [part.reshape(*part.shape[:-1], c.num_kv_heads, c.head_dim).repeat(2, -2) for part in (k, v)]
        return jnp.asarray(np.concatenate([q, *(part.reshape(*part.shape[:-2], -1) for part in heads)], axis=-1))

    repeated = eqx.tree_at(lambda b: (b.qkv, b.qkv_bias), blocks, (repeat(blocks.qkv), repeat(blocks.qkv_bias)))
    same = Decoder(grouped.embedding, repeated, grouped.norm, grouped.head, wide)
    np.testing.assert_allclose(full(same, drawn(9)), full(grouped, drawn(9)), atol=1e-5)


def test_biases_count_and_tied_embeddings_make_the_logits():
    decoder = made()
    without = eqx.tree_at(lambda d: d.blocks.qkv_bias, decoder, jnp.zeros_like(decoder.blocks.qkv_bias))
    assert np.abs(full(without, drawn(5)) - full(decoder, drawn(5))).max() > 1e-2
    tied = made("single-kv-head")
    assert tied.head is None
    hidden = jr.normal(jr.key(0), (16,))
    normed = hidden / jnp.sqrt(jnp.mean(hidden**2) + tied.config.rms_norm_eps) * tied.norm
    np.testing.assert_allclose(tied.logits(hidden), tied.embedding @ normed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_as_many_as_the_formula_says(tied):
    v, d, f, n, h, k, e = 23, 16, 24, 3, 4, 2, 6
    config = DecoderConfig(v, d, f, n, h, k, e, attention_bias=True, tie_embeddings=tied)
    shapes = eqx.filter_eval_shape(Decoder.init, config, key=jr.key(0))
    layer = 2 * d + d * (h + 2 * k) * e + (h + 2 * k) * e + h * e * d + 3 * d * f
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == v * d * (1 if tied else 2) + d + n * layer


# Training


def test_the_start_predicts_nearly_uniformly_and_its_gradient_is_finite_and_reaches_all():
    decoder = Decoder.init(DecoderConfig(**TINY, attention_bias=True), key=jr.key(0))
    tokens = drawn((3, 8))

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(decoder):
        log_p = jax.nn.log_softmax(jax.vmap(decoder)(tokens[:, :-1]))
        return -jnp.take_along_axis(log_p, tokens[:, 1:, None], axis=-1).mean()

    value, gradient = loss(decoder)
    assert abs(value - math.log(TINY["vocab_size"])) < 0.1
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)


def test_matrices_of_half_precision_leave_all_else_in_float32():
    decoder = made()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), decoder.blocks)
    half = eqx.tree_at(lambda b: (b.attention_norm, b.mlp_norm), half, (decoder.blocks.attention_norm,) * 2)
    lower = eqx.tree_at(lambda d: d.blocks, decoder, half)
    logits = full(lower, drawn(6))
    assert logits.dtype == jnp.float32
    exact = full(eqx.tree_at(lambda d: d.blocks.mlp_norm, decoder, decoder.blocks.attention_norm), drawn(6))
    assert np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()  # bfloat16 keeps 8 bits


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"num_layers": 0}, "`num_layers` must be at least 1"),
        ({"num_kv_heads": 3}, "`num_kv_heads` must divide `num_heads`, 4; got 3"),
        ({"head_dim": 5}, "`head_dim` must be positive and even; got 5"),
        ({"rope_theta": 0.0}, "`rope_theta` must be positive"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        DecoderConfig(**{**TINY, **wrong})


def test_a_scaling_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`high_freq_factor` must be greater"):
        RopeScaling(8.0, 4.0, 4.0, 32)
    with pytest.raises(ValueError, match="must be positive"):
        RopeScaling(0.0, 1.0, 4.0, 32)


# Generation


PROMPTS = [drawn(n, seed).tolist() for seed, n in enumerate((3, 9, 1, 5))]


def test_greedy_generation_takes_the_likeliest_token_of_the_full_forward():
    decoder = made()
    found = generate(decoder, PROMPTS, max_tokens=7, temperature=0, key=jr.key(0))
    for i, prompt in enumerate(PROMPTS):
        # One forward of the whole answer gives the argmax of every step: causality.
        logits = full(decoder, np.array([*prompt, *found.row(i)]))[len(prompt) - 1 : -1]
        assert found.row(i) == np.argmax(logits, axis=-1).tolist()
        log_p = jax.nn.log_softmax(logits)
        np.testing.assert_allclose(found.log_probs[i], log_p[np.arange(7), found.tokens[i]], atol=1e-5)
    assert (found.lengths == 7).all()
    assert not found.stopped.any()


def test_a_row_does_not_depend_on_the_others_in_its_batch():
    decoder, keys = made(), jr.split(jr.key(5), 4)
    together = generate(decoder, PROMPTS, max_tokens=6, key=keys, temperature=0.8)
    for i, prompt in enumerate(PROMPTS):
        alone = generate(decoder, [prompt], max_tokens=6, key=keys[i : i + 1], temperature=0.8)
        assert alone.row(0) == together.row(i)
        np.testing.assert_allclose(alone.log_probs[0], together.log_probs[i], atol=1e-5)
    assert len({tuple(together.row(i)) for i in range(4)}) == 4


@pytest.mark.parametrize("law", [{"temperature": 0.7}, {"temperature": 1.0, "top_p": 0.6}])
def test_draws_have_the_law_that_their_log_probs_say(law):
    decoder, rows = made(), 4096
    found = generate(decoder, [PROMPTS[0]] * rows, max_tokens=1, key=jr.key(11), **law)
    log_p = np.asarray(jax.nn.log_softmax(full(decoder, np.array(PROMPTS[0]))[-1] / law["temperature"]))
    p = np.exp(log_p)
    if "top_p" in law:
        ranked = np.argsort(-p)
        kept = ranked[: np.searchsorted(np.cumsum(p[ranked]), 0.6) + 1]
        p = np.where(np.isin(np.arange(p.size), kept), p, 0)
        p = p / p.sum()
    tokens = found.tokens[:, 0]
    np.testing.assert_allclose(np.exp(found.log_probs[:, 0]), p[tokens], rtol=1e-4)
    counts = np.bincount(tokens, minlength=p.size)
    assert not counts[p == 0].any()
    # The key is fixed; of a correct program one key in about 10^5 would fail.
    z = (counts - rows * p)[p > 0] / np.sqrt(rows * p * (1 - p) + 1e-9)[p > 0]
    assert np.abs(z).max() < 5


def test_a_row_ends_with_its_first_stop_token():
    decoder, keys = made(), jr.split(jr.key(6), 4)
    free = generate(decoder, PROMPTS, max_tokens=8, key=keys)
    stops = {free.row(0)[2], free.row(1)[5]}
    found = generate(decoder, PROMPTS, max_tokens=8, key=keys, stop_ids=stops)
    for i in range(4):
        row = free.row(i)
        end = next((j + 1 for j, token in enumerate(row) if token in stops), 8)
        assert found.row(i) == row[:end]
        assert found.stopped[i] == (row[end - 1] in stops)
        assert not found.tokens[i, end:].any()
        assert not found.log_probs[i, end:].any()
    assert found.stopped[:2].all()


def test_a_continuation_from_the_cache_is_that_without_one():
    decoder, keys, cache = made(), jr.split(jr.key(7), 4), PrefixCache(5)
    prompts = [drawn(n, seed).tolist() for seed, n in enumerate((9, 10, 8, 11))]
    for _ in range(2):
        held = generate(decoder, prompts, max_tokens=5, key=keys, cache=cache)
        plain = generate(decoder, prompts, max_tokens=5, key=keys)
        np.testing.assert_array_equal(held.tokens, plain.tokens)
        np.testing.assert_allclose(held.log_probs, plain.log_probs, atol=1e-5)
        prompts = [[*prompt, *held.row(i)[:4], 1] for i, prompt in enumerate(prompts)]  # the last token is another
    assert len(cache) == 5
    assert cache.longest(tuple(prompts[3]))[0] == 11 + 5 + 4
    with pytest.raises(ValueError, match="another decoder"):
        generate(made().unstacked(), prompts, max_tokens=5, key=keys, cache=cache)


def test_one_key_serves_all_rows_each_with_its_own():
    found = generate(made(), [PROMPTS[1]] * 3, max_tokens=6, key=jr.key(0))
    more = generate(made(), [PROMPTS[1]] * 4, max_tokens=6, key=jr.key(0))
    np.testing.assert_array_equal(found.tokens, more.tokens[:3])
    assert len({tuple(found.row(i)) for i in range(3)}) == 3
    assert generate(made(), [], max_tokens=6, key=jr.key(0)).tokens.shape == (0, 6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_tokens": 0}, "`max_tokens` must be at least 1"),
        ({"temperature": -1.0}, "`temperature` must be 0 or greater"),
        ({"top_p": 0.0}, "`top_p` must be above 0"),
        ({"prompts": [[1], []]}, "prompt 1 has none"),
        ({"prompts": [[1, 23]]}, r"Tokens must be in 0 ... 22; prompt 0"),
        ({"stop_ids": [99]}, "`stop_ids` must be in 0 ... 22"),
        ({"key": jr.split(jr.key(0), 3)}, "one a row"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong, says):
    arguments = {"prompts": [[1], [2]], "max_tokens": 3, "key": jr.key(0), **wrong}
    with pytest.raises(ValueError, match=says):
        generate(made(), arguments.pop("prompts"), **arguments)
