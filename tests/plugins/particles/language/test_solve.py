"""Runs on scripted models: formulas by hand, budgets, failures, choices."""

import asyncio
import logging

import jax.random as jr
import numpy as np
import pytest
from posterax import PosteraxWarning, sample
from posterax.weights import Multinomial
from posterax_particles import EssSchedule, LookAhead
from posterax_particles.language import (
    AfterTokens,
    ArgMax,
    AtMatch,
    AtString,
    BeamSearch,
    BestOfN,
    Budget,
    CallableModel,
    CallableReward,
    Majority,
    Reasoning,
    RewardError,
    Sample,
    SelfConsistency,
    Step,
    StepFilter,
    StepGibbs,
    WeightedVote,
    When,
    solve,
)
from tiny import problem

KEY = jr.key(0)


def scripted(rewards, **settings):
    """Particle i writes its number at every step, and has the i-th reward of the step."""

    def write(prefix, seed):
        return str(next(counter) % 10)

    counter = iter(range(10**6))
    judge = CallableReward(lambda prefix: rewards[len(prefix) - 1][int(prefix.text[-1]) % len(rewards[0])])
    return Reasoning("count", CallableModel(write), judge, AfterTokens(1), max_steps=len(rewards), **settings)


# Formulas


def test_weights_are_odds_of_the_reward_and_the_best_is_chosen():
    rewards = [[0.2, 0.5, 0.8, 0.5]]
    found = solve(StepFilter(4), scripted(rewards), key=KEY)
    odds = np.array([0.25, 1.0, 4.0, 1.0])
    np.testing.assert_allclose(np.exp(found.log_weights), odds / odds.mean(), rtol=1e-12)
    assert (found.text, found.answer, found.index) == ("2", "2", 2)
    np.testing.assert_allclose(found.trace["ess"], odds.sum() ** 2 / (odds**2).sum())
    assert found.spent.tokens == 4
    assert found.spent.reward_calls == 4


def test_the_temperature_is_the_published_one():
    # ESS / N is 0.2746 for these odds, progress 1 / 4: temperature (1 / 0.2746) * (3 / 4).
    odds = np.array([1.0, 81.0, 1.0, 3.0])
    share = odds.sum() ** 2 / (odds**2).sum() / 4
    found = solve(StepFilter(4, schedule=EssSchedule()), scripted([list(odds / (1 + odds))] * 4), key=KEY)
    np.testing.assert_allclose(found.trace["temperature"][1], 0.75 / share, rtol=1e-5)
    assert found.trace["temperature"][0] == 1


def test_a_flat_reward_keeps_every_particle():
    flat = scripted([[0.3] * 5] * 6)
    found = solve(StepFilter(5, schedule=EssSchedule()), flat, key=KEY)
    assert all((row == np.arange(5)).all() for row in found.ancestors)
    assert (found.trace["temperature"] == 1).all()


def test_the_last_step_is_not_resampled_away():
    rewards = [[0.5, 0.5, 0.5], [0.5, 0.5, 0.9]]
    for run in range(20):
        found = solve(StepFilter(3, resampler=Multinomial()), scripted(rewards), key=jr.key(run))
        assert max(found.scores) == 0.9
        assert found.scores[found.index] == 0.9


def test_no_more_steps_than_max_steps():
    found = solve(StepFilter(2), scripted([[0.5, 0.5]] * 3), key=KEY)
    assert [len(particle) for particle in found.particles] == [3, 3]


def test_the_same_key_gives_the_same_texts():
    one, two = (solve(StepFilter(6), problem(), key=jr.key(3)) for _ in range(2))
    assert [p.text for p in one.particles] == [p.text for p in two.particles]
    assert np.array_equal(one.log_weights, two.log_weights)
    other = solve(StepFilter(6), problem(), key=jr.key(4))
    assert [p.text for p in one.particles] != [p.text for p in other.particles]


# Steps


@pytest.mark.parametrize(
    ("end", "text", "size"),
    [
        (AtString(), "a\n\nb", 3), (AtString(";", "."), "a.b;", 2), (AtMatch(r"\d;"), "x1;2;", 3),
        (When(lambda text: text.count("(") == text.count(")")), "(a(b))c", 6), (AtString("x"), "abc", None),
        (AfterTokens(3), "abc", None),
    ],
)  # fmt: skip
def test_where_steps_end(end, text, size):
    assert end.cut(text) == size


def test_a_model_that_stops_is_not_asked_to_go_on():
    asked = []

    def write(prefix, seed):
        asked.append(prefix.text)
        return Step("x", "stop" if seed % 2 else "step", tokens=1)

    found = solve(BestOfN(1), Reasoning("p", CallableModel(write), CallableReward(lambda p: 0.5)), key=KEY)
    assert found.stopped == "complete"
    asked.clear()
    task = Reasoning("p", CallableModel(lambda p, s: Step("x", "stop", 1)), CallableReward(lambda p: 0.5), max_steps=9)
    assert [len(p) for p in solve(StepFilter(4), task, key=KEY).particles] == [1] * 4


def test_a_stop_text_ends_the_answer():
    task = scripted([[0.5] * 10] * 9, stop="3")
    found = solve(StepFilter(4, finished="absorb"), task, key=KEY)
    assert {p.text[-1] for p in found.particles if len(p) < 9} <= {"3"}


# Baselines


def test_self_consistency_takes_the_majority_and_asks_no_reward():
    letters = iter("abcbbabbcb")
    task = Reasoning("p", CallableModel(lambda p, s: Step(next(letters), "stop", 1)))
    found = solve(SelfConsistency(10), task, key=KEY, choose=Majority())
    assert found.answer == "b"
    assert found.spent.reward_calls == 0


def test_best_of_n_scores_whole_answers_once():
    letters = iter("abcd")
    scores = {"a": 0.4, "b": 0.9, "c": 0.3, "d": 0.1}
    task = Reasoning(
        "p", CallableModel(lambda p, s: Step(next(letters), "stop", 1)), CallableReward(lambda p: scores[p.text])
    )
    found = solve(BestOfN(4), task, key=KEY)
    assert (found.answer, found.spent.reward_calls) == ("b", 4)


def test_weighted_votes():
    letters = iter("abba")
    scores = iter([0.9, 0.3, 0.4, 0.1])
    model = CallableModel(lambda p, s: Step(next(letters), "stop", 1))
    judge = CallableReward(lambda ps: [next(scores) for _ in ps], batched=True)
    # Texts that are alike are scored once: a has 0.9, b has 0.3.
    found = solve(BestOfN(4), Reasoning("p", model, judge), key=KEY, choose=WeightedVote(by="score"))
    assert found.answer == "a"
    assert found.spent.reward_calls == 2


def test_beam_search_keeps_the_best():
    rewards = [[0.1, 0.9, 0.2, 0.3], [0.5] * 4]
    found = solve(BeamSearch(4, width=1), scripted(rewards), key=KEY)
    assert {p.text[0] for p in found.particles} == {"1"}


def test_a_sampled_answer_comes_by_weight():
    rewards = [[0.5, 0.75]]
    chosen = [solve(StepFilter(2), scripted(rewards), key=jr.key(i), choose=Sample()).index for i in range(200)]
    assert abs(np.mean(chosen) - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / 200)


# Budgets


def test_tokens_are_never_exceeded_and_the_run_says_what_ended_it():
    task = Reasoning("p", CallableModel(lambda p, s: Step("x", "step", 1)), CallableReward(lambda p: 0.5), max_steps=50)
    found = solve(StepFilter(4), task, key=KEY, budget=Budget(tokens=10))
    assert found.stopped == "tokens"
    assert found.spent.tokens == 8
    assert [len(p) for p in found.particles] == [2] * 4
    assert found.log_evidence is None
    assert "tokens" in found.no_evidence


def test_rewards_are_never_exceeded():
    found = solve(StepFilter(4), scripted([[0.1, 0.2, 0.3, 0.4]] * 9), key=KEY, budget=Budget(reward_calls=7))
    assert found.stopped == "reward_calls"
    assert found.spent.reward_calls <= 7


def test_a_deadline_ends_a_run_that_hangs():
    async def write(prefix, seed):
        if len(prefix) == 1:
            await asyncio.sleep(60)
        return Step("x", "step", 1)

    task = Reasoning("p", CallableModel(write), CallableReward(lambda p: 0.5))
    found = solve(StepFilter(3), task, key=KEY, budget=Budget(seconds=0.3))
    assert found.stopped == "seconds"
    assert [p.text for p in found.particles] == ["x"] * 3
    assert found.spent.seconds < 5


def test_a_budget_below_one_step_is_refused_in_words():
    with pytest.raises(ValueError, match="3 tokens, less than one for each of 4 particles"):
        solve(StepFilter(4), problem(), key=KEY, budget=Budget(tokens=3))
    with pytest.raises(ValueError, match="allows 2 particles; the method has 4"):
        solve(StepFilter(4), problem(), key=KEY, budget=Budget(particles=2))


def test_the_estimate_bounds_what_is_spent():
    for method in (
        StepFilter(5),
        StepFilter(4, look_ahead=LookAhead(2)),
        BestOfN(5),
        BeamSearch(4, width=2),
        StepGibbs(3, 3),
    ):
        found = solve(method, problem(), key=KEY)
        for name in ("tokens", "requests", "reward_calls"):
            assert getattr(found.spent, name) <= getattr(found.estimate, name), (method, name)


# Faults


def test_weights_that_all_vanish_end_the_run_in_words():
    task = Reasoning("p", CallableModel(lambda p, s: "x"), CallableReward(lambda p: 0.0), potential="prob")
    with pytest.warns(PosteraxWarning, match="No particle has weight"):
        found = solve(StepFilter(3), task, key=KEY)
    assert found.stopped == "no particle has weight"


@pytest.mark.parametrize(
    ("score", "scale", "words"),
    [(float("nan"), "probability", "gave nan"), (1.5, "probability", r"gave 1\.5 .* declares a number in \[0, 1\]"),
     (float("inf"), "log", "below infinity"), (-0.1, "probability", "gave -0.1")],
)  # fmt: skip
def test_rewards_out_of_range_are_errors(score, scale, words):
    task = Reasoning("p", CallableModel(lambda p, s: "x"), CallableReward(lambda p: score, scale=scale))
    with pytest.raises(RewardError, match=words):
        solve(StepFilter(3), task, key=KEY)


@pytest.mark.parametrize("policy", ["drop", "freeze", "raise"])
def test_what_becomes_of_a_particle_that_cannot_be_continued(policy):
    def write(prefix, seed):
        number = next(counter)
        return Step("", "failed") if number == 5 else Step(str(number), "step", 1)

    counter = iter(range(1000))
    task = Reasoning("p", CallableModel(write), CallableReward(lambda p: 0.5), max_steps=3, on_failure=policy)
    if policy == "raise":
        with pytest.raises(RuntimeError, match="could not continue"):
            solve(StepFilter(4), task, key=KEY)
        return
    found = solve(StepFilter(4, finished="absorb"), task, key=KEY)
    short = [i for i, p in enumerate(found.particles) if len(p) == 1]
    assert len(short) == 1
    assert np.isneginf(found.log_weights[short[0]]) == (policy == "drop")


def test_one_particle_and_steps_that_end_at_once():
    task = Reasoning("p", CallableModel(lambda p, s: Step("", "stop", 0)), CallableReward(lambda p: 0.5))
    found = solve(StepFilter(1), task, key=KEY)
    assert (found.text, found.stopped, found.spent.tokens) == ("", "complete", 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`prompt` is empty"):
        problem(prompt="")
    with pytest.raises(TypeError, match="CallableModel"):
        problem(model=len)
    with pytest.raises(ValueError, match="`target` must be one of 'product', 'telescoping'"):
        problem(target="sum")
    with pytest.raises(ValueError, match="`num_particles`"):
        StepFilter(0)
    with pytest.raises(ValueError, match="2 or more"):
        StepGibbs(1)
    with pytest.raises(ValueError, match="this method weighs"):
        solve(StepFilter(2), problem(reward=None), key=KEY)
    with pytest.raises(TypeError, match="works on a Reasoning problem"):
        sample(StepFilter(2), 3, key=KEY)


# Around


def test_messages_are_kept_whole():
    seen = []
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}]

    def write(prefix, seed):
        seen.append(prefix.messages)
        return "x"

    solve(StepFilter(2), problem(prompt=messages, model=CallableModel(write), max_steps=2), key=KEY)
    assert all(list(prompt) == messages for prompt in seen)


def test_inside_a_running_loop():
    async def notebook():
        return solve(StepFilter(3), problem(), key=KEY)

    assert asyncio.run(notebook()).stopped == "complete"


def test_a_run_within_a_run_is_refused_in_words():
    inner = problem()
    task = problem(model=CallableModel(lambda p, s: str(solve(StepFilter(2), inner, key=KEY))))
    with pytest.raises(RuntimeError, match="wait for itself"):
        solve(StepFilter(2), task, key=KEY)
    task.model.close()


def test_draws_for_arviz():
    found = solve(StepFilter(6), problem(), key=KEY)
    tree = found.to_datatree(key=KEY)
    assert tree["weighted_posterior"]["score"].shape == (1, 6)
    draws = sample(StepFilter(6, finished="absorb"), problem(), num_chains=3, key=KEY)
    assert draws["score"].shape == (3, 6)
    assert draws.log_evidence is not None


def test_texts_are_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    solve(StepFilter(2), problem(), key=KEY, choose=ArgMax())
    assert "spell" not in caplog.text
