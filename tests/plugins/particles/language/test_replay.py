"""A recorded run, played again: the same bytes, without the servers and without their faults."""

import json
import os
import subprocess
import sys

import jax.random as jr
import numpy as np
import pytest
from posterax import CheckpointError
from posterax_particles.language import (
    AtString,
    Budget,
    CallableModel,
    CallableReward,
    Ledger,
    Prefix,
    Reasoning,
    Step,
    StepFilter,
    solve,
)
from posterax_particles.language._capabilities import Capabilities
from posterax_particles.language._loop import run
from posterax_particles.language._openai import OpenAIModel
from posterax_particles.language._replay import Recorder, Replayed, ReplayError
from posterax_particles.language._scorer import HTTPReward
from server import Server, chance, finished

START = Prefix(({"role": "user", "content": "Why?"},))
KINDS = ["429", "500", "drop", "truncated", "invalid", "empty", "fewer"]


def solved(model, reward, **settings):
    problem = Reasoning("Why?", model, reward, max_steps=5)
    found = solve(StepFilter(8), problem, key=jr.key(3), **settings)
    told = found.as_dict()
    del told["spent"]["seconds"]
    return json.dumps(told)


def test_a_run_among_faults_is_the_clean_replay_of_its_replies(tmp_path):
    recorder = Recorder(tmp_path / "run.jsonl")
    with Server(faults=chance(0.3, KINDS, seed=1)) as server:
        settings = {"retries": 12, "timeout": 2.0, "backoff": 0.005}
        model = OpenAIModel("scripted", server.url, capabilities=Capabilities.of_vllm(), api_key="", **settings)
        reward = HTTPReward(f"{server.root}/score", **settings)
        among_faults = solved(recorder.model(model), recorder.reward(reward))
        assert sum(entry.fault is not None for entry in server.log) > 5
        run(model.aclose())
        run(reward.aclose())
    replayed = Replayed(tmp_path / "run.jsonl")
    assert solved(replayed.model(), replayed.reward()) == among_faults
    again = Replayed(recorder.records)
    assert solved(again.model(), again.reward()) == among_faults


def test_faults_that_lose_no_choice_change_nothing_at_all():
    found = []
    for faults in (lambda *_: None, chance(0.3, KINDS[:-1], seed=1)):
        with Server(faults=faults) as server:
            settings = {"retries": 12, "timeout": 2.0, "backoff": 0.005}
            model = OpenAIModel("scripted", server.url, capabilities=Capabilities.of_vllm(), api_key="", **settings)
            reward = HTTPReward(f"{server.root}/score", **settings)
            told = json.loads(solved(model, reward))
            found.append({name: figure for name, figure in told.items() if name != "spent"})
            run(model.aclose())
            run(reward.aclose())
    assert found[0] == found[1]


def steps(model, prefixes, seeds, ledger=None):
    work = model.propose(prefixes, end=AtString(), max_tokens=9, seeds=seeds, ledger=ledger or Ledger())
    return finished(model, work)


def test_every_field_of_a_step_comes_back_and_so_do_the_accounts():
    full = Step("a", "tool", 3, (4, 5, 6), -1.5, ({"id": "1", "function": {"name": "f"}},))
    made = iter([full, Step("", "failed"), Step("ü\n\n")])
    recorder = Recorder()
    first = Ledger()
    found = steps(recorder.model(CallableModel(lambda prefix, seed: next(made))), [START] * 3, [1, 2, 3], first)
    second = Ledger()
    assert steps(Replayed(recorder.records).model(), [START] * 3, [1, 2, 3], second) == found
    assert second.spent == first.spent
    assert (second.spent.requests, second.spent.tokens) == (3, 3)


def test_the_same_question_asked_twice_has_both_answers_in_order():
    numbers = iter(range(9))
    recorder = Recorder()
    model = recorder.model(CallableModel(lambda prefix, seed: f"{next(numbers)}\n\n"))
    first = steps(model, [START, START], [7, 7])
    second = steps(model, [START], [7])
    assert [step.text for step in first + second] == ["0\n\n", "1\n\n", "2\n\n"]
    again = Replayed(recorder.records).model()
    assert steps(again, [START, START], [7, 7]) + steps(again, [START], [7]) == first + second


def test_scores_come_back_on_their_scale_and_so_does_what_failed():
    recorder, values = Recorder(), iter([0.5, None])
    reward = recorder.reward(CallableReward(lambda prefix: next(values), scale="logit"))
    other = START.followed(Step("a"))
    ledger = Ledger(Budget(reward_calls=2))
    assert finished(reward, reward.score([START, other], ledger=ledger)) == [0.5, None]
    again = Replayed(recorder.records).reward()
    assert again.scale == "logit"
    spent = Ledger()
    assert finished(again, again.score([START, other], ledger=spent)) == [0.5, None]
    assert spent.spent == ledger.spent


def test_what_was_not_recorded_is_told():
    recorder = Recorder()
    steps(recorder.model(CallableModel(lambda prefix, seed: "a\n\n")), [START], [1])
    for prefix, seed in ((START, 2), (START.followed(Step("b")), 1), (Prefix(({"role": "user", "content": "?"},)), 1)):
        with pytest.raises(ReplayError, match=rf"No step was recorded after .* with seed {seed}.*1 records.*same key"):
            steps(Replayed(recorder.records).model(), [prefix], [seed])
    again = Replayed(recorder.records).reward()
    with pytest.raises(ReplayError, match="No score was recorded"):
        finished(again, again.score([START], ledger=Ledger()))


def test_a_call_that_raises_has_its_cost_booked():
    def fails(prefix, seed):
        if seed == 2:
            raise RuntimeError("broken")
        return "a\n\n"

    ledger, recorder = Ledger(), Recorder()
    with pytest.raises(RuntimeError, match="broken"):
        steps(recorder.model(CallableModel(fails)), [START, START], [1, 2], ledger)
    assert ledger.spent.requests == 1
    assert recorder.records == []


KILLED = """
import asyncio, os, signal, sys
from posterax_particles.language import AtString, CallableModel, Ledger, Prefix
from posterax_particles.language._replay import Recorder

model = Recorder(sys.argv[1]).model(CallableModel(lambda prefix, seed: f"{seed}\\n\\n"))
start = Prefix(({"role": "user", "content": "Why?"},))
for seed in range(5):
    asyncio.run(model.propose([start], end=AtString(), max_tokens=9, seeds=[seed], ledger=Ledger()))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_has_kept_its_replies_and_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "run.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0][:40])  # what a full disk or a kill in a write leaves
    model = Replayed(path).model()
    assert [steps(model, [START], [seed])[0].text for seed in range(5)] == [f"{seed}\n\n" for seed in range(5)]
    steps(Recorder(path).model(CallableModel(lambda prefix, seed: "later\n\n")), [START, START], [0, 5])
    assert len(path.read_bytes().splitlines()) == 7
    model = Replayed(path).model()
    found = [steps(model, [START], [seed])[0].text for seed in (0, 1, 5)]
    assert found == ["later\n\n", "1\n\n", "later\n\n"]
    assert os.stat(path).st_mode & 0o077 == 0


def test_a_file_that_was_altered_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind": "step"}\n')
    with pytest.raises(ReplayError, match=r"run.jsonl, line 1, is no record"):
        Replayed(path)
    path.write_text("{}\nnonsense\n")
    with pytest.raises(ReplayError, match=r"is no record"):
        Recorder(path)


def test_scores_are_plain_numbers(tmp_path):
    recorder = Recorder(tmp_path / "run.jsonl")
    reward = recorder.reward(CallableReward(lambda prefix: np.float32(0.25)))
    assert finished(reward, reward.score([START], ledger=Ledger())) == [0.25]


# A run that goes on after its process was killed


def toss(prefix, seed):
    rng = np.random.default_rng(seed)
    return f"{rng.choice(['heads', 'tails'])}\n"


def judge(prefix):
    return (1 + prefix.text.count("heads")) / (2 + len(prefix))


def tossed(path, *, write=toss, particles=6, key=3, steps=5):
    problem = Reasoning("Toss.", CallableModel(write), CallableReward(judge), end=AtString("\n"), max_steps=steps)
    told = solve(StepFilter(particles), problem, key=jr.key(key), checkpoint=path).as_dict()
    del told["spent"]["seconds"]
    return json.dumps(told)


@pytest.mark.parametrize("calls", [1, 3, 6, 7, 20, 29])
def test_a_run_that_broke_goes_on_and_asks_only_for_what_it_lacks(tmp_path, calls):
    whole, asked = tossed(None), []

    def breaks(prefix, seed):
        asked.append(seed)
        if len(asked) == calls:
            raise ZeroDivisionError
        return toss(prefix, seed)

    with pytest.raises(ZeroDivisionError):
        tossed(tmp_path / "run.jsonl", write=breaks)
    assert tossed(tmp_path / "run.jsonl", write=breaks) == whole
    assert len(asked) == 30 + 1 + (calls - 1) % 6  # only the batch that was under way is written again
    assert tossed(tmp_path / "run.jsonl", write=breaks) == whole
    assert len(asked) == 31 + (calls - 1) % 6


def test_a_file_may_end_anywhere(tmp_path):
    path = tmp_path / "run.jsonl"
    whole = tossed(path)
    content = path.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(content), 20):
        path.write_bytes(content[:size])
        assert tossed(path) == whole


def test_the_file_of_another_run_is_refused(tmp_path):
    tossed(tmp_path / "run.jsonl")
    for change in ({"particles": 5}, {"key": 4}, {"steps": 6}):
        with pytest.raises(CheckpointError, match="holds another run: its method, problem or key differ"):
            tossed(tmp_path / "run.jsonl", **change)
    recorder = Recorder(tmp_path / "other.jsonl")
    run(recorder.model(CallableModel(toss)).propose([START], end=AtString(), max_tokens=9, seeds=[1], ledger=Ledger()))
    with pytest.raises(CheckpointError, match="holds replies of no run of `solve`"):
        tossed(tmp_path / "other.jsonl")
