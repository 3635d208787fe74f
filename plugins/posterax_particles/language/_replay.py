"""Records what models and rewards answer, and plays it again: a run without servers, and without their faults."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posterax import CheckpointError, PosteraxError

from ._ledger import Ledger
from ._model import LanguageModel
from ._prefix import Prefix, Step, spelt
from ._reward import Reward

Record = dict[str, Any]
_NAME = ("kind", "prefix", "seed", "occurrence")
_SPENT = ("tokens", "prompt_tokens", "requests", "reward_calls", "reward_requests", "retries")


class ReplayError(PosteraxError, LookupError):
    """Something was asked for that has not been recorded, or a record cannot be read."""


class Recorder:
    """Keeps all replies: `recorder.model(model)` and `recorder.reward(reward)` take the place of the originals.

    - `path`: a file to which every reply is added as a line of JSON as soon as it has come, so that a killed process
      loses none that it had; a line that was cut off by the kill is dropped when the file is opened again. None keeps
      them in `records` alone. The file holds prompts' hashes, and the texts of steps.

    A reply is known by the hash of prompt and text so far, the seed, and how often the same was asked before. Of two
    with the same name the later one counts, so a resumed run may record over an earlier one.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        if self.path is not None and self.path.exists():
            self.records, size = _read(self.path)
            os.truncate(self.path, size)

    def model(self, model: LanguageModel) -> LanguageModel:
        """The model, recorded."""
        return _RecordedModel(model, self)

    def reward(self, reward: Reward) -> Reward:
        """The reward, recorded."""
        return _RecordedReward(reward, self)

    def add(self, records: Sequence[Record]) -> None:
        """Keeps these."""
        self.records += records
        if self.path is None or not records:
            return
        lines = "".join(json.dumps({**record, "sha256": _digest(record)}) + "\n" for record in records).encode()
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                while lines:
                    lines = lines[os.write(file, lines) :]
            finally:
                os.close(file)
        except OSError as error:
            raise CheckpointError(
                f"Could not write {self.path}: {error.strerror or error}. Replies until now are there; free some "
                "space, or choose another folder, and run again."
            ) from error


class Replayed:
    """Plays recorded replies: `replayed.model()` and `replayed.reward()`.

    - `source`: a `Recorder`'s file or its `records`.

    Raises `ReplayError` for what was not recorded: another prompt, key, method or setting than in the recorded run.
    """

    def __init__(self, source: str | os.PathLike | Iterable[Record]):
        records = _read(Path(source))[0] if isinstance(source, (str, os.PathLike)) else list(source)
        self._found = {name_of(each): each for each in records}

    def model(self) -> LanguageModel:
        """The recorded model, from the beginning."""
        return _ReplayedModel(self)

    def reward(self) -> Reward:
        """The recorded reward, from the beginning."""
        return _ReplayedReward(self)

    def scale(self) -> str:
        """Of the recorded reward."""
        return next((each["scale"] for each in self._found.values() if each["kind"] == "score"), "probability")

    def find(self, names: Iterable[tuple], ledger: Ledger, prefixes: Sequence[Prefix]) -> list[Record]:
        """The records of these names; what they had cost is booked."""
        found = []
        for (kind, name, seed, occurrence), prefix in zip(names, prefixes, strict=True):
            record = self._found.get((kind, name, seed, occurrence))
            if record is None:
                raise ReplayError(
                    f"No {kind} was recorded after {prefix.text[-80:]!r} with seed {seed} (time {occurrence + 1} "
                    f"that it is asked for; there are {len(self._found)} records). Replay the recorded problem with "
                    "the same key, method and settings, or record anew."
                )
            found.append(record)
        booked(found, ledger)
        return found


def name_of(record: Record) -> tuple:
    """What a reply is known by."""
    return tuple(record[part] for part in _NAME)


def booked(records: Iterable[Record], ledger: Ledger) -> None:
    """Books what replies had cost."""
    for record in records:
        for spent, amount in record.get("spent", {}).items():
            setattr(ledger.spent, spent, getattr(ledger.spent, spent) + amount)


class Names:
    """Names of replies: each time that the same is asked gets one of its own."""

    def __init__(self, kind: str):
        self._kind, self._seen = kind, Counter()

    def __call__(self, prefixes: Sequence[Prefix], seeds: Sequence[int | None]) -> list[tuple]:
        names = []
        for prefix, seed in zip(prefixes, seeds, strict=True):
            text = spelt([prefix.messages, prefix.text])
            name = (self._kind, hashlib.sha256(text.encode()).hexdigest()[:32], seed)
            names.append((*name, self._seen[name]))
            self._seen[name] += 1
        return names


class Meter:
    """A ledger for one call, of which the real one is told in the end whatever happens."""

    def __init__(self, ledger: Ledger):
        self._real, self.own = ledger, Ledger(ledger.budget, began=ledger.began)
        self.own.spent.tokens, self.own.spent.reward_calls = ledger.spent.tokens, ledger.spent.reward_calls
        self._before = asdict(self.own.spent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name, amount in self.spent().items():
            setattr(self._real.spent, name, getattr(self._real.spent, name) + amount)

    def spent(self) -> dict[str, int]:
        """What this call has cost."""
        now = asdict(self.own.spent)
        return {name: now[name] - self._before[name] for name in _SPENT if now[name] != self._before[name]}


class _RecordedModel(LanguageModel):
    def __init__(self, model: LanguageModel, recorder: Recorder):
        self._model, self._recorder, self._names = model, recorder, Names("step")

    def __repr__(self):
        return f"Recorded({self._model!r})"

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        names = self._names(prefixes, seeds)
        with Meter(ledger) as meter:
            steps = await self._model.propose(prefixes, end=end, max_tokens=max_tokens, seeds=seeds, ledger=meter.own)
            self._recorder.add(records_of(names, [{"step": asdict(step)} for step in steps], meter.spent()))
        return steps

    async def aclose(self):
        await self._model.aclose()


class _RecordedReward(Reward):
    def __init__(self, reward: Reward, recorder: Recorder):
        self._reward, self._recorder, self._names = reward, recorder, Names("score")
        self.scale = reward.scale

    def __repr__(self):
        return f"Recorded({self._reward!r})"

    async def score(self, prefixes, *, ledger):
        names = self._names(prefixes, [None] * len(prefixes))
        with Meter(ledger) as meter:
            scores = await self._reward.score(prefixes, ledger=meter.own)
            answers = [{"score": score, "scale": self.scale} for score in scores]
            self._recorder.add(records_of(names, answers, meter.spent()))
        return scores

    async def aclose(self):
        await self._reward.aclose()


class _ReplayedModel(LanguageModel):
    def __init__(self, replayed: Replayed):
        self._replayed, self._names = replayed, Names("step")

    async def propose(self, prefixes, *, end, max_tokens, seeds, ledger):
        del end, max_tokens
        records = self._replayed.find(self._names(prefixes, seeds), ledger, prefixes)
        return [step_of(record["step"]) for record in records]


class _ReplayedReward(Reward):
    def __init__(self, replayed: Replayed):
        self._replayed, self._names, self.scale = replayed, Names("score"), replayed.scale()

    async def score(self, prefixes, *, ledger):
        names = self._names(prefixes, [None] * len(prefixes))
        return [record["score"] for record in self._replayed.find(names, ledger, prefixes)]


def records_of(names: Sequence[tuple], answers: Sequence[Record], spent: Mapping[str, int]) -> list[Record]:
    """Replies that came together: the first one has what they cost, and how many they are."""
    records = [{**dict(zip(_NAME, name, strict=True)), **answer} for name, answer in zip(names, answers, strict=True)]
    if records:
        records[0] |= {"spent": dict(spent), "batch": len(records)}
    return records


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def step_of(record: Record) -> Step:
    """The step that was written."""
    ids = record["token_ids"]
    token_ids = None if ids is None else tuple(ids)
    return Step(**{**record, "token_ids": token_ids, "tool_calls": tuple(record["tool_calls"])})


def _read(path: Path) -> tuple[list[Record], int]:
    """The records of a file, and how many of its bytes are whole lines."""
    content = path.read_bytes()
    size = content.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(content[:size].splitlines(), 1):
        try:
            record = json.loads(line)
            complete = set(_NAME) <= set(record) and record.pop("sha256") == _digest(record)
        except (ValueError, TypeError, KeyError):
            complete = False
        if not complete:
            raise ReplayError(f"{path}, line {number}, is no record of `Recorder`: the file was altered.")
        records.append(record)
    return records, size
