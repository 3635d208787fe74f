"""Rewards behind HTTP: what goes over the wire in each style, what comes back, and what cannot be had."""

import json
import math

import pytest
from posterax_particles.language import Budget, Ledger, Prefix, RewardError, Step
from posterax_particles.language._ledger import Exhausted
from posterax_particles.language._scorer import HTTPReward, SelfCertainty
from posterax_particles.language._server import ServerError
from server import Server, chance, dead_url, finished, schedule, value

PROMPT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
OTHER = ({"role": "user", "content": "Who?"},)
TEXTS = [Prefix(PROMPT, (Step("a\n\n"), Step("b"))), Prefix(PROMPT, (Step("c"),)), Prefix(OTHER, (Step("c"),))]


@pytest.fixture(scope="module")
def plain():
    with Server() as server:
        yield server


def reward(server, style="score", **settings):
    root = server if isinstance(server, str) else server.root
    return HTTPReward(f"{root}/{style}", **{"style": style, "timeout": 5.0, "retries": 3, "backoff": 0.01, **settings})


def scores(user, prefixes=TEXTS, ledger=None):
    return finished(user, user.score(prefixes, ledger=ledger or Ledger()))


def test_pairs_of_prompt_and_answer(plain):
    ledger = Ledger()
    assert scores(reward(plain, model="prm"), ledger=ledger) == [value(p.prompt, p.text) for p in TEXTS]
    bodies = sorted((entry.body for entry in plain.log[-2:]), key=lambda body: -len(body["text_2"]))
    assert bodies[0] == {"model": "prm", "text_1": "system: Be brief.\nuser: Why?", "text_2": ["a\n\nb", "c"]}
    assert bodies[1] == {"model": "prm", "text_1": "Who?", "text_2": ["c"]}
    assert (ledger.spent.reward_requests, ledger.spent.reward_calls, ledger.spent.requests) == (2, 3, 0)


def test_classes_of_whole_conversations_or_of_texts(plain):
    whole = [[*p.messages, {"role": "assistant", "content": p.text}] for p in TEXTS]
    assert scores(reward(plain, "classify")) == [value("", json.dumps(messages)) for messages in whole]
    assert all(entry.body["messages"] in whole for entry in plain.log[-3:])
    template = "{0.prompt}|{0.text}".format
    found = scores(reward(plain, "classify", template=template, label=0, extra={"use_activation": True}))
    assert found == pytest.approx([1 - value("", template(p)) for p in TEXTS])
    assert plain.log[-1].body["use_activation"] is True
    assert len(plain.log[-1].body["input"]) in {1, 2}


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("last", lambda v: v / 2),
        ("min", lambda v: v / 2),
        ("mean", lambda v: 0.75 * v),
        ("prod", lambda v: v * v / 2),
    ],
)
def test_scores_of_steps_are_reduced_to_one(plain, reduce, expected):
    found = scores(reward(plain, "pooling", template=lambda prefix: prefix.text, reduce=reduce))
    assert found == pytest.approx([expected(value("", p.text)) for p in TEXTS])


@pytest.mark.parametrize("data", [[0.25], [0.75, 0.25], [[0.25]], [[0.9, 0.1], [0.75, 0.25]]])
def test_pooled_data_come_in_several_shapes(data):
    user = HTTPReward("http://127.0.0.1:1/pooling", style="pooling")
    assert user._scores({"data": [{"index": 0, "data": data}]}) == [0.25]


def test_json_and_servers_with_a_form_of_their_own(plain):
    assert scores(reward(plain, "json")) == [value(str(list(p.messages)), p.text) for p in TEXTS]
    assert {"messages": list(OTHER), "text": "c"} in plain.log[-1].body["items"] + plain.log[-2].body["items"]
    user = reward(
        plain,
        "json",
        batch=2,
        scale="logit",
        request=lambda prefixes: {"items": [{"messages": 0, "text": p.text} for p in prefixes]},
        response=lambda reply: [100 * score for score in reply["scores"]],
    )
    assert scores(user) == pytest.approx([100 * value("0", p.text) for p in TEXTS])
    assert user.scale == "logit"


def test_a_text_is_sent_once_and_many_go_in_batches(plain):
    before = len(plain.log)
    prefixes = [Prefix(PROMPT, (Step(str(i % 10)),)) for i in range(30)]
    ledger = Ledger()
    found = scores(reward(plain, batch=4), prefixes, ledger)
    assert found == [value(p.prompt, p.text) for p in prefixes]
    assert sorted(len(entry.body["text_2"]) for entry in plain.log[before:]) == [2, 4, 4]
    assert ledger.spent.reward_calls == 10


@pytest.mark.parametrize("fault", ["429", "500", "hang", "drop", "truncated", "invalid", "empty", "page"])
def test_a_fault_changes_no_score(fault):
    with Server(faults=schedule(fault)) as server:
        ledger = Ledger()
        user = reward(server, timeout=0.5 if fault == "hang" else 5.0)
        assert scores(user, ledger=ledger) == [value(p.prompt, p.text) for p in TEXTS]
        assert ledger.spent.retries == 1
    with Server(faults=chance(0.5, ["500", "drop", "invalid", "empty"])) as server:
        assert scores(reward(server, "pooling", retries=12)) == scores(reward(server, "pooling", retries=12))


@pytest.mark.parametrize("response", [lambda reply: reply["result"], lambda reply: [], lambda reply: ["good"] * 3])
def test_scores_that_are_no_scores_are_asked_for_again(plain, response):
    before = len(plain.log)
    user = reward(plain, "json", request=lambda prefixes: {"items": []}, response=response)
    assert scores(user, TEXTS[:1]) == [None]
    assert len(plain.log) - before == 4


def test_what_cannot_be_had_is_none_and_the_others_are_there():
    faults = lambda number, body, tries: "500" if "Who?" in str(body) else None  # noqa: E731
    with Server(faults=faults) as server:
        found = scores(reward(server))
        assert found[2] is None
        assert None not in found[:2]


def test_refusals_and_dead_servers_are_told():
    with Server(faults=lambda *_: "422") as server, pytest.raises(ServerError, match="it is what it is"):
        scores(reward(server))
    with Server(key="right") as server, pytest.raises(ServerError, match=r"401.*Bearer \*\*\*.*`api_key`"):
        scores(reward(server, api_key="wrong"))
    with Server(key="right") as server:
        assert None not in scores(reward(server, api_key="right"))
    with pytest.raises(ServerError, match="Start the server"):
        scores(reward(dead_url()))
    with pytest.raises(Exhausted, match="seconds"):
        scores(reward(dead_url(), retries=50, backoff=1.0), ledger=Ledger(Budget(seconds=0.3)))


def test_the_environments_key_is_for_the_language_model_alone(monkeypatch, plain):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    scores(reward(plain))
    assert "authorization" not in plain.log[-1].headers
    assert "secret-1" not in f"{reward(plain, api_key='secret-1')!r} {vars(reward(plain, api_key='secret-1'))}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "rank"}, "`style` must be one of 'score', 'classify', 'pooling', 'json'; got 'rank'"),
        ({"scale": "odds"}, "`scale` must be one of 'probability', 'logit', 'log'"),
        ({"reduce": "max"}, "`reduce` must be one of 'last', 'min', 'mean', 'prod'"),
        ({"batch": 0}, "`batch` must be an integer, 1 or more; got 0"),
        ({"request": lambda prefixes: {}}, "`request` and `response` belong together"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        HTTPReward("http://127.0.0.1:1/score", **settings)


def test_certainty_is_the_mean_log_probability_of_the_steps_tokens():
    sure, unsure = Step("a", tokens=2, log_prob=-1.0), Step("b", tokens=9, token_ids=(1, 2, 3, 4), log_prob=-8.0)
    prefixes = [Prefix(PROMPT, (sure, unsure)), Prefix(PROMPT, (unsure, sure, Step("", "stop")))]
    assert scores(SelfCertainty(), prefixes) == [-2.0, -0.5]
    assert scores(SelfCertainty("all"), prefixes) == [-1.5, -1.5]
    assert scores(SelfCertainty(), [Prefix(PROMPT)]) == [0.0]
    assert SelfCertainty().scale == "log"
    assert all(math.isfinite(score) for score in scores(SelfCertainty(), prefixes))
    with pytest.raises(RewardError, match=r"the step 'b' has none.*log_probs=True"):
        scores(SelfCertainty(), [TEXTS[0]])
    with pytest.raises(ValueError, match='`of` must be "last" or "all"; got \'first\''):
        SelfCertainty("first")
