"""Checkpoints of a run: enough to go on from the last one as if nothing had happened."""

import functools
import importlib.metadata
import operator
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from . import _files
from ._errors import CheckpointError
from ._hosts import agreed, first, on_host, wait
from ._structure import decode, encode
from ._tree import by_name

_STATE = "state.posterax"


class Checkpoint(eqx.Module):
    """Where a run keeps its checkpoints, how often, and what may be continued.

    The same call with the same checkpoint goes on where the last one stopped, finished runs return at once, and a
    larger `num_draws` extends a run: in every case the draws are those of the uninterrupted run, byte for byte.

    - `folder`: a folder of its own for each run.
    - `every`: seconds between checkpoints; 0 for every chunk.
    - `resume`: "identical" continues a run only under the same plan and versions; "equivalent" also under others, which
      changes bits and not the distribution; "never" refuses a folder that holds a run.

    Raises `ValueError` for another `resume` or a negative `every`.
    """

    folder: str
    every: float = 10.0
    resume: Literal["identical", "equivalent", "never"] = "identical"

    def __check_init__(self):
        if self.resume not in {"identical", "equivalent", "never"}:
            raise ValueError(f'`resume` must be "identical", "equivalent" or "never"; got {self.resume!r}.')
        if self.every < 0:
            raise ValueError(f"`every` is a number of seconds, 0 or more; got {self.every}.")

    def within(self, name: str) -> "Checkpoint":
        """The same habits in a folder inside this one."""
        return Checkpoint(str(Path(self.folder) / name), self.every, self.resume)


def as_checkpoint(checkpoint: "str | os.PathLike | Checkpoint | None") -> Checkpoint | None:
    """A folder's name stands for a checkpoint with the usual habits."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint(os.fspath(checkpoint))


def environment(plan) -> dict:
    """What may change bits without changing the distribution."""
    packages = ("posterax", "jax", "jaxlib", "numpyro", "equinox", "optax")
    versions = {name: _version(name) for name in packages}
    return {"plan": plan.describe(), "x64": jnp.result_type(float) == jnp.float64, "versions": versions}


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


class Store:
    """One run's folder: a state file, and the records made since the run began, a file for each stretch of steps.

    Records are written before the state that follows them, so a kill between the two costs nothing.

    - `identity`: what makes this the same run, by part: component, settings, target, key, number of chains.
    """

    def __init__(self, checkpoint: Checkpoint, kind: str, identity: Mapping[str, Any], plan):
        self._checkpoint, self._kind = checkpoint, kind
        self._folder = Path(checkpoint.folder)
        self._identity = {"identity": dict(identity), "environment": environment(plan)}
        self._stretches: list[list[int]] = []
        self._written = 0  # chunks of this process that are on disk
        self._last = time.monotonic()

    def load(self, like: PyTree) -> tuple[PyTree, int, list[PyTree], PyTree] | None:
        """The state, the step and the records of the last checkpoint; None where the folder holds none.

        - `like`: (state, row): shapes and structure that the state and one record must have.

        Raises `CheckpointError` for a checkpoint of another run, or a damaged one.
        """
        path = self._folder / _STATE
        if not path.exists():
            return None
        if self._checkpoint.resume == "never":
            raise CheckpointError(f"{self._folder} holds a run already. Choose another folder, or delete it.")
        header, leaves = _files.read(path, kind=self._kind)
        with _files.well_formed(path):
            return self._restored(path, header, leaves, like)

    def _restored(self, path: Path, header: dict, leaves: Mapping[str, np.ndarray], like: PyTree):
        self._compare(header)
        state_like, row_like = like
        state = restore(state_like, leaves, path)
        self._stretches = header["stretches"]
        rows = []
        for start, stop in self._stretches:
            file = self._folder / _stretch(start, stop)
            _, records = _files.read(file, kind=f"{self._kind} records")
            row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((stop - start, *leaf.shape), leaf.dtype), row_like)  # noqa: B023
            rows.append(jax.tree.map(np.asarray, restore(row, records, file, on_host=True)))
        step = operator.index(header["step"])
        if self._stretches and self._stretches[-1][1] != step:
            raise ValueError(f"records until step {self._stretches[-1][1]}, the state of step {step}")
        return state, step, rows, dict(header["facts"])

    def save(self, state: PyTree, step: int, rows: list[PyTree], *, last: bool, facts: Mapping | None = None) -> None:
        """Write a checkpoint, if one is due or this is the `last`; `rows` are all records of this process so far."""
        if not agreed(last or time.monotonic() - self._last >= self._checkpoint.every):
            return
        state = on_host(state)
        fresh = rows[self._written :]
        count = sum(jax.tree.leaves(chunk)[0].shape[0] for chunk in fresh if jax.tree.leaves(chunk))
        if count:
            joined = jax.tree.map(lambda *parts: np.concatenate(parts), *fresh)
            file = self._folder / _stretch(step - count, step)
            self._write(file, {"kind": f"{self._kind} records"}, by_name(joined))
            self._stretches = [*self._stretches, [step - count, step]]
        header = {
            "kind": self._kind,
            "step": step,
            "stretches": self._stretches,
            "facts": dict(facts or {}),
            **self._identity,
        }
        self._write(self._folder / _STATE, header, by_name(state))
        wait("checkpoint")
        self._written, self._last = len(rows), time.monotonic()

    def add(self, name: str, part: PyTree) -> None:
        """Keep one part of a run whose parts are made in any order."""
        structure, arrays = encode(part)
        header = {"kind": f"{self._kind} part", "structure": structure, **self._identity}
        self._write(self._folder / f"part-{name}.posterax", header, arrays)

    def parts(self) -> Iterator[tuple[str, PyTree]]:
        """Names and contents of what `add` has kept; raises `CheckpointError` where it is of another run."""
        for path in sorted(self._folder.glob("part-*.posterax")):
            if self._checkpoint.resume == "never":
                raise CheckpointError(f"{self._folder} holds a run already. Choose another folder, or delete it.")
            header, arrays = _files.read(path, kind=f"{self._kind} part")
            with _files.well_formed(path):
                self._compare(header)
                found = decode(header["structure"], arrays)
            yield path.stem.removeprefix("part-"), found

    def _write(self, path: Path, header: Mapping, leaves: Mapping[str, np.ndarray]) -> None:
        """By one process: the folder is one that all of them see."""
        if first():
            _files.write(path, header, leaves)

    def _compare(self, header: dict) -> None:
        here, there = self._identity["identity"], header["identity"]
        for part in here:
            if here[part] != there.get(part):
                raise CheckpointError(
                    f"{self._folder} holds another run: its {part.replace('_', ' ')} differs "
                    f"({_brief(there.get(part))} there, {_brief(here[part])} here). Choose another folder or delete it."
                )
        here, there = self._identity["environment"], header["environment"]
        if here["x64"] != there["x64"]:
            bits = {True: 64, False: 32}
            raise CheckpointError(
                f"{self._folder} holds a run of {bits[there['x64']]} bits; this one has {bits[here['x64']]}. "
                f"Use Plan(precision={bits[there['x64']]}), or choose another folder."
            )
        for part in ("plan", "versions"):
            if here[part] != there[part] and self._checkpoint.resume != "equivalent":
                raise CheckpointError(
                    f"{self._folder} holds this run under other {part} ({_brief(there[part])} there, "
                    f"{_brief(here[part])} here), so its bits may differ from here on. Restore them; or accept draws "
                    f'that are equivalent in law: Checkpoint({self._checkpoint.folder!r}, resume="equivalent").'
                )


def restore(like: PyTree, leaves: Mapping[str, np.ndarray], path, *, on_host: bool = False) -> PyTree:
    """`leaves` in the structure of `like`, names, shapes and dtypes compared; `path` is for the message."""
    expected = by_name(like)
    if set(expected) != set(leaves):
        odd = sorted(set(expected) ^ set(leaves))[:4]
        raise CheckpointError(
            f"{path} belongs to another state: the leaves {odd} do not match. Delete it and run again."
        )
    for name, leaf in expected.items():
        came = leaves[name]
        if tuple(leaf.shape) != came.shape or np.dtype(leaf.dtype) != came.dtype:
            raise CheckpointError(
                f"{path} belongs to another state: leaf {name!r} is {came.dtype}{list(came.shape)}, expected "
                f"{leaf.dtype}{list(leaf.shape)}. Delete it and run again."
            )
    values = [leaves[name] if on_host else jnp.asarray(leaves[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _stretch(start: int, stop: int) -> str:
    return f"records-{start:09d}-{stop:09d}.posterax"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
