import os
import signal
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from posterax import Batches, Objective, TrainingError, _loop, train

KEY = jr.key(5)
RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32) + 3.0


class Line(eqx.Module):
    weight: jax.Array
    offset: jax.Array
    power: int = 1


def line():
    return Line(jnp.zeros(3), jnp.zeros(()))


class Squares(Objective):
    def loss(self, model, batch, state, *, key):
        x, y = batch
        residual = y - x @ model.weight - model.offset
        return jnp.mean(residual**2), (state, {"worst": jnp.max(jnp.abs(residual))})


def test_least_squares_ends_at_its_closed_form():
    noisy = Y + RNG.normal(size=40).astype(np.float32)
    trained = train(line(), Squares(), (X, noisy), num_steps=2000, optimiser=optax.adam(0.05), key=KEY)
    exact = np.linalg.lstsq(np.column_stack([X, np.ones(40)]), noisy, rcond=None)[0]
    assert np.allclose(trained.model.weight, exact[:3], atol=1e-4)
    assert np.allclose(trained.model.offset, exact[3], atol=1e-4)
    assert trained.losses.shape == trained.metrics["worst"].shape == (2000,)
    assert trained.losses[-1] < trained.losses[0]
    assert trained.model.power == 1


class Seen(Objective):
    """Remembers which rows it has seen: the state is a count a row."""

    def init(self, model, *, key):
        return jnp.zeros(10, int)

    def loss(self, model, batch, state, *, key):
        return jnp.sum(model**2), (state.at[batch].add(1), {})


@pytest.mark.parametrize(("size", "per_epoch"), [(5, 2), (3, 3)])
def test_an_epoch_shows_each_row_at_most_once_and_the_next_another_order(size, per_epoch):
    data = Batches(jnp.arange(10), size)
    epoch = train(jnp.ones(()), Seen(), data, num_steps=per_epoch, key=KEY)
    assert sorted(np.unique(epoch.objective_state)) == ([1] if size == 5 else [0, 1])
    assert epoch.objective_state.sum() == size * per_epoch
    long = train(jnp.ones(()), Seen(), data, num_steps=200 * per_epoch, key=KEY)
    # Each row is seen in size * per_epoch / 10 of 200 epochs: binomial, sd at most 6.5; 5 sd.
    assert (np.abs(long.objective_state - 20 * size * per_epoch) <= 33).all()


def test_a_simulator_is_a_function_of_a_key():
    class Location(Objective):
        def loss(self, model, batch, state, *, key):
            return (model - batch) ** 2, (state, {"batch": batch})

    trained = train(
        jnp.zeros(()), Location(), lambda key: 4.0 + jr.normal(key), num_steps=3000, optimiser=optax.sgd(0.005),
        key=KEY,
    )  # fmt: skip
    batches = trained.metrics["batch"]
    assert len(np.unique(batches)) == 3000
    assert abs(batches.mean() - 4) < 5 / np.sqrt(3000)  # false alarms 6e-7
    assert abs(trained.model - 4) < 0.5


def test_only_what_is_trainable_is_trained():
    mask = Line(weight=True, offset=False, power=False)
    trained = train(line(), Squares(), (X, Y), num_steps=50, trainable=mask, key=KEY)
    assert trained.model.offset == 0
    assert (trained.model.weight != 0).all()
    with pytest.raises(ValueError, match="`model` has no trainable array"):
        train(Line(1, 2), Squares(), (X, Y), num_steps=5, key=KEY)


class SometimesNaN(Objective):
    def loss(self, model, batch, state, *, key):
        bad = jr.bernoulli(key, 0.1)
        return jnp.where(bad, jnp.nan, jnp.sum(model**2)), (state + 1, {})

    def init(self, model, *, key):
        return jnp.zeros(())


def test_steps_that_are_not_finite_change_nothing_and_are_counted():
    trained = train(jnp.ones(2), SometimesNaN(), num_steps=300, max_skipped=100, key=KEY)
    bad = ~np.isfinite(trained.losses)
    assert trained.num_skipped == bad.sum() > 10
    assert trained.objective_state == 300 - bad.sum()
    assert np.isfinite(trained.model).all()
    first = np.flatnonzero(bad[1:-1] & ~bad[2:] & ~bad[:-2])[0] + 1
    before, after = trained.losses[first - 1], trained.losses[first + 1]
    ordinary = trained.losses[first + 2] if np.isfinite(trained.losses[first + 2]) else after
    assert after < before  # the step before the skipped one had its effect, the skipped one none
    assert before - after == pytest.approx(after - ordinary, rel=0.2) or not np.isfinite(ordinary)


def test_too_many_of_them_end_the_training_and_keep_the_model():
    with pytest.raises(TrainingError, match=r"not finite in .* steps, first in step .*`max_skipped` allows 0") as e:
        train(jnp.ones(2), SometimesNaN(), num_steps=100_000, key=KEY)
    assert np.isfinite(e.value.trained.model).all()
    assert len(e.value.trained.losses) < 100_000
    trained = train(jnp.ones(2), SometimesNaN(), num_steps=300, key=KEY, throw=False)
    assert trained.result_code == "nonfinite"


def test_a_second_training_of_equal_shapes_traces_nothing():
    traces = []

    class Counts(Squares):
        def loss(self, model, batch, state, *, key):
            traces.append(1)
            return super().loss(model, batch, state, key=key)

    train(line(), Counts(), (X, Y), num_steps=30, key=KEY)
    count = len(traces)
    train(line(), Counts(), (X + 1, Y), num_steps=70, key=jr.key(9))
    assert len(traces) == count > 0


def test_chunks_change_no_bit(monkeypatch):
    whole = train(line(), Squares(), Batches((X, Y), 7), num_steps=100, key=KEY)
    monkeypatch.setattr(_loop, "_FIRST_CHUNK", 7)
    monkeypatch.setattr(_loop, "CHUNK_SECONDS", 1e-9)
    again = train(line(), Squares(), Batches((X, Y), 7), num_steps=100, key=KEY)
    assert eqx.tree_equal(whole, again)


def test_ctrl_c_returns_the_model_so_far(monkeypatch):
    event = threading.Event()
    monkeypatch.setattr(_loop, "_next_size", lambda made, seconds: event.set() or 100)

    def interrupt():
        event.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    trained = train(line(), Squares(), (X, Y), num_steps=100_000_000, key=KEY)
    thread.join()
    assert trained.result_code == "interrupted"
    assert len(trained.losses) >= 20


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"num_steps": 0}, ValueError, "`num_steps` must be an integer, at least 1; got 0"),
        ({"key": 3}, TypeError, "`key` of train must be a JAX random key"),
        ({"objective": Squares}, TypeError, "`objective` must be an Objective; got"),
        ({"data": (np.zeros((0, 3)), np.zeros(0))}, ValueError, "`data` holds an empty array"),
    ],
)
def test_arguments_out_of_place_are_named(change, error, words):
    arguments = {"model": line(), "objective": Squares(), "data": (X, Y), "num_steps": 5, "key": KEY, **change}
    with pytest.raises(error, match=words):
        train(**arguments)


class Vector(Objective):
    def loss(self, model, batch, state, *, key):
        return model**2, (state, {})


class Forgets(Seen):
    def loss(self, model, batch, state, *, key):
        return jnp.sum(model**2), (None, {})


def test_objectives_that_break_their_promise_are_told():
    with pytest.raises(TypeError, match=r"Vector\.loss must return one number; got shape \(2,\)"):
        train(jnp.ones(2), Vector(), num_steps=3, key=KEY)
    with pytest.raises(TypeError, match=r"Forgets\.loss changed its state: its structure differs"):
        train(jnp.ones(2), Forgets(), num_steps=3, key=KEY)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (np.zeros((0, 2)), 1, "`size` must be between 1 and the 0 rows"),
        ((np.zeros(3), np.zeros(4)), 1, "one common leading axis"),
        (np.zeros(3), 4, "`size` must be between 1 and the 3 rows of `data`; got 4"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(data, size, words):
    with pytest.raises(ValueError, match=words):
        Batches(data, size)
