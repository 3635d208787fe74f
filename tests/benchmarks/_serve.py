"""A process that computes whenever it is asked, for `_race`: the exchange is one line of JSON an answer.

Only NumPy is imported, so that it runs in any environment.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np


def serve(program: Callable[[], Callable]) -> None:
    """Answers each line on the standard input with the seconds of one computation.

    Before the first, the program is set up and run once. `value` sums up the first part of the answer; `peak` is the
    largest resident memory so far, and `before` what it was when the computation had not been run, both in MiB.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def say(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    once = program()
    before = _peak()
    once()
    say(before=before)
    for _ in sys.stdin:
        began = time.perf_counter()
        answer = once()
        seconds = time.perf_counter() - began
        first = answer[0] if isinstance(answer, tuple) else answer
        say(seconds=seconds, value=float(np.sum(np.asarray(first))), peak=_peak())
        del answer, first


def _peak() -> float:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)
