"""The arithmetic task: problems against a calculator, rewards against their formula, weights against cards."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax import CheckpointError
from posterax_models import (
    ArithmeticReward,
    Decoder,
    DecoderConfig,
    arithmetic_decoder,
    arithmetic_probe,
    arithmetic_problems,
    arithmetic_text,
    arithmetic_tokens,
)
from posterax_models._arithmetic_rewards import arithmetic_value
from posterax_models._weights import read_weights, weights_folder, write_weights
from scipy.special import logit


class Written(NamedTuple):
    """What rewards look at."""

    tokens: Any
    step: Any
    hidden: Any = None
    log_probs: Any = None


def calculated(prompt: str, chain: str) -> str:
    """What a faultless reasoner writes for a chain, worked out from the text of the prompt alone."""
    start, rest = int(prompt[0]), prompt[1:-1]
    ops = dict(zip("AB", rest[1:].split("B"), strict=True))[chain]
    value, written = start, ""
    for op, by in zip(ops[::2], ops[1::2], strict=True):
        if value == "!" or op == "/":
            value = "!"
        else:
            value = {"+": value + int(by), "-": value - int(by), "*": value * int(by), ":": int(by)}[op] % 10
        written += f"{chain}{value}"
    return written


@pytest.mark.parametrize("easy", [0.0, 0.5])
def test_problems_say_what_a_calculator_says(easy):
    problems = arithmetic_problems(200, seed=5, easy=easy)
    for chain, letter in enumerate("AB"):
        texts = problems.solutions(np.full(200, chain), np.full(200, 3))
        for i in range(200):
            expected = calculated(arithmetic_text(problems.prompts[i]), letter)
            assert arithmetic_text(texts[i]) == f"{letter}d{expected}"
            assert ("!" in expected) == (problems.live[i] != chain)
            assert problems.correct(texts)[i] == (problems.live[i] == chain)
            if "!" in expected:
                assert expected.index("!") >= 2 * (problems.num_steps - 1) // 2
    assert 60 < problems.live.sum() < 140


def test_texts_and_tokens():
    assert arithmetic_text(arithmetic_tokens("7A+3=Bk!")) == "7A+3=Bk!"
    with pytest.raises(KeyError):
        arithmetic_tokens("?")


def test_the_value_is_the_chance_of_no_further_error():
    problems = arithmetic_problems(3, seed=1)
    right = jnp.asarray(problems.solutions(problems.live, np.zeros(3, int)))
    live, values = jnp.asarray(problems.live), jnp.asarray(problems.values)
    for step in range(problems.num_steps):
        found = arithmetic_value(right[0], jnp.asarray(step), live[0], values[0], 0.1)
        np.testing.assert_allclose(found, 0.9 ** (10 - step), rtol=1e-5)
    wrong = right[0].at[7].set((right[0, 7] + 1) % 10)  # the third value
    found = [float(arithmetic_value(wrong, jnp.asarray(step), live[0], values[0], 0.1)) for step in (2, 3, 10)]
    assert found[0] > 0
    assert found[1:] == [0, 0]
    dead = jnp.asarray(problems.solutions(1 - problems.live, np.zeros(3, int)))
    assert float(arithmetic_value(dead[1], jnp.asarray(0), live[1], values[1], 0.1)) == 0


def test_the_reward_is_prejudice_first_and_evidence_last():
    num = 400
    problems = arithmetic_problems(num, seed=2)
    texts = jnp.asarray(problems.solutions(problems.live, np.arange(num) % 16))
    arrays = [jnp.asarray(part) for part in (problems.live, problems.values, np.arange(num))]

    def rewards(step, kappa):
        def one(text, live, values, number):
            return ArithmeticReward(live, values, number, jnp.asarray(kappa))(Written(text, jnp.asarray(step)))

        return np.asarray(jax.vmap(one)(texts, *arrays))

    first, last = rewards(0, 1.0), rewards(10, 1.0)
    np.testing.assert_allclose(last.mean(), 4.0, atol=0.1)  # the evidence of a right answer, bounded
    np.testing.assert_allclose(last.std(), 0.5, atol=0.08)  # the noise
    # One eleventh of the evidence of a chance of 0.9^10, ten elevenths of a prejudice of standard deviation 2.
    np.testing.assert_allclose(first.mean(), logit(0.9**10) / 11, atol=4.5 * 2 / np.sqrt(num))
    np.testing.assert_allclose(first.std(), np.hypot(20 / 11, 0.5), rtol=0.15)
    np.testing.assert_allclose(rewards(3, 4.0), 4 * rewards(3, 1.0), rtol=1e-5)
    assert np.array_equal(first, rewards(0, 1.0))


def test_weights_come_back_and_foreign_ones_are_refused(tmp_path):
    small = Decoder.init(DecoderConfig(5, 8, 8, 1, 2), key=jr.key(0))
    write_weights(tmp_path / "w.posterax", small, {"seed": 0})
    back = read_weights(tmp_path / "w.posterax", Decoder.init(small.config, key=jr.key(1)))
    np.testing.assert_allclose(back.embedding, small.embedding, rtol=1e-3)
    with pytest.raises(CheckpointError, match="another network"):
        read_weights(tmp_path / "w.posterax", Decoder.init(DecoderConfig(6, 8, 8, 1, 2), key=jr.key(1)))


def card(name):
    return json.loads((weights_folder() / f"{name}.json").read_text())


def test_the_language_model_errs_as_often_as_its_card_says():
    scores, problems = card("arithmetic")["scores"], arithmetic_problems(2_000, seed=2)
    texts = np.concatenate([problems.prompts, problems.solutions(problems.live, np.zeros(2_000, int))], axis=1)
    model, start = arithmetic_decoder(), problems.prompts.shape[1]

    @jax.jit
    def chances(batch):
        log_p = jax.nn.log_softmax(jax.vmap(model)(batch[:, :-1])[:, start - 1 :])
        return jnp.exp(jnp.take_along_axis(log_p, batch[:, start:, None], axis=-1)[..., 0])

    found = np.asarray(chances(jnp.asarray(texts)))
    np.testing.assert_allclose(1 - found[:, 3::2].mean(), scores["wrong_per_step"], atol=2e-3)
    np.testing.assert_allclose(found[:, 0].mean(), scores["live_chain"], atol=2e-3)
    assert 0.05 < scores["wrong_per_step"] < 0.15


def test_the_probe_is_surer_than_it_should_be():
    scores = card("arithmetic_probe")["scores"]
    assert max(scores["calibration_error_by_step"]) > 0.05
    probe = arithmetic_probe()
    assert np.isfinite(float(probe(Written(None, jnp.asarray(0), jnp.ones(64), jnp.zeros(22)))))


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_probe"])
def test_shipped_files_are_those_of_their_cards(name):
    import hashlib

    file = weights_folder() / f"{name}.posterax"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == card(name)["sha256"]
    assert file.stat().st_size < 5_000_000
