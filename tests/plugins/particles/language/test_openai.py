"""The model behind an OpenAI-compatible server: steps, endings, faults, shared requests, and what servers can do."""

import asyncio
import dataclasses
import logging
import pickle
import time
import warnings

import pytest
from posterax import PosteraxWarning
from posterax_particles.language import AfterTokens, AtMatch, AtString, AtToken, Budget, Ledger, Prefix, Step, When
from posterax_particles.language._capabilities import Capabilities
from posterax_particles.language._ledger import Exhausted
from posterax_particles.language._loop import run
from posterax_particles.language._openai import OpenAIModel
from posterax_particles.language._server import ServerError
from server import STEP, Server, chance, dead_url, finished, number, schedule

START = Prefix(({"role": "user", "content": "Why?"},))
VLLM = Capabilities.of_vllm()
QUICK = {"timeout": 5.0, "retries": 3, "backoff": 0.01, "api_key": "", "capabilities": VLLM}


def model(server, **settings):
    return OpenAIModel("scripted", getattr(server, "url", server), **{**QUICK, **settings})


def steps(user, prefixes, *, end=None, seeds=None, ledger=None, max_tokens=None):
    end = AtString() if end is None else end
    work = user.propose(
        prefixes, end=end, max_tokens=max_tokens or end.max_tokens, seeds=seeds or list(range(len(prefixes))),
        ledger=ledger or Ledger(),
    )  # fmt: skip
    return finished(user, work)


def answer(user, *, seeds=range(9), **settings):
    """One answer, step by step."""
    prefix = START
    for seed in seeds:
        (step,) = steps(user, [prefix], seeds=[seed], **settings)
        prefix = prefix.followed(step)
        if prefix.finished:
            break
    return prefix


def scripted(server, *, chat=True, seeds=range(9)):
    """The same answer, asked of the script itself."""
    prompt = server._prompt({"messages": START.messages, "prompt": "Why?"}, chat)[0]
    text = ""
    for seed in seeds:
        tokens, _, met = server._one({"max_tokens": 99, "stop": [STEP]}, prompt, text, f"{seed} 0")
        text += "".join(tokens)
        if met is None:
            return text
    return text


@pytest.fixture(scope="module")
def plain():
    with Server() as server:
        yield server


# Endings


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("echo", ["asked", "always", "never"])
def test_an_answer_has_the_servers_texts_and_the_right_endings(echo, tells, endpoint):
    with Server(echo=echo, tells=tells) as server:
        user = model(server, endpoint=endpoint, capabilities=None)
        found = answer(user)
        assert found.text.rstrip() == scripted(server, chat=endpoint == "chat").rstrip()
        doubtful = echo == "never" and not tells
        assert [step.ending for step in found.steps] == ["step", "step"] + (["step"] if doubtful else []) + ["stop"]
        assert found.steps[-1].text == "" if doubtful else found.steps[-1].text
        if doubtful:  # it was asked, and not more than once
            assert user.known.stop_echo is False
            assert user.known.stop_told is False
            assert sum("stop" in entry.body and entry.body["stop"] != [STEP] for entry in server.log) == 1


def test_an_ambiguous_stop_can_count_as_the_end_or_be_avoided():
    with Server(echo="never", tells=False) as server:
        assert [s.ending for s in answer(model(server, ambiguous_stop="stop", capabilities=None)).steps] == ["stop"]
        ledger = Ledger()
        found = answer(model(server, ambiguous_stop="cut"), ledger=ledger)
        assert [step.ending for step in found.steps] == ["step", "step", "stop"]
        assert found.text == scripted(server)
        assert ledger.spent.tokens == 14 + 9 + 4  # the whole rest of the answer each time
        assert not any("stop" in entry.body for entry in server.log[-3:])


def test_where_nobody_can_tell_the_ends_apart_a_warning_says_so():
    with Server(echo="never", tells=False, write=lambda *_: None) as server:
        user = model(server, capabilities=None)
        with pytest.warns(PosteraxWarning, match="`ambiguous_stop='step'`"):
            (step,) = steps(user, [START])
        assert step == Step("", "stop", tokens=0)
        steps(user, [START])  # warns once


def test_a_server_without_stop_strings_is_cut_here():
    with Server(stops=False) as server:
        ledger = Ledger()
        (step,) = steps(model(server), [START], ledger=ledger)
        assert step.text == scripted(server)[: len(step.text)]
        assert step.text.endswith(STEP)
        assert step.ending == "step"
        assert ledger.spent.tokens == 14


def test_steps_of_so_many_tokens(plain):
    first, second = answer(model(plain), end=AfterTokens(8), seeds=[1, 2]).steps
    assert (first.ending, first.tokens, first.text.count(STEP)) == ("step", 8, 1)
    assert (second.ending, second.tokens) == ("stop", 6)
    assert plain.log[-1].body["max_tokens"] == 8
    (short,) = steps(model(plain), [START], end=AfterTokens(8), max_tokens=3)  # the budget allows no more
    assert (short.ending, short.tokens) == ("length", 3)


def test_steps_that_end_at_a_token(plain):
    token = number(scripted(plain)[:4].rstrip())
    with pytest.raises(ValueError, match=r"`end` stops at tokens by number.*probe"):
        steps(model(plain, capabilities=None), [START], end=AtToken(token))
    (step,) = steps(model(plain), [START], end=AtToken(token), seeds=[0])
    assert step.ending == "step"
    assert number(step.text) == token
    assert steps(model(plain), [START], end=AtToken(1001), seeds=[0])[0].ending == "stop"


@pytest.mark.parametrize("end", [AtMatch(r"w\d+ w\d+"), When(lambda text: text.count("w") == 2)])
def test_ends_that_no_server_knows_are_cut_here_and_paid_for(plain, end):
    ledger = Ledger()
    (step,) = steps(model(plain), [START], end=end, ledger=ledger, seeds=[0])
    assert scripted(plain).startswith(step.text)
    assert step.text.count("w") == 2
    assert step.ending == "step"
    assert ledger.spent.tokens == 14
    assert "stop" not in plain.log[-1].body


def test_a_model_that_ends_where_the_step_would_end_has_ended(plain):
    (step,) = steps(model(plain), [START], end=AtMatch(r"(\sw\d+\s*){12}$"), seeds=[0])
    assert step.ending == "stop"


def test_the_end_of_a_text_that_was_cut_for_its_length(plain):
    (step,) = steps(model(plain), [START], max_tokens=3)
    assert (step.ending, step.tokens) == ("length", 3)


@pytest.mark.parametrize(
    ("reason", "ending"), [("length", "length"), ("content_filter", "stop"), ("null", "length"), ("odd", "length")]
)
def test_every_finish_reason(reason, ending):
    with Server(faults=schedule(*[f"finish:{reason}"] * 2), words=50) as server:
        user = model(server)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = [steps(user, [START], max_tokens=5)[0] for _ in range(2)]
        assert [step.ending for step in found] == [ending, ending]
        told = [str(w.message) for w in caught]
        assert len(told) == (reason in {"null", "odd"})
        assert all("is not known, and taken for 'length'" in words for words in told)


def test_a_tool_call_ends_the_answer_and_is_kept():
    with Server(faults=schedule("finish:tool_calls")) as server:
        (step,) = steps(model(server, extra={"tools": [{"type": "function"}]}), [START])
        assert step.ending == "tool"
        assert step.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
        assert server.log[-1].body["tools"] == [{"type": "function"}]
        assert START.followed(step).finished


# Faults


@pytest.mark.parametrize(
    "fault", ["429", "500", "503", "hang", "drop", "truncated", "invalid", "empty", "page", "more"]
)
def test_a_fault_changes_no_step(plain, fault):
    wanted = steps(model(plain), [START] * 3)
    ledger = Ledger()
    with Server(faults=schedule(fault)) as server:
        user = model(server, timeout=0.5 if fault == "hang" else 5.0)
        assert steps(user, [START] * 3, ledger=ledger) == wanted
    assert ledger.spent.retries == (fault != "more")
    assert ledger.spent.requests == 1


def test_many_faults_at_random_change_no_step(plain):
    wanted = answer(model(plain, deduplicate=False))
    kinds = ["429", "500", "drop", "truncated", "invalid", "empty"]
    with Server(faults=chance(0.5, kinds)) as server:
        assert answer(model(server, deduplicate=False, retries=12)) == wanted
        assert len(server.log) > len(wanted) + 1


def test_answers_that_are_missing_are_asked_for_alone():
    ledger = Ledger()
    with Server(faults=schedule("fewer")) as server:
        found = steps(model(server), [START] * 4, seeds=[5, 6, 7, 8], ledger=ledger)
        assert [entry.n for entry in server.log] == [4, 1]
        assert [entry.body["seed"] for entry in server.log] == [5, 8]
    assert len({step.text for step in found}) == 4
    assert ledger.spent.requests == 2
    assert ledger.spent.retries == 1


def test_a_server_that_knows_no_n_is_asked_one_by_one():
    with Server(several=False) as server:
        user = model(server, capabilities=None)
        assert len({step.text for step in steps(user, [START] * 4)}) == 4
        assert len(server.log) == 4
        steps(user, [START] * 4)
        assert len(server.log) == 8


def test_a_step_that_cannot_be_had_has_failed_and_the_others_go_on(caplog):
    other = START.followed(Step(" w1 w1 w1 w1" + STEP))
    faults = lambda number, body, tries: "500" if "w1" in str(body) else None  # noqa: E731
    with Server(faults=faults) as server, caplog.at_level(logging.WARNING):
        found = steps(model(server), [START, other])
        assert [step.ending for step in found] == ["step", "failed"]
        assert "1 of 2 steps could not be had" in caplog.text
        assert steps(model(server), [other])[0].ending == "failed"
    with Server(faults=lambda *_: "500") as server, pytest.raises(ServerError, match="in 4 tries"):
        steps(model(server), [START, START])


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422"])
def test_what_is_refused_is_told(status):
    with Server(faults=lambda *_: status) as server, pytest.raises(ServerError, match="it is what it is") as caught:
        steps(model(server), [START])
    assert caught.value.status == int(status)


def test_a_dead_server_ends_in_words_within_its_deadline():
    with pytest.raises(ServerError, match=r"gave no usable answer in 4 tries.*Start the server"):
        steps(model(dead_url()), [START] * 8)
    began = time.monotonic()
    with pytest.raises(Exhausted, match="seconds"):
        steps(model(dead_url(), retries=50, backoff=1.0), [START], ledger=Ledger(Budget(seconds=0.5)))
    assert time.monotonic() - began < 2


def test_one_that_was_told_to_wait_for_too_long_leaves_the_others_their_time():
    slow = START.followed(Step(" w1 w1 w1 w1" + STEP))
    faults = lambda number, body, tries: None if "w1" in str(body) else "429"  # noqa: E731
    with Server(faults=faults, retry_after="60", latency=0.05) as server:
        found = steps(model(server), [START, slow], ledger=Ledger(Budget(seconds=20)))
    assert [step.ending for step in found] == ["failed", "step"]


def test_a_run_that_is_cancelled_leaves_no_task():
    with Server(latency=0.01, slow=lambda body: 1000.0 if body["seed"] == 3 else 1.0) as server:
        user = model(server, deduplicate=False, timeout=60)

        async def cut_off():
            work = user.propose([START] * 4, end=AtString(), max_tokens=20, seeds=range(4), ledger=Ledger())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(work, 0.3)

        finished(user, cut_off())


def test_one_slow_particle_does_not_hold_up_the_others():
    with Server(latency=0.01, slow=lambda body: 6.0 if body["seed"] == 3 else 1.0) as server:
        user = model(server, deduplicate=False)
        steps(user, [START] * 4)
        assert max(e.received for e in server.log) < min(e.answered for e in server.log)


# Sharing


def test_the_same_prefixes_share_a_request(plain):
    def asked(prefixes, **settings):
        before = len(plain.log)
        ledger = Ledger()
        found = steps(model(plain, **settings), prefixes, ledger=ledger)
        assert ledger.spent.requests == len(plain.log) - before
        assert ledger.spent.tokens == sum(step.tokens for step in found)
        return found, ledger.spent.requests

    other = START.followed(Step(" w1 w2 w3 w4" + STEP))
    elsewhere = Prefix(({"content": "Why?", "role": "user"},))  # the same prompt in another place of memory
    found, requests = asked([START, other, elsewhere, START, other])
    assert requests == 2
    assert sorted(entry.n for entry in plain.log[-2:]) == [2, 3]
    assert len({step.text for step in found}) == 5
    assert asked([START, other, START, START, other], deduplicate=False)[1] == 5
    assert asked([START] * 4, capabilities=dataclasses.replace(VLLM, n=False))[1] == 4
    assert asked([START, Prefix(({"role": "user", "content": "Who?"},))])[1] == 2


def test_the_same_seeds_give_the_same_steps(plain):
    first = steps(model(plain), [START] * 3, seeds=[7, 8, 9])
    assert steps(model(plain), [START] * 3, seeds=[7, 8, 9]) == first
    assert steps(model(plain), [START] * 3, seeds=[8, 8, 9]) != first
    assert "seed" not in (steps(model(plain, seeded=False), [START]), plain.log[-1].body)[1]


def test_messages_are_kept_whole(plain):
    conversation = (
        {"role": "system", "content": "Be brief.", "name": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "7"},
    )  # fmt: skip
    prefix = Prefix(conversation)
    (step,) = steps(model(plain), [prefix])
    body = plain.log[-1].body
    assert body["messages"] == list(conversation)
    assert "continue_final_message" not in body
    steps(model(plain), [prefix.followed(step)])
    body = plain.log[-1].body
    assert body["messages"] == [*conversation, {"role": "assistant", "content": step.text}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_an_answer_that_the_prompt_begins_is_gone_on_with(plain):
    begun = Prefix((*START.messages, {"role": "assistant", "content": "Because"}))
    (step,) = steps(model(plain), [begun])
    assert plain.log[-1].body["continue_final_message"] is True
    steps(model(plain), [begun.followed(step)])
    assert plain.log[-1].body["messages"][1:] == [{"role": "assistant", "content": "Because" + step.text}]
    parts = Prefix((*START.messages, {"role": "assistant", "content": [{"type": "text", "text": "Because"}]}))
    steps(model(plain), [parts.followed(step)])
    assert plain.log[-1].body["messages"][-1]["content"][1] == {"type": "text", "text": step.text}


def test_completions_send_plain_text_or_what_the_template_makes(plain):
    prefix = START.followed(Step(" w1"))
    steps(model(plain, endpoint="completions"), [prefix])
    assert plain.log[-1].body["prompt"] == "Why? w1"
    steps(model(plain, endpoint="completions", template=lambda m: f"<{m[0]['content']}>?"), [prefix])
    assert plain.log[-1].body["prompt"] == "<Why?>? w1"
    two = Prefix(({"role": "system", "content": "Be brief."}, *START.messages))
    with pytest.raises(ValueError, match=r"needs a `template`.*got 2 messages \(system, user\)"):
        steps(model(plain, endpoint="completions"), [two])
    with pytest.raises(TypeError, match="`template` must give a text; got 3"):
        steps(model(plain, endpoint="completions", template=lambda m: 3), [prefix])


# What it costs, and how likely it is


def test_tokens_that_nobody_counts_are_estimated_with_a_warning():
    with Server(usage=False) as server:
        user, ledger = model(server), Ledger()
        with pytest.warns(PosteraxWarning, match="does not count tokens"):
            found = steps(user, [START] * 2, ledger=ledger)
        assert [step.tokens for step in found] == [-(-len(step.text) // 4) for step in found]
        assert ledger.spent.tokens == sum(step.tokens for step in found)
        steps(user, [START])  # warns once


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_log_probabilities_of_the_tokens_that_are_kept(plain, endpoint):
    def expected(tokens):
        return sum(-0.1 - (number(token) % 7) / 7 for token in tokens)

    user = model(plain, log_probs=True, endpoint=endpoint)
    (step,) = steps(user, [START])
    words = [f" {word}" for word in step.text.split()]
    assert step.log_prob == pytest.approx(expected([*words, STEP]))
    assert step.tokens == 5
    (cut,) = steps(user, [START], end=AtMatch(r"w\d+ w\d+"))
    assert cut.log_prob == pytest.approx(expected([f" {word}" for word in cut.text.split()]))
    assert cut.tokens == 2
    with pytest.raises(ValueError, match="this server gives none"):
        steps(model(plain, log_probs=True, capabilities=Capabilities(log_probs=False)), [START])


# What servers can do


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        ({}, {}),
        ({"echo": "never"}, {"stop_echo": False}),
        ({"tells": False}, {"stop_told": False}),
        ({"several": False}, {"n": False}),
        ({"seeds": False}, {"seed": False}),
        ({"draws": False}, {"draws": False, "n": False}),
        ({"log_probs": False}, {"log_probs": False}),
        ({"continues": False}, {"continuation": False}),
        ({"stops": False}, {"stop": False, "stop_echo": None, "stop_told": None}),
        ({"extras": "refused", "echo": "always"}, {"extras": False, "stop_token_ids": False, "continuation": False}),
        ({"extras": "ignored"}, {"stop_echo": False, "stop_token_ids": False, "continuation": False}),
    ],
)
def test_the_probe_finds_out_what_a_server_lacks(settings, lacks):
    with Server(**settings) as server:
        user = model(server, capabilities=None)
        found = finished(user, user.capabilities())
        assert len(server.log) <= 15
        assert sum(entry.tokens for entry in server.log) < 14 * 16
    assert found == dataclasses.replace(VLLM, reachable=True, models=("scripted",), **lacks)
    denied = [line for line in str(found).splitlines() if line.endswith(": no")]
    assert len(denied) == sum(value is False for value in lacks.values())


def test_the_probe_tells_who_cannot_be_reached():
    user = model(dead_url(), capabilities=None)
    found = finished(user, user.capabilities())
    assert found.reachable is False
    assert "not reachable" in str(found)
    with Server(key="right") as server:
        user = model(server, capabilities=None, api_key="wrong")
        assert "401" in str(finished(user, user.capabilities()))


def test_the_probe_works_inside_a_running_loop():
    with Server() as server:
        user = model(server, capabilities=None)

        async def notebook():
            found = user.probe()
            run(user.aclose())
            return found

        assert asyncio.run(notebook()).n is True


@pytest.mark.parametrize("usage", [True, False])
def test_a_chat_that_cannot_go_on_is_refused_before_its_texts_are_joined(usage):
    follow = START.followed(Step(" w1 w1 w1 w1" + STEP))
    with Server(continues=False, usage=usage) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)
        user = model(server, capabilities=None)
        steps(user, [START])  # nothing to go on with yet
        for _ in range(2):
            with pytest.raises(ServerError, match=r'does not continue the last message.*endpoint="completions"'):
                steps(user, [follow])
        assert len(server.log) <= 5
    with Server(usage=usage) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)
        assert steps(model(server, capabilities=None), [follow])[0].ending == "step"


def test_what_the_server_refuses_to_know_is_left_out():
    with Server(extras="refused", echo="always", tells=False) as server:
        found = answer(model(server, endpoint="completions", capabilities=None))
        assert found.text == scripted(server, chat=False)
        assert [step.ending for step in found.steps] == ["step", "step", "stop"]
        refused = [entry for entry in server.log if entry.status == 422]
        assert len(refused) == 2  # the step, and the question that found out why


def test_questions_about_the_server_stay_within_the_budget(plain):
    follow = START.followed(Step(" w1 w1 w1 w1" + STEP))
    ledger = Ledger(Budget(tokens=30))
    steps(model(plain, capabilities=None), [follow], ledger=ledger, max_tokens=30)
    assert ledger.spent.requests == 1  # no tokens to spare for a question
    ledger = Ledger(Budget(tokens=90))
    steps(model(plain, capabilities=None), [follow] * 2, end=AtString("never"), ledger=ledger, max_tokens=45)
    assert ledger.spent.requests == 3
    assert plain.log[-1].body["max_tokens"] == 44
    assert ledger.spent.tokens <= 90


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "responses"}, "`endpoint` must be one of 'chat', 'completions'; got 'responses'"),
        ({"ambiguous_stop": "ask"}, "`ambiguous_stop` must be one of 'step', 'stop', 'cut'"),
        ({"temperature": -1.0}, "`temperature` must be 0 or more; got -1.0"),
        ({"top_p": 0.0}, r"`top_p` must lie in \(0, 1\]; got 0.0"),
        ({"extra": {"n": 2, "stop": []}}, "`extra` must not have n, stop"),
        ({"retries": 1.5}, "`retries` must be an integer"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        model("http://127.0.0.1:1/v1", **settings)


def test_more_stop_strings_than_servers_take(plain):
    with pytest.raises(ValueError, match="`end` has 5 stop strings; servers take 4 at most"):
        steps(model(plain), [START], end=AtString(*"abcde"))


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    with Server(key="sk-hidden") as server:
        user = model(server, api_key=None)
        (step,) = steps(user, [START])
        again = pickle.loads(pickle.dumps(user))
        assert steps(again, [START]) == [step]
        with pytest.raises(ServerError, match=r"no key.*OPENAI_API_KEY"):
            steps(model(server, api_key=""), [START])
    assert "sk-hidden" not in f"{user!r} {vars(user)} {vars(user.server)} {vars(user.server.client)} {step}"
    assert b"sk-hidden" not in pickle.dumps(user)
