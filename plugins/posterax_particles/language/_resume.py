"""A run that goes on where its process was killed: what has been answered is not asked again."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from posterax import CheckpointError
from posterax._structure import fingerprint

from ._ledger import Ledger
from ._model import LanguageModel
from ._reasoning import Reasoning
from ._replay import Meter, Names, Record, Recorder, booked, name_of, records_of, step_of
from ._reward import Reward


def resumed(problem: Reasoning, method: Any, key: Sequence[int], path: str | os.PathLike) -> Reasoning:
    """The problem with a model and a reward that answer from a file what it holds, and add to it what it does not.

    Raises `CheckpointError` where the file is of another run, `ReplayError` where it was altered.
    """
    path = Path(path)
    whole_batches(path)
    recorder = Recorder(path)
    about = _run(problem, method, key)
    there = [record for record in recorder.records if record["kind"] == "run"]
    if there and there[0]["prefix"] != about["prefix"]:
        raise CheckpointError(
            f"{path} holds another run: its method, problem or key differ. Choose another file, or delete it."
        )
    if not there:
        if recorder.records:
            raise CheckpointError(f"{path} holds replies of no run of `solve`. Choose another file, or delete it.")
        recorder.add([about])
    kept = {name_of(record): record for record in recorder.records}
    reward = None if problem.reward is None else _Reward(problem.reward, recorder, kept)
    return replace(problem, model=_Model(problem.model, recorder, kept), reward=reward)


def whole_batches(path: Path) -> None:
    """Cuts replies off the end of a file of which the batch they belong to is not whole."""
    if not path.exists():
        return
    lines, start = path.read_bytes().splitlines(keepends=True), 0
    while start < len(lines):
        try:
            size = json.loads(lines[start]).get("batch", 1) if lines[start].endswith(b"\n") else len(lines) + 1
        except (ValueError, AttributeError):
            return  # altered: whoever reads it says where
        if start + size > len(lines) or not lines[start + size - 1].endswith(b"\n"):
            os.truncate(path, sum(map(len, lines[:start])))
            return
        start += size


def _run(problem: Reasoning, method: Any, key: Sequence[int]) -> Record:
    """What makes two runs the same run, as a record."""
    settings = (
        method, problem.end, problem.start.messages, problem.max_steps, problem.target, problem.potential, problem.stop,
        problem.on_failure, type(problem.model).__qualname__, type(problem.reward).__qualname__, list(key),
    )  # fmt: skip
    told = json.dumps(fingerprint(settings), sort_keys=True)
    return {"kind": "run", "prefix": hashlib.sha256(told.encode()).hexdigest()[:32], "seed": None, "occurrence": 0}


class _Kept:
    """Answers by name, from the file or from whoever is asked."""

    def __init__(self, kind: str, recorder: Recorder, kept: dict[tuple, Record]):
        self._names, self._recorder, self._kept = Names(kind), recorder, kept

    async def answers(self, prefixes, seeds, ledger: Ledger, ask: Callable, written: Callable) -> list[Record]:
        names = self._names(prefixes, seeds)
        new = [place for place, name in enumerate(names) if name not in self._kept]
        booked([self._kept[name] for name in names if name in self._kept], ledger)
        if new:
            with Meter(ledger) as meter:
                found = await ask(new, meter.own)
                records = written([names[place] for place in new], found, meter.spent())
                self._recorder.add(records)
            self._kept.update({name_of(record): record for record in records})
        return [self._kept[name] for name in names]


class _Model(LanguageModel):
    def __init__(self, model: LanguageModel, recorder: Recorder, kept: dict[tuple, Record]):
        self._model, self._kept = model, _Kept("step", recorder, kept)

    def __repr__(self):
        return f"Resumed({self._model!r})"

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        async def ask(new, own):
            return await self._model.propose(
                [prefixes[i] for i in new], end=end, max_tokens=max_tokens, seeds=[seeds[i] for i in new], ledger=own
            )

        def written(names, steps, spent):
            return records_of(names, [{"step": asdict(step)} for step in steps], spent)

        records = await self._kept.answers(prefixes, seeds, ledger, ask, written)
        return [step_of(record["step"]) for record in records]

    async def aclose(self):
        await self._model.aclose()


class _Reward(Reward):
    def __init__(self, reward: Reward, recorder: Recorder, kept: dict[tuple, Record]):
        self._reward, self._kept, self.scale = reward, _Kept("score", recorder, kept), reward.scale

    def __repr__(self):
        return f"Resumed({self._reward!r})"

    async def score(self, prefixes, *, ledger):
        async def ask(new, own):
            return await self._reward.score([prefixes[i] for i in new], ledger=own)

        def written(names, scores, spent):
            return records_of(names, [{"score": score, "scale": self.scale} for score in scores], spent)

        records = await self._kept.answers(prefixes, [None] * len(prefixes), ledger, ask, written)
        return [record["score"] for record in records]

    async def aclose(self):
        await self._reward.aclose()
