"""What faults do to runs of every kind. With FAULTS=1 the outcomes are written to `faults.json`, the README's table."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import kill_job
import numpy as np
import pytest
from posterax import Checkpoint, CheckpointError, Move, PosteraxError, Sampler, _files

HERE = Path(__file__).parent
KINDS = {
    "sample": "sampling", "train": "training", "pipeline": "pipeline", "study": "compiled study",
    "fits": "fits, one by one", "language": "language model",
}  # fmt: skip
FAULTS = ("SIGKILL", "Ctrl-C twice", "disk full", "a byte altered", "a component raises")

# Short warm-ups make transitions diverge now and then; resuming is what counts here.
pytestmark = pytest.mark.filterwarnings("ignore::posterax.PosteraxWarning")


def group(item):
    """Workers take the runs of a kind together: they share the whole run."""
    return f"{item.path} {getattr(item, 'callspec', None) and item.callspec.params.get('kind')}"


def kept(fault, kind, outcome):
    """Notes an outcome for the table."""
    if os.environ.get("FAULTS") == "1":
        file = HERE / f"faults-{fault}-{kind}.part".replace(" ", "-")
        file.write_text(json.dumps([fault, kind, outcome]))


def everything(result, folder, name):
    """All bytes of a result: arrays, history, and the next key."""
    if hasattr(result, "spent"):
        told = result.as_dict()
        del told["spent"]["seconds"]
        return json.dumps(told).encode() + result.log_weights.tobytes()
    arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(result)) if eqx.is_array(leaf)}
    _files.write(folder / name, {"history": list(getattr(result, "history", ()))}, arrays)
    key = np.asarray(jr.key_data(result.next_key)).tobytes() if hasattr(result, "next_key") else b""
    return (folder / name).read_bytes() + key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """All bytes of the whole run of a kind, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")
    return functools.cache(lambda kind: everything(kill_job.make(kind)(None), folder, kind))


def folder_for(kind, place):
    (place / "run").mkdir(parents=True, exist_ok=kind == "language")
    return Checkpoint(str(place / "run"), every=0.0)


def broken_and_resumed(kind, name, instants, folder, uninterrupted):
    """Runs that got a signal at the given chunks, gone on with; how many had left a checkpoint, and all exit codes."""
    with_checkpoint, codes, whole = 0, [], uninterrupted(kind)
    for number, instant in enumerate(instants):
        place = folder / f"{kind}-{number}"
        delay = np.random.default_rng(instant).uniform(0, 0.01)
        where = folder_for(kind, place)
        command = [sys.executable, kill_job.__file__, kind, str(place), str(instant), str(delay), name]
        codes.append(subprocess.run(command, timeout=600, stderr=subprocess.DEVNULL).returncode)
        with_checkpoint += any(file.is_file() for file in (place / "run").rglob("*"))
        assert everything(kill_job.make(kind)(where), place, "resumed") == whole, f"{kind}: {name} at {instant}"
    return with_checkpoint, codes


def instants(kind, num, seed):
    return np.random.default_rng(seed).integers(1, kill_job.CHUNKS[kind] - 2, size=num).tolist()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_killed_run_resumes_to_the_same_bytes(kind, tmp_path, uninterrupted):
    _, codes = broken_and_resumed(kind, "SIGKILL", instants(kind, 1, seed=1), tmp_path, uninterrupted)
    assert codes == [-signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_twenty_killed_runs_resume_to_the_same_bytes(kind, tmp_path, uninterrupted):
    found, codes = broken_and_resumed(kind, "SIGKILL", instants(kind, 20, seed=2), tmp_path, uninterrupted)
    assert codes == [-signal.SIGKILL] * 20
    assert found >= 15
    kept("SIGKILL", kind, "20 of 20 resumed, same bytes")


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_two_interrupts_cost_nothing_either(kind, tmp_path, uninterrupted):
    found, codes = broken_and_resumed(kind, "SIGINT", instants(kind, 3, seed=3), tmp_path, uninterrupted)
    assert set(codes) <= {-signal.SIGINT, 1, 0}, codes  # KeyboardInterrupt, or what was made so far
    assert found
    kept("Ctrl-C twice", kind, "3 of 3 resumed, same bytes")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_full_disk_is_told_and_loses_nothing_that_was_written(kind, tmp_path, monkeypatch, uninterrupted):
    where, times = folder_for(kind, tmp_path), {"sample": 2, "train": 2, "pipeline": 9}.get(kind, 3)
    function = "write" if kind == "language" else "fsync"
    real, calls = getattr(os, function), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) >= times:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(CheckpointError, match=r"disk is full|No space left"):
            kill_job.make(kind)(where)
    assert everything(kill_job.make(kind)(where), tmp_path, "resumed") == uninterrupted(kind)
    kept("disk full", kind, "an error that says so; resumed, same bytes")


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_altered_byte_is_never_used(kind, tmp_path, uninterrupted):
    where, run = folder_for(kind, tmp_path), kill_job.make(kind)
    run(where)
    files, refused = [file for file in (tmp_path / "run").rglob("*") if file.is_file()], 0
    files = sorted(files, key=lambda file: file.stat().st_mtime_ns)[-1 if kind == "pipeline" else 0 :]  # what is read
    rng = np.random.default_rng(0)
    for _ in range(20):
        file = files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        whole, _ = file.read_bytes(), file.write_bytes(content)
        try:
            again = everything(run(where), tmp_path, "again")
        except PosteraxError as error:
            refused += bool(re.search(r"altered|truncated|not a posterax file|holds|format version", str(error)))
        else:
            assert again == uninterrupted(kind)  # the last reply's end was altered, and it was made anew
        for left in (tmp_path / "run").rglob("*"):
            assert not left.name.startswith(".")
        file.write_bytes(whole)
    assert refused >= 5
    kept("a byte altered", kind, "refused" if refused == 20 else "refused, or made anew with the same bytes")


# A component that raises in the middle of a run


class Fragile(Sampler):
    """A random walk in which something outside of JAX breaks once in a while."""

    num_warmup: int = 0

    def init(self, target, position, *, key):
        return position

    def step(self, target, state, *, key):
        return jax.tree.map(lambda leaf: fragile(leaf + 0.1 * jr.normal(key, leaf.shape)), state), None

    def position(self, state):
        return state


class Break:
    """When it breaks: at this call, counted from the last `at`; 0 for never."""

    left = 0


def fragile(x):
    def check(x):
        Break.left -= 1
        if Break.left == 0:
            raise ZeroDivisionError("the instrument is broken")
        return np.asarray(x)

    x = jax.lax.stop_gradient(x)
    return jax.pure_callback(check, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


class FragileSquares(kill_job.Squares):
    def loss(self, model, batch, state, *, key):
        return super().loss(model, fragile(batch), state, key=key)


def fragile_case(number, *, key):
    return fragile(jnp.asarray(number + jr.normal(key)))


def fragile_text(prefix, seed):
    fragile(jnp.zeros(()))
    return kill_job.write(prefix, seed)


def fragile_run(kind):
    from posterax import Batches, Draw, Infer, Plan, sample, study, train

    if kind == "sample":
        return lambda where: sample(Fragile(), kill_job.TARGET, num_draws=400, key=jr.key(1), checkpoint=where)
    if kind == "train":
        network = kill_job.Network(jr.normal(jr.key(0), (5, 1)), jr.normal(jr.key(1), (1, 5)))
        data = Batches(kill_job.ROWS, 7)
        return lambda where: train(
            network, FragileSquares(), data, num_steps=1600, optimiser=optimiser(), key=jr.key(2), checkpoint=where
        )
    if kind == "pipeline":
        pipeline = Infer(kill_job.Wide()) >> Draw(16, variable="x") >> Move(Fragile(), kill_job.TARGET, steps=100)
        return lambda where: pipeline.run(key=jr.key(3), checkpoint=where)
    if kind == "study":
        return lambda where: study(fragile_case, 1600, key=jr.key(4), on=Plan(), checkpoint=where)
    if kind == "fits":
        return lambda where: study(fragile_case, 60, key=jr.key(4), checkpoint=where)
    problem = kill_job.Reasoning(
        "Toss.", kill_job.CallableModel(fragile_text), kill_job.CallableReward(kill_job.judge),
        end=kill_job.AtString("\n"), max_steps=10,
    )  # fmt: skip
    return lambda where: kill_job.solve(
        kill_job.StepFilter(5), problem, key=jr.key(6), checkpoint=where and f"{where.folder}/replies.jsonl"
    )


@functools.cache
def optimiser():
    import optax

    return optax.adam(1e-2)


@pytest.mark.parametrize(("kind", "call"), list(zip(KINDS, (1200, 1200, 1200, 1200, 40, 30), strict=True)))
def test_a_component_that_raises_takes_nothing_along(kind, call, tmp_path, monkeypatch):
    from posterax import _loop

    monkeypatch.setattr(_loop, "_next_size", lambda made, seconds: 20)
    run, where = fragile_run(kind), folder_for(kind, tmp_path)
    Break.left = 0
    whole = everything(run(None), tmp_path, "whole")
    Break.left = call
    with pytest.raises(Exception, match="the instrument is broken") as error:
        run(where)
    written = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert written
    if kind in ("sample", "fits"):
        assert any("posterax met this" in note for note in error.value.__notes__)
    Break.left = 0
    assert everything(run(where), tmp_path, "resumed") == whole
    kept("a component raises", kind, "its error passes; resumed, same bytes")


# The README's table


def outcomes():
    found = json.loads((HERE / "faults.json").read_text())
    for file in HERE.glob("faults-*.part"):
        fault, kind, outcome = json.loads(file.read_text())
        found.setdefault(fault, {})[kind] = outcome
    return found


def table():
    """One row for each fault and outcome, with the kinds of run that had it."""
    rows = [f"| fault, while a run of each kind is under way ({', '.join(KINDS.values())}) | outcome |", "|---|---|"]
    for fault, found in ((fault, outcomes()[fault]) for fault in FAULTS):
        for outcome in dict.fromkeys(found[kind] for kind in KINDS):
            which = [KINDS[kind] for kind in KINDS if found[kind] == outcome]
            rows.append(f"| {fault} | {'each' if len(which) == len(KINDS) else ', '.join(which)}: {outcome} |")
    return "\n".join(rows)


def test_the_readme_has_the_table_of_outcomes():
    assert table() in (HERE.parents[1] / "README.md").read_text()


if __name__ == "__main__":  # after FAULTS=1 pytest -m "slow or not slow" tests/core/test_faults.py
    (HERE / "faults.json").write_text(json.dumps(outcomes(), indent=1) + "\n")
    for part in HERE.glob("faults-*.part"):
        part.unlink()
    print(table())
