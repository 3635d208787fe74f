"""A whole run of the entropic particle filter among the faults of servers: what it finds is what it would have found.

One request in ten goes wrong, in every way that the scripted server knows. Whatever happened, the run is the clean
replay of the replies that came through in the end; and where no fault has lost a choice, it is the run on a server
without faults, too. (A choice that is missing among `n` is asked for again with another seed, and so becomes another.)
"""

import time
from collections import Counter
from contextlib import ExitStack
from itertools import count

import jax.random as jr
import numpy as np
import pytest
from posterax_particles import EssSchedule
from posterax_particles.language import (
    Budget,
    CallableReward,
    Capabilities,
    HTTPReward,
    OpenAIModel,
    Reasoning,
    Recorder,
    Replayed,
    StepFilter,
    solve,
)
from posterax_particles.language._loop import run
from server import STEP, Server, chance, value

KINDS = ["429", "500", "invalid", "truncated", "empty", "hang", "drop"]
COUNTS = ["fewer", "more"]
SETTINGS = {"retries": 12, "timeout": 0.3, "backoff": 0.002}
PARTICLES, STEPS = 4, 5


def components(server, *, deduplicate=True, **settings):
    """Model and reward at a server."""
    settings = SETTINGS | settings
    vllm = Capabilities.of_vllm()
    model = OpenAIModel("scripted", server.url, api_key="", capabilities=vllm, deduplicate=deduplicate, **settings)
    return model, HTTPReward(f"{server.root}/score", **settings)


def faults(which):
    """One request in ten, at random, of every kind in turn; wrong numbers of choices where there are several."""
    drawn, ones, several = chance(0.1, ["some"], seed=which), count(which), count(which)

    def fault(number, body, tries):
        if drawn(number, body, tries) is None:
            return None
        together = body.get("n", 1) > 1
        return COUNTS[next(several) % len(COUNTS)] if together else KINDS[next(ones) % len(KINDS)]

    return fault


def solved(model, reward, number=0, **settings):
    problem = Reasoning("Why?", model, reward, max_steps=STEPS)
    try:
        return solve(StepFilter(PARTICLES, EssSchedule()), problem, key=jr.key(number), **settings)
    finally:
        run(model.aclose())
        run(reward.aclose())


def found(solution):
    """All but the accounts."""
    told = solution.as_dict()
    spent, trace = told.pop("spent"), told.pop("trace")
    assert spent["seconds"] > 0
    return told | {name: row for name, row in trace.items() if name not in {"tokens", "reward_calls"}}


def runs(numbers):
    """Faults by kind, and the numbers of runs among them that lost a choice."""
    seen, losers = Counter(), []
    for number in numbers:
        together = number % 3 > 0  # else no request has several choices
        recorder = Recorder()
        with Server(steps=STEPS, faults=faults(number), retry_after="0.01") as server:
            model, reward = components(server, deduplicate=together)
            among_faults = solved(recorder.model(model), recorder.reward(reward), number)
            seen.update(entry.fault for entry in server.log if entry.fault)
            losers += [number] * any(entry.fault == "fewer" for entry in server.log)
        replayed = Replayed(recorder.records)
        again = solved(replayed.model(), replayed.reward(), number)
        assert among_faults.stopped == "complete"
        assert np.isfinite(among_faults.log_weights).all()
        assert found(again) == found(among_faults)
        assert again.trace["tokens"].tolist() == among_faults.trace["tokens"].tolist()
        if number not in losers:
            with Server(steps=STEPS) as server:
                assert found(solved(*components(server, deduplicate=together), number)) == found(among_faults)
    return seen, losers


def test_ten_runs_among_faults_find_what_they_would_have_found():
    seen, losers = runs(range(10))
    assert set(seen) == {*KINDS, *COUNTS}
    assert 1 <= len(losers) <= 3


@pytest.mark.slow
def test_thirty_runs_among_faults_find_what_they_would_have_found():
    seen, losers = runs(range(10, 40))
    assert set(seen) == {*KINDS, *COUNTS}
    assert sum(seen.values()) > 30
    assert 1 <= len(losers) <= 9


# Servers that are gone, and servers that are slow


def test_a_dead_server_ends_the_run_at_its_deadline_with_what_was_found_so_far():
    with ExitStack() as stack:
        server = stack.enter_context(Server(steps=STEPS))

        def score(prefix):
            if len(prefix) == 2:
                stack.close()  # nobody listens any more
            return value("", prefix.text)

        model, _ = components(server, retries=1000, backoff=0.05)
        began = time.monotonic()
        solution = solved(model, CallableReward(score), budget=Budget(seconds=0.6))
        seconds = time.monotonic() - began
    assert seconds < 2.5
    whole_until_then(solution)
    assert solution.spent.retries > 0


@pytest.mark.parametrize("path", ["completions", "score"])
def test_a_server_that_falls_silent_ends_the_run_at_its_deadline_too(path):
    def silent(number, body, tries):
        del tries
        return "hang" if number >= 4 and ("messages" in body) == (path == "completions") else None

    with Server(steps=STEPS, faults=silent) as server:
        began = time.monotonic()
        solution = solved(*components(server, timeout=30.0), budget=Budget(seconds=0.6))
        seconds = time.monotonic() - began
    assert 0.5 < seconds < 2.5
    whole_until_then(solution)


def whole_until_then(solution):
    """Every particle has the steps, scores and weights of the last whole step, and the best one is the answer."""
    steps = len(solution.trace["ess"])
    assert solution.stopped == "seconds"
    assert 1 <= steps < STEPS
    assert {len(particle) for particle in solution.particles} == {steps}
    assert solution.answer == solution.particles[solution.index].text.strip()
    assert np.isfinite(solution.scores).all()
    assert solution.log_weights[solution.index] == solution.log_weights.max()
    assert solution.log_evidence is None
    assert "seconds" in solution.no_evidence


def test_one_slow_particle_delays_only_its_own_step():
    times = iter([50.0])

    def slow(body):
        return next(times, 1.0) if _step(body) == 2 else 1.0

    with Server(steps=STEPS, latency=0.002, slow=slow) as server:
        model, reward = components(server, deduplicate=False, timeout=30.0)
        solution = solved(model, reward)
        asked = server.asked()
    assert solution.stopped == "complete"
    steps = [[entry for entry in asked if _step(entry.body) == t] for t in range(STEPS)]
    assert [len(entries) for entries in steps] == [PARTICLES] * STEPS
    lasted = [max(e.answered for e in entries) - min(e.received for e in entries) for entries in steps]
    assert lasted[2] >= 0.5  # 5 tokens
    assert max(lasted[:2] + lasted[3:]) < lasted[2] / 2
    answers = sorted(entry.answered - entry.received for entry in steps[2])
    assert answers[-2] < lasted[2] / 2  # the others did not wait for it
    with Server(steps=STEPS) as server:
        assert found(solved(*components(server, deduplicate=False))) == found(solution)


def _step(body):
    """How many steps the text has that this request continues; -1 where it continues none."""
    messages = body.get("messages", [])
    return messages[-1]["content"].count(STEP) if messages else -1
