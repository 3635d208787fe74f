"""A process that computes whenever it is asked, for `_race`: the exchange is one line of JSON an answer.

Only NumPy is imported, so that it runs in any environment.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def _total(answer) -> float:
    return float(np.sum(np.asarray(answer[0] if isinstance(answer, tuple) else answer)))


def serve(
    program: Callable[[], Callable], value: Callable[..., float] = _total, told: Callable[..., dict] | None = None,
    at_least: float = 0.0,
) -> None:  # fmt: skip
    """Answers each line on the standard input with the seconds of one computation.

    Before the first, the program is set up and run once. `peak` is the largest resident memory so far, and `before`
    what it was when the computation had not been run, both in MiB.

    - `value`: of an answer, for comparison with the other side's; by default the sum of its first part.
    - `told`: further figures of an answer.
    - `at_least`: seconds of a timing; a shorter computation is repeated, and the mean is told.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def say(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    once = program()
    before = _peak()
    once()
    say(before=before, peak=_peak())
    repeats = 1
    if at_least:
        began = time.perf_counter()
        once()
        repeats = max(1, math.ceil(at_least / (time.perf_counter() - began)))
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(repeats):
            answer = once()
        seconds = (time.perf_counter() - began) / repeats
        say(peak=_peak(), seconds=seconds, value=value(answer), told=told(answer) if told else {})
        del answer


def _peak() -> float:
    """The largest resident memory of this program so far. `getrusage` would begin with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)
