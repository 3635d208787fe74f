import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.distributions import constraints
from posterax import (
    Plan,
    PopulationSampler,
    PosteraxWarning,
    Result,
    Sampler,
    SamplingError,
    Target,
    TargetError,
    _loop,
    sample,
    warm_up,
)
from posterax_models import ConjugateNormal

KEY = jr.key(20261120)


class Info(NamedTuple):
    accepted: jax.Array


class RandomWalk(Sampler):
    """Metropolis sampling with Gaussian proposals: the simplest sampler there is, to test the driver with."""

    num_warmup: int = 0
    scale: float = 1.0

    def init(self, target, position, *, key):
        return position, target.log_density(position)

    def step(self, target, state, *, key):
        x, log_density = state
        key_move, key_accept = jr.split(key)
        leaves, treedef = jax.tree.flatten(x)
        keys = jr.split(key_move, len(leaves))
        y = jax.tree.unflatten(
            treedef,
            [leaf + self.scale * jr.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)],
        )
        proposed = target.log_density(y)
        accept = jnp.log(jr.uniform(key_accept)) < proposed - log_density
        new = jax.tree.map(lambda a, b: jnp.where(accept, a, b), (y, proposed), state)
        return new, Info(accept)

    def position(self, state):
        return state[0]


def normal_log_density(x, centre):
    return -0.5 * jnp.sum((x["x"] - centre) ** 2)


def normal_target(centre=0.0, dim=2):
    return Target(normal_log_density, np.full(dim, centre), like={"x": jnp.zeros(dim)})


# Numbers


def test_chains_have_the_distribution_of_a_conjugate_posterior():
    problem = ConjugateNormal(np.array([1.2, 0.3, 2.2, 0.8]), noise_sd=1.0, prior_mean=0.0, prior_sd=2.0)
    draws = sample(RandomWalk(num_warmup=100, scale=1.0), problem.target, num_draws=500, num_chains=400, key=KEY)
    # 400 independent chains: the chain means are independent, whatever the autocorrelation. 5 standard errors: false
    # alarms 6e-7 a figure; each catches a bias of 7.3 standard errors (0.02 posterior sd) with 99 %.
    mean, sd = float(problem.mean["mu"]), float(problem.sd["mu"])
    for replicates, truth in ((draws["mu"].mean(1), mean), (((draws["mu"] - mean) ** 2).mean(1), sd**2)):
        assert abs(replicates.mean() - truth) < 5 * replicates.std(ddof=1) / np.sqrt(400)


def test_draws_do_not_depend_on_how_the_run_is_cut_into_chunks(monkeypatch):
    whole = sample(RandomWalk(), normal_target(), num_draws=150, num_chains=3, key=KEY)
    for seconds, first in ((1e-9, 1), (1e-9, 7), (100.0, 149)):
        monkeypatch.setattr(_loop, "CHUNK_SECONDS", seconds)
        monkeypatch.setattr(_loop, "_FIRST_CHUNK", first)
        again = sample(RandomWalk(), normal_target(), num_draws=150, num_chains=3, key=KEY)
        assert np.array_equal(whole["x"], again["x"])
        assert np.array_equal(whole.stats["accepted"], again.stats["accepted"])


def test_records_that_fill_their_room_are_carried_on(monkeypatch):
    whole = sample(RandomWalk(), normal_target(dim=3), num_draws=100, num_chains=2, key=KEY)
    monkeypatch.setattr(_loop, "_MOST_ROWS", 8)
    again = sample(RandomWalk(), normal_target(dim=3), num_draws=100, num_chains=2, key=KEY)
    assert np.array_equal(whole["x"], again["x"])


def test_longer_runs_begin_with_the_shorter_ones_and_keys_tell_chains_apart():
    short = sample(RandomWalk(), normal_target(), num_draws=20, num_chains=3, key=KEY)
    long = sample(RandomWalk(), normal_target(), num_draws=50, num_chains=3, key=KEY)
    assert np.array_equal(short["x"], long["x"][:, :20])
    assert len({chain.tobytes() for chain in short["x"]}) == 3
    other = sample(RandomWalk(), normal_target(), num_draws=20, num_chains=3, key=jr.key(1))
    assert not np.array_equal(short["x"], other["x"])


def test_results_know_their_log_density_and_where_they_come_from():
    target = Target(lambda x: -0.5 * jnp.log(x["tau"]) ** 2, like={"tau": 1.0}, support={"tau": constraints.positive})
    draws = sample(RandomWalk(num_warmup=5), target, num_draws=30, num_chains=2, key=KEY)
    assert np.allclose(draws.log_density, -0.5 * np.log(draws["tau"]) ** 2, atol=1e-5)
    (step,) = draws.history
    assert step["settings"] == {"num_warmup": 5, "scale": 1.0}
    assert (step["num_chains"], step["num_draws"], step["x64"]) == (2, 30, False)
    assert draws.log_evidence is None
    assert "no normalising constant" in draws.no_evidence
    assert draws.result is Result.SUCCESSFUL


# Compilation


def test_a_second_call_with_new_data_compiles_nothing():
    sampler = RandomWalk(num_warmup=3)
    sample(sampler, normal_target(0.0), num_draws=11, num_chains=2, key=KEY)
    with jax.log_compiles(False), _count_compilations() as count:
        sample(RandomWalk(num_warmup=3), normal_target(1.0), num_draws=11, num_chains=2, key=jr.key(3))
        sample(RandomWalk(num_warmup=3), normal_target(2.0), num_draws=77, num_chains=2, key=jr.key(4))
    # 77 draws have another shape than 11: that costs the two maps over finished draws, never the loop.
    names = [name for name in count if "advance" in name or "begin" in name]
    assert names == []


class _count_compilations:
    """Names of the functions that JAX compiles meanwhile."""

    def __enter__(self):
        import logging

        self.names = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.names.append(record.getMessage())
        self.logger = logging.getLogger("jax._src.interpreters.pxla")
        self.level, self.propagate = self.logger.level, self.logger.propagate
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addHandler(self.handler)
        return self.names

    def __exit__(self, *_):
        self.logger.removeHandler(self.handler)
        self.logger.setLevel(self.level)
        self.logger.propagate = self.propagate


def test_the_counter_of_compilations_can_count():
    with _count_compilations() as count:
        sample(RandomWalk(num_warmup=4), normal_target(dim=5), num_draws=3, num_chains=2, key=KEY)
    assert any("advance" in name for name in count)


# Plans


def test_float64_runs_keep_float64_and_their_results_work_outside():
    data = np.full(2, 1.0 + 2.0**-40)
    draws = sample(
        RandomWalk(), Target(normal_log_density, data, like={"x": jnp.zeros(2)}), num_draws=20, num_chains=2,
        key=KEY, plan=Plan(precision=64),
    )  # fmt: skip
    assert draws["x"].dtype == np.float64
    assert draws.history[0]["x64"] is True
    assert not jax.config.jax_enable_x64
    exact = -0.5 * np.sum((draws["x"] - data) ** 2, axis=-1)
    assert np.allclose(draws.log_density, exact, rtol=1e-13)
    assert draws.to_datatree()["posterior"]["x"].dtype == np.float64
    assert jnp.asarray(draws["x"]).dtype == jnp.float32


class WantsFloat64(RandomWalk):
    precision = 64


def test_a_sampler_marked_for_float64_gets_it():
    assert sample(WantsFloat64(), normal_target(), num_draws=3, key=KEY)["x"].dtype == np.float64
    with pytest.raises(ValueError, match="WantsFloat64 needs 64 bits; `plan` has 32"):
        sample(WantsFloat64(), normal_target(), num_draws=3, key=KEY, plan=Plan(precision=32))


def test_chains_divided_over_devices_have_the_same_keys_and_the_same_law(tmp_path):
    script = tmp_path / "devices.py"
    script.write_text(
        dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import jax, numpy as np
        from posterax import Plan, sample
        from test_sample import KEY, RandomWalk, normal_target
        assert len(jax.devices()) == 2
        walk, target = RandomWalk(num_warmup=10), normal_target(1.0)
        run = lambda plan, chains=8: sample(walk, target, num_draws=400, num_chains=chains, key=KEY, plan=plan)
        one, two, again = run(Plan()), run(Plan(devices=2)), run(Plan(devices=2))
        assert np.array_equal(two["x"], again["x"]), "same plan, same bits"
        assert np.allclose(one["x"][:, :1], two["x"][:, :1], atol=1e-5), "same keys, but for rounding"
        assert np.allclose(two["x"].mean((0, 1)), 1.0, atol=0.3)
        assert two.history[0]["plan"]["devices"] == 2
        try:
            run(Plan(devices=2), chains=3)
        except ValueError as error:
            print(error)
        try:
            Plan(devices=5)
        except ValueError as error:
            print(error)
        """)
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    result = subprocess.run(
        [sys.executable, script], env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "`num_chains`=3 cannot be divided evenly over 2 devices" in result.stdout
    assert "`devices` asks for 5; JAX sees 2" in result.stdout


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"num_draws": 0}, ValueError, "`num_draws` must be at least 1; got 0"),
        ({"num_chains": 0}, ValueError, "`num_chains` must be at least 1; got 0"),
        ({"num_draws": 1.5}, TypeError, "`num_draws` must be an integer; got float 1.5"),
        ({"num_chains": True}, TypeError, "`num_chains` must be an integer"),
        ({"key": 0}, TypeError, r"`key` of sample must be a JAX random key; got the number 0.*jax.random.key\(0\)"),
        ({"plan": 2}, TypeError, r"`plan` must be a Plan; got int. For several devices: Plan\(devices=2\)"),
        ({"init": {}}, ValueError, r"`init` lacks \['x'\]"),
        ({"init": {"x": np.zeros(3)}}, ValueError, r"`init\['x'\]` must have shape \(2,\), or \(4, 2\).*got \(3,\)"),
        ({"init": {"x": np.array(["a", "b"])}}, TypeError, r"`init\['x'\]` must hold real numbers; got dtype <U1"),
    ],
)
def test_arguments_out_of_place_are_named_with_what_was_expected_and_what_came(change, error, words):
    with pytest.raises(error, match=words):
        sample(RandomWalk(), normal_target(), **{"num_draws": 5, "key": KEY, **change})


def test_a_class_in_place_of_a_sampler_is_noticed():
    with pytest.raises(TypeError, match="got the class RandomWalk itself"):
        sample(RandomWalk, normal_target(), num_draws=5, key=KEY)  # pyright: ignore


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
def test_a_density_that_is_nowhere_finite_is_told_before_sampling(bad):
    target = Target(lambda x, y: jnp.sum(x["x"]) + y, np.array(bad), like={"x": jnp.zeros(2)})
    with pytest.raises(TargetError, match="No start found for chain 0: the log density was not finite at 100") as e:
        sample(RandomWalk(), target, num_draws=5, key=KEY)
    assert f"it is {float(bad)}" in str(e.value)
    assert "Pass `init=`" in str(e.value)


def test_a_start_outside_the_support_is_told_with_its_place():
    target = Target(lambda x: jnp.where(x["x"] > 0, -x["x"], -jnp.inf), like={"x": 0.0})
    with pytest.raises(TargetError, match="`init` starts chain 1 at x=-2, where the log density is not finite"):
        sample(RandomWalk(), target, num_draws=5, num_chains=2, init={"x": np.array([1.0, -2.0])}, key=KEY)


def test_a_narrow_support_is_found_by_trying():
    target = Target(lambda x: jnp.where(x["x"] > 1.8, -x["x"], -jnp.inf), like={"x": 0.0})
    draws = sample(RandomWalk(), target, num_draws=20, key=KEY)
    assert (draws["x"] > 1.8).all()


class GoesNaN(RandomWalk):
    """A faulty sampler: its position becomes NaN after 30 steps, in one chain only."""

    def step(self, target, state, *, key):
        (x, _), info = super().step(target, (state[0], target.log_density(state[0])), key=key)
        x = {"x": jnp.where((state[1] == 30) & (x["x"][0] < 10), jnp.nan, x["x"])}
        return (x, state[1] + 1), info

    def init(self, target, position, *, key):
        return position, jnp.array(0)


def test_a_position_that_becomes_nan_ends_the_run_and_keeps_the_draws_before():
    with pytest.raises(SamplingError, match="GoesNaN moved chain 0 to a position that is not finite in step 30") as e:
        sample(GoesNaN(), normal_target(), num_draws=2000, num_chains=2, key=KEY)
    assert e.value.draws.shape == (2, 30)
    assert np.isfinite(e.value.draws["x"]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)
        draws = sample(GoesNaN(), normal_target(), num_draws=2000, num_chains=2, key=KEY, throw=False)
    assert draws.result is Result.NONFINITE
    assert draws.shape == (2, 30)


def test_a_position_that_breaks_before_the_first_draw_is_an_error_in_words():
    with pytest.raises(
        SamplingError, match=r"position that is not finite in step 30\. There are no draws before it"
    ) as e:
        sample(GoesNaN(num_warmup=40), normal_target(), num_draws=20, num_chains=2, key=KEY, throw=False)
    assert e.value.draws is None


def nan_beyond_two(x):
    return jnp.where(x["x"] > 1.5, jnp.nan, -0.5 * x["x"] ** 2)


def test_a_density_that_is_nan_near_the_draws_is_told_and_the_draws_are_kept():
    target = Target(nan_beyond_two, like={"x": 0.0})
    with pytest.raises(SamplingError, match=r"The log density is NaN at x=\d.*close to the draws") as e:
        sample(RandomWalk(), target, num_draws=200, key=KEY)
    assert e.value.draws.shape == (4, 200)
    assert "Return -inf where the density is zero" in str(e.value)


class Widens(RandomWalk):
    """A faulty sampler: what was an integer becomes a float."""

    def init(self, target, position, *, key):
        return position, jnp.array(0)

    def step(self, target, state, *, key):
        return (state[0], state[1] + 0.5), None


class Grows(Widens):
    def step(self, target, state, *, key):
        return (state[0], state[1], state[1]), None


def test_a_step_that_changes_the_states_shape_or_dtype_is_told_which_leaf():
    with pytest.raises(TypeError, match=r"Widens\.step changed the state: '1' was int32\[4\] and is now float32\[4\]"):
        sample(Widens(), normal_target(), num_draws=5, key=KEY)
    with pytest.raises(TypeError, match=r"Grows\.step changed the state: its structure differs at \['2'\]"):
        sample(Grows(), normal_target(), num_draws=5, key=KEY)


class Raises(RandomWalk):
    def step(self, target, state, *, key):
        raise RuntimeError("a fault of the plugin's")


def test_errors_of_a_sampler_name_it():
    with pytest.raises(RuntimeError, match="a fault of the plugin's") as e:
        sample(Raises(), normal_target(), num_draws=5, key=KEY)
    assert any("Raises" in note for note in e.value.__notes__)


# Interruption


class Slow(RandomWalk):
    """Slow enough to be interrupted: tells when a chunk is done, through the shared event."""


def _interrupt_when(condition):
    def wait():
        condition.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_keeps_the_draws_made_so_far(monkeypatch):
    event, chunks = threading.Event(), []
    whole_step = _loop._next_size

    def spy(made, seconds):
        chunks.append(made)
        if len(chunks) == 5:
            event.set()
        return min(200, whole_step(made, seconds))

    monkeypatch.setattr(_loop, "_next_size", spy)
    thread = _interrupt_when(event)
    draws = sample(Slow(num_warmup=10), normal_target(dim=50), num_draws=10_000_000, num_chains=4, key=KEY)
    thread.join()
    assert draws.result is Result.INTERRUPTED
    assert "interrupted" in draws.result.words
    assert draws.num_draws >= 100
    monkeypatch.setattr(_loop, "_next_size", whole_step)
    again = sample(Slow(num_warmup=10), normal_target(dim=50), num_draws=50, num_chains=4, key=KEY)
    assert np.array_equal(draws["x"][:, :50], again["x"])


def test_ctrl_c_during_warm_up_has_nothing_to_keep_and_says_so(monkeypatch):
    event = threading.Event()
    monkeypatch.setattr(_loop, "_next_size", lambda made, seconds: event.set() or 50)
    thread = _interrupt_when(event)
    with pytest.raises(KeyboardInterrupt, match="during warm-up: there are no draws yet"):
        sample(Slow(num_warmup=10_000_000), normal_target(dim=50), num_draws=10, key=KEY)
    thread.join()


# Freezing


class Adapts(RandomWalk):
    """Learns its scale: the mean absolute position of the warm-up."""

    def frozen(self, states):
        return eqx.tree_at(lambda s: (s.num_warmup, s.scale), self, (0, float(jnp.abs(states[0]["x"]).mean())))


def test_warming_up_gives_a_sampler_without_warm_up():
    warmed = warm_up(Adapts(num_warmup=50), normal_target(), key=KEY)
    assert warmed.num_warmup == 0
    assert 0 < warmed.scale < 3
    with pytest.raises(NotImplementedError, match="RandomWalk adapts for 5 steps and does not say how to freeze"):
        warm_up(RandomWalk(num_warmup=5), normal_target(), key=KEY)


# Populations


class Tempering(PopulationSampler):
    """Annealed importance sampling in a random number of steps, exact for any of them; to test the driver with."""

    num_particles: int = 64
    num_steps: int = 5

    def init(self, target, *, key):
        keys = jr.split(key, self.num_particles)
        x = jax.vmap(lambda k: target.sample_prior(key=k))(keys)
        extra = jr.randint(key, (), 0, 4)
        return x, jnp.zeros(self.num_particles), jnp.array(0), self.num_steps + extra

    def step(self, target, state, *, key):
        x, log_weights, step, total = state
        likelihood = jax.vmap(lambda u: target.log_density(u) - target.log_prior(u))(x)
        return (x, log_weights + likelihood / total, step + 1, total), {"temperature": (step + 1) / total}

    def done(self, state):
        return state[2] >= state[3]

    def population(self, state):
        return state[0], state[1], jax.nn.logsumexp(state[1]) - jnp.log(self.num_particles)


def test_populations_stop_when_they_are_done_and_estimate_the_evidence_without_bias():
    problem = ConjugateNormal(np.array([0.5]), noise_sd=1.0, prior_mean=0.0, prior_sd=1.0)
    draws = sample(Tempering(), problem.target, num_chains=2000, key=KEY)
    assert draws.shape == (2000, 64)
    assert draws.stats["temperature"].shape == (2000, 8)
    ratio = np.exp(draws.log_evidence - float(problem.log_evidence))
    # 2,000 independent estimates, 5 standard errors: false alarms 6e-7.
    assert abs(ratio.mean() - 1) < 5 * ratio.std(ddof=1) / np.sqrt(2000)
    assert abs(draws.mean()["mu"] - float(problem.mean["mu"])) < 0.02
    again = sample(Tempering(), problem.target, num_chains=3, key=KEY)
    assert np.array_equal(again["mu"], draws["mu"][:3])


def test_arguments_without_meaning_for_populations_are_refused():
    target = ConjugateNormal(np.array([0.5]), noise_sd=1.0, prior_mean=0.0, prior_sd=1.0).target
    with pytest.raises(ValueError, match="`num_draws` has no meaning for Tempering"):
        sample(Tempering(), target, num_draws=5, key=KEY)
    with pytest.raises(ValueError, match="`init` has no meaning for Tempering"):
        sample(Tempering(), target, init={}, key=KEY)


def test_a_population_without_weight_is_an_error_that_keeps_it():
    target = Target(
        log_prior=lambda x: -0.5 * x**2,
        log_likelihood=lambda x: jnp.full(1, -jnp.inf) + x,
        like=0.0,
        sample_prior=lambda key: jr.normal(key),
    )
    with pytest.raises(SamplingError, match="4 of 4 populations have no particle of positive weight") as e:
        sample(Tempering(), target, key=KEY)
    assert e.value.draws.shape == (4, 64)


# Samplers that talk to the outside world


class HostWalk(RandomWalk):
    host = True


def test_a_host_sampler_is_stepped_from_python_with_the_same_keys():
    host = sample(HostWalk(num_warmup=2), normal_target(), num_draws=10, num_chains=2, key=KEY)
    traced = sample(RandomWalk(num_warmup=2), normal_target(), num_draws=10, num_chains=2, key=KEY)
    assert np.allclose(host["x"], traced["x"], atol=1e-5)
    with pytest.raises(ValueError, match="`checkpoint` is not available for HostWalk"):
        sample(HostWalk(), normal_target(), num_draws=5, key=KEY, checkpoint="nowhere")


class HostTempering(Tempering):
    host = True


def test_a_host_population_is_the_same_population():
    problem = ConjugateNormal(np.array([0.5]), noise_sd=1.0, prior_mean=0.0, prior_sd=1.0)
    host = sample(HostTempering(), problem.target, num_chains=2, key=KEY)
    traced = sample(Tempering(), problem.target, num_chains=2, key=KEY)
    assert np.allclose(host["mu"], traced["mu"], atol=1e-6)
    assert np.allclose(host.log_evidence, traced.log_evidence, atol=1e-5)
