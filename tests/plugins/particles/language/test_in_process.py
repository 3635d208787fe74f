"""A decoder in this process as a language model."""

import jax.random as jr
import numpy as np
import pytest
from posterax_models import Decoder, DecoderConfig
from posterax_particles.language import (
    AfterTokens,
    AtMatch,
    AtString,
    AtToken,
    BestOfN,
    CallableReward,
    Characters,
    JaxModel,
    Reasoning,
    StepFilter,
    generate,
    solve,
)
from posterax_particles.language._ledger import Ledger
from posterax_particles.language._loop import run
from posterax_particles.language._prefix import Prefix, as_messages

ALPHABET = "abc;\n."
START = Prefix(as_messages("ab"))


@pytest.fixture(scope="module")
def model():
    config = DecoderConfig(len(ALPHABET), hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    return JaxModel(Decoder.init(config, key=jr.key(0)), Characters(ALPHABET, end="."), temperature=1.0)


def proposed(model, prefixes, end, seeds, max_tokens=None):
    ledger = Ledger()
    limit = end.max_tokens if max_tokens is None else max_tokens
    return run(model.propose(prefixes, end=end, max_tokens=limit, seeds=seeds, ledger=ledger)), ledger.spent


@pytest.mark.parametrize(
    "end", [AtString(";", tokens=40), AtString("c\n", tokens=40), AtMatch("[ab];", tokens=40), AtToken(3, tokens=40)]
)
def test_steps_end_where_they_should(model, end):
    steps, spent = proposed(model, [START] * 24, end, list(range(24)))
    assert {step.ending for step in steps} == {"step", "stop"}
    for step in steps:
        assert step.token_ids is not None
        assert model.tokenizer.decode(step.token_ids) == step.text
        assert step.tokens == len(step.token_ids)
        assert "." not in step.text
        if step.ending == "step":
            size = end.cut(step.text) if not isinstance(end, AtToken) else step.text.index(";") + 1
            assert size == len(step.text)
        else:
            assert end.cut(step.text) is None
            assert step.token_ids[-1] == ALPHABET.index(".")
    assert spent.tokens >= sum(step.tokens for step in steps)


def test_a_count_of_tokens_and_a_cut(model):
    steps, _ = proposed(model, [START] * 8, AfterTokens(3), list(range(8)))
    assert {step.ending for step in steps if step.tokens == 3} <= {"step", "stop"}
    cut, _ = proposed(model, [START] * 8, AtString("cccc", tokens=50), list(range(8)), max_tokens=2)
    assert {(step.ending, step.tokens) for step in cut} <= {("length", 2), ("stop", 1), ("stop", 2)}


def test_a_text_depends_on_its_own_seed_alone(model):
    together, _ = proposed(model, [START] * 6, AtString(";"), [3, 1, 4, 1, 5, 9])
    alone, _ = proposed(model, [START], AtString(";"), [4])
    assert together[2].token_ids == alone[0].token_ids
    assert together[1].text == together[3].text
    np.testing.assert_allclose(together[2].log_prob, alone[0].log_prob, rtol=1e-4)


def test_frequencies_are_those_of_the_decoder(model):
    """3,000 draws of one token, chi-square over six letters: 30 is passed by accident once in 70,000."""
    steps, _ = proposed(model, [START] * 3000, AfterTokens(1), list(range(3000)))
    logits = np.asarray(model.decoder(np.array(model.tokenizer.encode("ab")))[-1], float)
    expected = 3000 * np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    counts = np.bincount([step.token_ids[0] for step in steps], minlength=len(ALPHABET))
    assert ((counts - expected) ** 2 / expected).sum() < 30


def test_a_whole_run(model):
    problem = Reasoning("ab", model, CallableReward(lambda p: 0.1 + 0.8 * ("c" in p.text)), AtString(";", tokens=20), 4)
    found = solve(StepFilter(6), problem, key=jr.key(0))
    again = solve(StepFilter(6), problem, key=jr.key(0))
    assert [p.text for p in found.particles] == [p.text for p in again.particles]
    assert 0 < found.spent.tokens <= found.estimate.tokens
    whole = solve(BestOfN(4), problem, key=jr.key(0))
    assert all(p.text == p.steps[0].text for p in whole.particles)


def test_bad_input(model):
    with pytest.raises(ValueError, match=r"outside the alphabet .*\['z'\]"):
        solve(StepFilter(2), Reasoning("abz", model, CallableReward(lambda p: 0.5)), key=jr.key(0))
    with pytest.raises(ValueError, match="no chat template"):
        solve(StepFilter(2), Reasoning([{"role": "user", "content": "a"}] * 2, model), key=jr.key(0))
    with pytest.raises(ValueError, match=r"must be in 0"):
        generate(model.decoder, [[99]], max_tokens=1, key=jr.key(0))
