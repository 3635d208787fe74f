"""Pipelines: steps of inference composed into a value that can be printed, compared, saved and run."""

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import PRNGKeyArray

from . import _files
from ._brief import brief
from ._checkpoint import Checkpoint, as_checkpoint, environment
from ._draws import Draws
from ._errors import CheckpointError, PipelineError
from ._keys import check_key, describe_key, named
from ._plan import Plan
from ._precision import precision
from ._structure import decode, encode, fingerprint

_DEFAULT_PLAN = Plan()


class Run(NamedTuple):
    """How a pipeline runs, as its stages see it."""

    plan: Plan
    checkpoint: Checkpoint | None  # a folder of the stage's own
    progress: bool | None


class Stage(eqx.Module):
    """One step of a pipeline. `a >> b` feeds what `a` gives to `b`, and fails at once where that cannot be.

    - `takes`: the kinds of value it can be given: "nothing", "distribution", "draws".
    - `gives`: the kind it returns.
    - `name`: names its random key and its checkpoint; by default the class's name and how many came before it.
    """

    takes: ClassVar[tuple[str, ...]]
    gives: ClassVar[str]
    name: eqx.AbstractVar[str | None]

    @abc.abstractmethod
    def __call__(self, value: Any, run: Run, *, key: PRNGKeyArray) -> Any:
        """What the stage makes of `value`."""

    def __rshift__(self, other: "Stage | Pipeline") -> "Pipeline":
        return Pipeline((self,)) >> other


class Pipeline(eqx.Module):
    """Stages in order, made with `>>`.

    Each stage has a key of its own, derived from its name: a stage put in or taken out changes no other's numbers.
    Compared with `==`; saved with `posterax.save`.

    Raises `PipelineError` where a stage cannot take what the one before it gives.
    """

    stages: tuple[Stage, ...]

    def __check_init__(self):
        for number, (one, two) in enumerate(zip(self.stages, self.stages[1:], strict=False), start=1):
            if one.gives not in two.takes:
                raise PipelineError(
                    f"Stage {number} {_label(one)} gives {one.gives}, but stage {number + 1} {_label(two)} takes "
                    f"{' or '.join(two.takes)}. {_cure(one.gives, two.takes)}"
                )

    def __rshift__(self, other: "Stage | Pipeline") -> "Pipeline":
        if isinstance(other, Stage):
            return Pipeline((*self.stages, other))
        if isinstance(other, Pipeline):
            return Pipeline((*self.stages, *other.stages))
        return NotImplemented

    def __str__(self) -> str:
        return "\n>> ".join(brief(stage) for stage in self.stages)

    def names(self) -> list[str]:
        """The stages' names: those given, else class name and count."""
        counts: dict[str, int] = {}
        names = []
        for stage in self.stages:
            kind = type(stage).__name__
            counts[kind] = counts.get(kind, 0) + 1
            names.append(stage.name or f"{kind}#{counts[kind]}")
        if len(set(names)) < len(names):
            raise PipelineError(f"Stages must have names of their own; got {names}. Change a `name=`.")
        return names

    def run(
        self,
        value: Any = None,
        *,
        key: PRNGKeyArray,
        plan: Plan = _DEFAULT_PLAN,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Run all stages and return what the last one gives.

        - `value`: what the first stage takes, where it takes something.
        - `checkpoint`: a folder. Draws are kept after each stage that gives some, and inside stages that run long; the
          same call goes on from there, byte for byte. Distributions are inferred anew.
        - the other arguments: as in `posterax.sample`.

        Raises `PipelineError` for a value that the first stage cannot take.
        """
        key = check_key(key, "Pipeline.run")
        self._check_first(value)
        where = as_checkpoint(checkpoint)
        names = self.names()
        with precision(plan.precision):
            store = None if where is None else _Kept(self, names, where, key, value, plan)
            first, value = (0, value) if store is None else store.last(value)
            for i in range(first, len(self.stages)):
                inside = None if where is None else where.within(names[i].replace("#", "-"))
                value = self._stage(i, names[i], value, Run(plan, inside, progress), named(key, names[i]))
                if store is not None:
                    store.keep(i, value)
        return value

    def follow(
        self,
        value: Any = None,
        *,
        key: PRNGKeyArray,
        plan: Plan = _DEFAULT_PLAN,
        progress: bool | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Run stage by stage: yields each stage's name and what it gives, to be looked at, or timed, on the way.

        The last is what `run` gives with the same arguments, to the byte. There are no checkpoints.
        """
        key = check_key(key, "Pipeline.follow")
        self._check_first(value)

        def follow(value: Any) -> Iterator[tuple[str, Any]]:
            for i, name in enumerate(self.names()):
                with precision(plan.precision):  # not while the caller has its turn
                    value = self._stage(i, name, value, Run(plan, None, progress), named(key, name))
                yield name, value

        return follow(value)

    def _check_first(self, value: Any) -> None:
        if (came := kind_of(value)) not in self.stages[0].takes:
            raise PipelineError(
                f"Stage 1 {_label(self.stages[0])} takes {' or '.join(self.stages[0].takes)}; `value` is {came}."
            )

    def _stage(self, i: int, name: str, value: Any, run: Run, key: PRNGKeyArray) -> Any:
        stage = self.stages[i]
        try:
            result = stage(value, run, key=key)
        except Exception as error:
            error.add_note(f"In stage {i + 1} of {len(self.stages)}, {name} ({_label(stage)}), given {value!r:.300}.")
            raise
        if (came := kind_of(result)) != stage.gives:
            raise PipelineError(f"Stage {i + 1} {name} said it gives {stage.gives}, and gave {came}. Mend the stage.")
        if isinstance(result, Draws) and result.result_code == "interrupted":
            kept = f" {run.checkpoint.folder} holds its checkpoint." if run.checkpoint else ""
            error = KeyboardInterrupt(f"Interrupted in stage {i + 1}, {name}; its draws are in `.draws`.{kept}")
            error.draws = result  # pyright: ignore[reportAttributeAccessIssue]
            raise error
        return result


class _Kept:
    """A pipeline's folder: the draws that each stage gave."""

    def __init__(self, pipeline, names, checkpoint, key, value, plan):
        self._pipeline, self._names, self._folder = pipeline, names, Path(checkpoint.folder)
        self._resume = checkpoint.resume
        self._facts = {"key": describe_key(key), "input": fingerprint(value)}
        self._environment = environment(plan)

    def _path(self, i: int) -> Path:
        return self._folder / f"{self._names[i].replace('#', '-')}.posterax"

    def _identity(self, i: int) -> dict:
        return {"names": self._names[: i + 1], "stages": fingerprint(self._pipeline.stages[: i + 1]), **self._facts}

    def keep(self, i: int, value: Any) -> None:
        if isinstance(value, Draws):
            structure, arrays = encode(value)
            header = {"identity": self._identity(i), "environment": self._environment, "structure": structure}
            _files.write(self._path(i), {"kind": "pipeline stage", **header}, arrays)

    def last(self, value: Any) -> tuple[int, Any]:
        """The number of the stage to go on with, and what it is given."""
        for i in reversed(range(len(self._names))):
            if not self._path(i).exists():
                continue
            if self._resume == "never":
                raise CheckpointError(f"{self._folder} holds a run already. Choose another folder, or delete it.")
            header, arrays = _files.read(self._path(i), kind="pipeline stage")
            with _files.well_formed(self._path(i)):
                self._compare(i, header)
                return i + 1, decode(header["structure"], arrays)
        return 0, value

    def _compare(self, i: int, header: dict) -> None:
        for part, here in self._identity(i).items():
            if header["identity"].get(part) != here:
                raise CheckpointError(
                    f"{self._path(i)} belongs to another run: its {part} differ. Choose another folder."
                )
        if header["environment"] != self._environment and self._resume != "equivalent":
            raise CheckpointError(
                f"{self._path(i)} was made under another plan or other versions ({header['environment']} there, "
                f"{self._environment} here). Restore them, or pass Checkpoint({str(self._folder)!r}, "
                'resume="equivalent").'
            )


def kind_of(value: Any) -> str:
    """What `value` is to a pipeline."""
    if value is None:
        return "nothing"
    if isinstance(value, Draws):
        return "draws"
    if hasattr(value, "sample") and hasattr(value, "log_prob"):
        return "distribution"
    return type(value).__name__


def _label(stage: Stage) -> str:
    return f"`{type(stage).__name__}`"


def _cure(gives: str, takes: tuple[str, ...]) -> str:
    if gives == "distribution" and "draws" in takes:
        return "Put `Draw(num_draws)` between them."
    if takes == ("nothing",):
        return "It can only come first."
    return "Change their order."
