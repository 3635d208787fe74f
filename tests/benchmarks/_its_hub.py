"""Our particle filter over steps of text beside its-hub's, on one server with the same times for both.

Multinomial selection at every step, the same concurrency, one reward request a step. The server is a process of its
own (`_its_hub_server.py`), and so is either side; runs take turns.
"""

import json
import statistics
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import _serve
import numpy as np
from _race import Child, Unavailable, environment
from _timing import HERE, Figure, rows, spread

_SIZES = (4, 8, 16)
_PAIRS = 7
_NAMES = ("ours", "its-hub")


def program(num: int, port: int):
    """One run of N particles; it gives each one's number of steps."""
    import jax.random as jr
    from _its_hub_server import END, PROMPT
    from posterax.weights import Multinomial
    from posterax_particles.language import Capabilities, HTTPReward, OpenAIModel, Reasoning, StepFilter, solve

    root = f"http://127.0.0.1:{port}"
    model = OpenAIModel("scripted", f"{root}/v1", api_key="", capabilities=Capabilities.of_vllm())
    problem = Reasoning(PROMPT, model, HTTPReward(f"{root}/score"), stop=END)
    method, number = StepFilter(num, resampler=Multinomial()), 0

    def once():
        nonlocal number
        number += 1
        found = solve(method, problem, key=jr.key(number))
        if found.stopped != "complete" or found.spent.retries:
            raise RuntimeError(f"{found.stopped}, with {found.spent.retries} retries")
        return np.array([len(particle) for particle in found.particles])

    return once


class _Log:
    """What the server has seen of one run."""

    def __init__(self, entries: list[dict]):
        asked = [entry for entry in entries if entry["kind"] == "step"]
        self.requests, self.tokens = len(asked), sum(entry["tokens"] for entry in asked)
        taken = [entry["answered"] - entry["received"] for entry in entries]
        slowest: dict[int, float] = {}
        for entry, seconds in zip(entries, taken, strict=True):
            if entry["kind"] == "step":
                slowest[entry["step"]] = max(slowest.get(entry["step"], 0.0), seconds)
        scoring = [seconds for entry, seconds in zip(entries, taken, strict=True) if entry["kind"] == "score"]
        self.scores, self.steps, self.critical_path = len(scoring), len(slowest), sum(slowest.values()) + sum(scoring)


@contextmanager
def server():
    """Port, and a function that empties the log for N particles."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "_its_hub_server.py")], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def log(num):
        print(num, file=process.stdin, flush=True)
        return _Log(json.loads(process.stdout.readline()))

    try:
        yield int(process.stdout.readline()), log
    finally:
        process.kill()
        process.communicate()


def _raced(num: int, port: int, log, python) -> dict[str, list[tuple[float, _Log]]]:
    """Seconds and the server's log of every run, by side."""
    with ExitStack() as stack:
        children = []
        for name, where, script in zip(_NAMES, (sys.executable, python), (_OURS, _PEER), strict=True):
            log(num)
            children.append(stack.enter_context(Child(name, where, script, f"{num}-{port}")))
            children[-1].ready()
        found = {name: [] for name in _NAMES}
        for number in range(_PAIRS):
            for child in reversed(children) if number % 2 else children:
                log(num)
                seconds = child.seconds()
                found[child.label].append((seconds, log(num)))
                _check(child, num, found[child.label][-1][1])
    return found


def _check(child: Child, num: int, log: _Log) -> None:
    from _its_hub_server import STEPS

    if not child.value == num * STEPS or not log.steps == log.scores == STEPS:
        raise RuntimeError(
            f"{child.label}, {num} particles: {child.value:.0f} steps; the server saw {log.steps}, {log.scores} scored"
        )


@rows("hub-tokens", "hub-requests", "hub-time", "hub-critical-path")
def measure():
    """All four, at each number of particles; the figures are the worst of them."""
    try:
        python = environment("its-hub")
    except Unavailable as reason:
        for row in measure.rows:
            yield row, Figure(None, str(reason))
        return
    found = {row: [] for row in measure.rows}
    with server() as (port, log):
        for num in _SIZES:
            raced = _raced(num, port, log, python)
            for row, value, text in _compared(*(raced[name] for name in _NAMES)):
                found[row].append((value, f"N = {num}: {text}"))
    for row, figures in found.items():
        yield row, Figure(max(value for value, _ in figures), "\n".join(text for _, text in figures))


def _compared(ours, theirs):
    pairs = list(zip(ours, theirs, strict=True))
    for row, name in (("hub-tokens", "tokens"), ("hub-requests", "requests")):
        left, right = (statistics.mean(getattr(log, name) for _, log in side) for side in (ours, theirs))
        yield row, left / right, f"{left / right:.3f}, {left:.1f} and {right:.1f} {name} a run"
    ratios = [a / b for (a, _), (b, _) in pairs]
    left, right = (statistics.median(seconds for seconds, _ in side) for side in (ours, theirs))
    text = f"{spread(ratios)} over {len(pairs)} pairs; {left:.3f} and {right:.3f} s a run"
    yield "hub-time", statistics.median(ratios), text
    over, peers = ([seconds / log.critical_path for seconds, log in side] for side in (ours, theirs))
    path = statistics.median(log.critical_path for _, log in ours)
    text = f"{spread(over)} of {path:.3f} s; its-hub's {spread(peers)}"
    yield "hub-critical-path", statistics.median(over), text


MEASURES = (measure,)
_OURS, _PEER = "_its_hub.py", "_its_hub_peer.py"

if __name__ == "__main__":
    _serve.serve(lambda: program(*map(int, sys.argv[1].split("-"))))
