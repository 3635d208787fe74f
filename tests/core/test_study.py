import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax import Checkpoint, CheckpointError, Plan, study

KEY = jr.key(1)
CENTRES = np.linspace(0.0, 1.0, 7)


def simulate(centre, *, key):
    return {"mean": centre + jr.normal(key, (5,)).mean(), "centre": centre}


class Shifted(eqx.Module):
    by: jax.Array

    def __call__(self, number, *, key):
        return number + self.by


def expected():
    """By hand: the key of case i is the i-th of those of "cases"."""
    from posterax._keys import named

    return [c + np.mean(jr.normal(jr.fold_in(named(KEY, "cases"), i), (5,))) for i, c in enumerate(CENTRES)]


@pytest.mark.parametrize("on", [None, Plan(), "threads"])
def test_each_case_is_computed_once_with_its_key_whoever_computes_it(on):
    pool = ThreadPoolExecutor(2) if on == "threads" else on
    found = study(simulate, CENTRES, key=KEY, on=pool)
    np.testing.assert_allclose(found["mean"], expected(), atol=1e-6)
    np.testing.assert_allclose(found["centre"], CENTRES, atol=1e-7)


def test_workers_in_other_processes_give_the_same():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = study(simulate, CENTRES[:2], key=KEY, on=pool)
    np.testing.assert_allclose(found["mean"], expected()[:2], atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 3, 10])
def test_cases_computed_together_are_those_computed_alone(at_once):
    found = study(simulate, CENTRES, key=KEY, on=Plan(), at_once=at_once)
    np.testing.assert_allclose(found["mean"], expected(), atol=1e-6)


def test_a_number_of_cases_is_their_numbers_and_functions_may_hold_arrays():
    assert study(Shifted(jnp.asarray(2)), 4, key=KEY, on=Plan()).tolist() == [2, 3, 4, 5]
    assert study(Shifted(jnp.asarray(2)), 4, key=KEY).tolist() == [2, 3, 4, 5]


def test_a_study_in_double_precision():
    found = study(lambda c, *, key: jnp.asarray(c) / 3, CENTRES, key=KEY, on=Plan(precision=64))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, CENTRES / 3, rtol=1e-15)


class Calls:
    """Kept apart from the function: what a function closes over is part of what it is."""

    made: list[int] = []  # noqa: RUF012


def counted(case, *, key):
    Calls.made.append(int(case))
    if case == 4 and len(Calls.made) <= 5:
        raise ZeroDivisionError("five")
    return {"case": case, "draw": jr.normal(key)}


def test_what_is_done_is_not_done_again(tmp_path):
    calls, one = Calls.made, counted
    with pytest.raises(ZeroDivisionError) as error:
        study(one, 6, key=KEY, checkpoint=tmp_path / "s")
    assert "posterax met this in case 4 of a study." in error.value.__notes__
    found = study(one, 6, key=KEY, checkpoint=tmp_path / "s")
    assert calls == [0, 1, 2, 3, 4, 4, 5]
    whole = study(one, 6, key=KEY)
    assert np.array_equal(found["draw"], whole["draw"])
    assert study(one, 6, key=KEY, checkpoint=tmp_path / "s")["case"].tolist() == list(range(6))
    assert len(calls) == 13


def test_a_compiled_study_is_resumed_and_refused_like_any_run(tmp_path):
    def run(num=CENTRES, **options):
        return study(simulate, num, **{"key": KEY, "on": Plan(), "checkpoint": tmp_path / "s", **options})

    first = run()
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").iterdir()}
    assert np.array_equal(run()["mean"], first["mean"])
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "s").iterdir()} == written
    with pytest.raises(CheckpointError, match="its key differs"):
        run(key=jr.key(2))
    with pytest.raises(CheckpointError, match=r"its number at once differs .1 there, 2 here"):
        run(at_once=2)
    with pytest.raises(CheckpointError, match="its target differs"):
        run(num=CENTRES[:3])


def test_parts_of_another_study_are_refused(tmp_path):
    study(simulate, CENTRES[:2], key=KEY, checkpoint=tmp_path / "s")
    with pytest.raises(CheckpointError, match="its key differs"):
        study(simulate, CENTRES[:2], key=jr.key(2), checkpoint=tmp_path / "s")
    with pytest.raises(CheckpointError, match="holds a run already"):
        study(simulate, CENTRES[:2], key=KEY, checkpoint=Checkpoint(str(tmp_path / "s"), resume="never"))
    (part, *_) = sorted((tmp_path / "s").glob("part-*"))
    content = part.read_bytes()
    part.write_bytes(content[:-3] + b"xyz")
    with pytest.raises(CheckpointError, match="was altered"):
        study(simulate, CENTRES[:2], key=KEY, checkpoint=tmp_path / "s")


def test_a_failure_in_a_worker_cancels_what_has_not_begun():
    begun = []

    def one(case, *, key):
        begun.append(int(case))
        if case == 0:
            raise ZeroDivisionError("zero")
        time.sleep(0.05)
        return case

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        study(one, 50, key=KEY, on=pool)
    assert len(begun) < 50
    assert threading.active_count() < 20


# Bad input


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"cases": 0}, ValueError, "`cases` must be a number, 1 or more, or arrays with one common leading axis"),
        ({"cases": (np.zeros(3), np.zeros(4))}, ValueError, "`cases` must be a number"),
        ({"on": 4}, TypeError, "`on` must be a Plan, a concurrent.futures.Executor or None; got int"),
        ({"at_once": 0}, ValueError, "`at_once` must be an integer, 1 or more; got 0"),
        ({"key": 3}, TypeError, "`key` of study must be a JAX random key"),
    ],
)
def test_arguments_out_of_place_are_refused(change, kind, words):
    with pytest.raises(kind, match=words):
        study(simulate, **{"cases": 3, "key": KEY, **change})


def test_results_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="`function` must give results of the same shapes for all cases"):
        study(lambda case, *, key: np.zeros(int(case)), 3, key=KEY)


@pytest.mark.slow
def test_dasks_executor_makes_a_study_of_a_thousand_cases():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = study(simulate, np.zeros(1000), key=KEY, on=client.get_executor())
    alone = study(simulate, np.zeros(1000), key=KEY, on=Plan(), at_once=100)
    np.testing.assert_allclose(found["mean"], alone["mean"], atol=1e-6)
