import os

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import kill_job
import numpy as np
import optax
import pytest
from posterax import Checkpoint, CheckpointError, Plan, Target, _checkpoint, sample, save, train
from posterax_numpyro import HMC, NUTS

# Short warm-ups make transitions diverge now and then; resuming is what counts here.
pytestmark = pytest.mark.filterwarnings("ignore::posterax.PosteraxWarning")

# What may be resumed, and what may not


def log_density(x, y):
    return -0.5 * jnp.sum((x["x"] - y) ** 2)


def other_log_density(x, y):
    return -0.7 * jnp.sum((x["x"] - y) ** 2)


def target(centre=0.0, function=log_density):
    return Target(function, np.full(2, centre), like={"x": jnp.zeros(2)})


def run(folder, sampler=None, aim=None, *, key=0, draws=30, **options):
    return sample(
        NUTS(num_warmup=20) if sampler is None else sampler,
        target() if aim is None else aim,
        **{"num_draws": draws, "num_chains": 2, "key": jr.key(key), "checkpoint": folder, **options},
    )


def test_a_finished_run_returns_at_once_and_a_longer_one_goes_on(tmp_path):
    whole = run(None, draws=60)
    first = run(tmp_path / "run")
    assert np.array_equal(first["x"], whole["x"][:, :30])
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()}
    again = run(tmp_path / "run")
    assert eqx.tree_equal(first, again)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()} == written
    assert np.array_equal(run(tmp_path / "run", draws=60)["x"], whole["x"])
    assert np.array_equal(run(tmp_path / "run", draws=10)["x"], whole["x"][:, :10])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": 1}, "its key differs"),
        ({"num_chains": 3}, "its number of chains differs .2 there, 3 here"),
        ({"aim": target(1.0)}, "its target differs"),
        ({"aim": target(function=other_log_density)}, "its target differs"),
        ({"sampler": NUTS(num_warmup=21)}, "its settings differs"),
        ({"sampler": HMC(num_warmup=20)}, "its component differs .numpyro:nuts there, numpyro:hmc here"),
        ({"init": {"x": np.zeros(2)}}, "its initial values differs"),
        ({"plan": Plan(precision=64)}, r"holds a run of 32 bits; this one has 64. Use Plan\(precision=32\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path, change, words):
    run(tmp_path / "run")
    with pytest.raises(CheckpointError, match=words):
        run(tmp_path / "run", **change)


def test_another_plan_or_version_is_refused_unless_equivalence_will_do(tmp_path, monkeypatch):
    first = run(tmp_path / "run")
    real = _checkpoint._version
    monkeypatch.setattr(_checkpoint, "_version", lambda name: "0.0" if name == "jax" else real(name))
    with pytest.raises(CheckpointError, match=r'under other versions.*resume="equivalent"'):
        run(tmp_path / "run", draws=40)
    longer = run(Checkpoint(str(tmp_path / "run"), resume="equivalent"), draws=40)
    assert np.array_equal(longer["x"][:, :30], first["x"])


def test_a_folder_that_must_be_empty_is_left_alone(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run already"):
        run(Checkpoint(str(tmp_path / "run"), resume="never"))
    with pytest.raises(ValueError, match='`resume` must be "identical", "equivalent" or "never"; got \'maybe\''):
        Checkpoint("x", resume="maybe")  # pyright: ignore
    with pytest.raises(ValueError, match="`every` is a number of seconds, 0 or more; got -1"):
        Checkpoint("x", every=-1)


@pytest.mark.parametrize("name", ["state.posterax", "records-000000000-000000050.posterax"])
def test_damaged_checkpoints_are_refused_and_left_as_they_are(tmp_path, name):
    run(tmp_path / "run")
    file = tmp_path / "run" / name
    whole = file.read_bytes()
    for damaged, words in ((whole[:-9], "truncated"), (whole[:-9] + b"altered??", "was altered"), (b"PK\3\4", "not a")):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=words):
            run(tmp_path / "run", draws=40)
        assert file.read_bytes() == damaged
    newer = whole.replace(b"posterax 1", b"posterax 9", 1)
    file.write_bytes(newer)
    with pytest.raises(CheckpointError, match="format version 9"):
        run(tmp_path / "run")
    file.unlink()
    if name != "state.posterax":
        with pytest.raises(CheckpointError, match="No such file"):
            run(tmp_path / "run")


def test_a_file_of_another_kind_in_the_place_of_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "state.posterax", {"a": np.zeros(3)})
    with pytest.raises(CheckpointError, match="holds 'object'; expected 'sample'"):
        run(tmp_path / "run")


def test_a_full_disk_keeps_the_draws_and_the_previous_checkpoint(tmp_path, monkeypatch):
    whole = run(None, draws=60)
    run(tmp_path / "run", draws=30)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="the disk is full") as e:
            run(tmp_path / "run", draws=60)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    assert np.array_equal(e.value.kept["x"], whole["x"][:, : e.value.kept.num_draws])
    assert e.value.kept.num_draws >= 30
    assert np.array_equal(run(tmp_path / "run", draws=60)["x"], whole["x"])


class Squares(kill_job.Squares):
    pass


def test_training_is_resumed_only_with_the_same_model_data_and_optimiser(tmp_path):
    model = kill_job.Network(jnp.ones((5, 1)), jnp.ones((1, 5)))

    def fit(model=model, rows=kill_job.ROWS, optimiser=optax.adam(1e-2), steps=20):  # noqa: B008
        return train(
            model, kill_job.Squares(), rows, num_steps=steps, optimiser=optimiser, key=jr.key(0),
            checkpoint=tmp_path / "fit",
        )  # fmt: skip

    first = fit()
    assert np.array_equal(fit(optimiser=optax.adam(1e-2), steps=40).losses[:20], first.losses)
    for change, words in (
        ({"optimiser": optax.adam(3e-2)}, "its optimiser differs"),
        ({"rows": kill_job.ROWS + 1}, "its target differs"),
        ({"model": eqx.tree_at(lambda m: m.first, model, jnp.zeros((5, 1)))}, "its model differs"),
    ):
        with pytest.raises(CheckpointError, match=words):
            fit(**change)
