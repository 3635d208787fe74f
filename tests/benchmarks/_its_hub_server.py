"""The language model and reward of both sides of `_its_hub`, in a process of its own: `_its_hub_server.py`.

It says its port, then answers each line `N` with the log of the requests since the last one, and begins anew for N
particles. However particles are spread over requests, those of a step take the same times together: their writings are
numbered as they come, and each number has its pace. A request takes as long as the slowest of its `n` choices, and
scoring the same however many texts it has.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass

from _timing import ROOT, load

STEPS, TOKENS = 6, 32  # of every answer, and of every step
TOKEN, SLOWEST, SCORING = 0.01, 1.5, 0.05  # seconds a token, the slowest particle's factor, and seconds a request
END = "END"
PROMPT = "What is there to be said?"
server = load(ROOT / "tests" / "plugins" / "particles" / "language" / "server.py")
STEP = server.STEP


def written(prompt: str, text: str, choice: str) -> str | None:
    """The next token of an answer of equal steps."""
    done, tail = text.count(STEP), text.rpartition(STEP)[2]
    if tail.endswith(END):
        return None
    if len(tail.split()) < TOKENS - 1:
        return f" w{server.draw(prompt, text, choice) % 100}"
    return STEP if done < STEPS - 1 else f" {END}"


@dataclass
class Paced(server.Server):
    """Times by the number of the writing, not by the text."""

    def begin(self, num: int) -> list[dict]:
        """Empties the log, and gives what it was."""
        told = [self._told(entry) for entry in self.log]
        self.log.clear()
        self._num, self._come = num, Counter()
        return told

    def _told(self, entry) -> dict:
        kind = "step" if entry.path.endswith("/completions") else "score"
        step = self._prompt(entry.body, True)[1].count(STEP) if kind == "step" else None
        return {
            "kind": kind, "step": step, "n": entry.n, "tokens": entry.tokens, "received": entry.received,
            "answered": entry.answered,
        }  # fmt: skip

    async def _completions(self, entry):
        step = self._prompt(entry.body, True)[1].count(STEP)
        paces = random.Random(step).sample(range(self._num), self._num)
        first, num = self._come[step], entry.body.get("n", 1)
        self._come[step] += num
        found = await super()._completions(entry)
        slowest = max(paces[i % self._num] for i in range(first, first + num))
        factor = 1 + (SLOWEST - 1) * slowest / (self._num - 1)
        await _until(entry.received + TOKEN * TOKENS * factor)
        return found

    def _one(self, body, prompt, text, choice):
        return super()._one({**body, "max_tokens": 2 * TOKENS}, prompt, text, choice)

    async def _answer(self, entry):
        found = await super()._answer(entry)
        if entry.path.endswith("/score"):
            await _until(entry.received + SCORING)
        return found


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def main() -> None:
    with Paced(write=written, seeds=False) as paced:
        paced.begin(1)
        print(paced.port, flush=True)
        for line in sys.stdin:
            print(json.dumps(paced.begin(int(line))), flush=True)


if __name__ == "__main__":
    main()
