"""Filters step by step: moments, statistics, annealing by hand, and steps taken from Python."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
import pytest
from posterax import Always, EssBelow
from posterax.weights import Systematic, log_mean
from posterax_particles import (
    BaseSchedule,
    Bootstrap,
    EntropicParticleFilter,
    EntropySchedule,
    EssSchedule,
    FeynmanKac,
    LookAhead,
    ParticleFilter,
    TargetEssSchedule,
    forecast,
    run_filter,
    select,
    smooth,
)
from posterax_particles._normal import normal

from models import SIGNAL, WALK, Chain, Walk, kalman

MODEL = Bootstrap(Walk(), WALK)
T = len(WALK)


def test_filtering_moments_are_kalmans():
    found = run_filter(ParticleFilter(40_000), MODEL, key=jr.key(0))
    exact = kalman().filter(WALK[:, None])
    # 40,000 particles: standard errors of 0.005 at most.
    np.testing.assert_allclose(found.stats["states_mean"], exact.mean[:, 0], atol=0.02)
    np.testing.assert_allclose(found.stats["states_sd"], np.sqrt(exact.cov[:, 0, 0]), atol=0.02)
    np.testing.assert_allclose(found.stats["log_evidence"], np.cumsum(exact.log_likelihood_terms), atol=0.06)


def test_sample_gives_draws_with_evidence_and_a_statistic_for_each_time():
    draws = posterax.sample(ParticleFilter(500), MODEL, num_chains=3, key=jr.key(1), progress=False)
    assert draws["states"].shape == (3, 500)
    assert {name: value.shape for name, value in draws.stats.items()} == {
        name: (3, T)
        for name in (
            "ess", "entropy", "log_evidence", "resampled", "temperature", "moves", "states_mean", "states_sd",
        )
    }  # fmt: skip
    assert (draws.stats["moves"] == 500).all()
    assert not draws.stats["resampled"][:, 0].any()
    assert draws.stats["resampled"][:, 1:].all()
    np.testing.assert_array_equal(draws.stats["log_evidence"][:, -1], draws.log_evidence)
    np.testing.assert_allclose(draws.mean()["states"], kalman().filter(WALK[:, None]).mean[-1, 0], atol=0.1)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    sampler = ParticleFilter(50, paths=True)
    whole = posterax.sample(sampler, MODEL, num_chains=2, key=jr.key(1), progress=False)
    for _ in range(2):
        again = posterax.sample(
            sampler, MODEL, num_chains=2, key=jr.key(1), progress=False, checkpoint=tmp_path / "run"
        )
        for name, value in {**whole.values, **whole.stats}.items():
            np.testing.assert_array_equal({**again.values, **again.stats}[name], value)


@pytest.mark.parametrize("bits", [32, 64])
def test_paths_in_either_precision(bits):
    draws = posterax.sample(
        ParticleFilter(20, paths=True),
        MODEL,
        num_chains=2,
        key=jr.key(1),
        plan=posterax.Plan(precision=bits),
        progress=False,
    )
    assert draws["states"].dtype == f"float{bits}"
    with jax.enable_x64(bits == 64):
        found = run_filter(ParticleFilter(20, paths=True), Bootstrap(Walk(), np.asarray(WALK, float)), key=jr.key(1))
        paths = smooth(found, MODEL, 5, key=jr.key(2)), smooth(found, MODEL, 5, key=jr.key(2), method="genealogy")
        assert {path.dtype.name for path in paths} == {f"float{bits}"}


def test_one_population_and_several_take_the_same_steps():
    alone = posterax.sample(ParticleFilter(50), MODEL, num_chains=1, key=jr.key(1), progress=False)
    several = posterax.sample(ParticleFilter(50), MODEL, num_chains=2, key=jr.key(1), progress=False)
    np.testing.assert_allclose(alone["states"][0], several["states"][0], rtol=1e-4)


def test_uninformative_observations_leave_all_weights_equal():
    observed = jnp.full(T, jnp.nan)
    for when in (Always(), EssBelow(0.9)):
        found = run_filter(ParticleFilter(100, when=when), Bootstrap(Walk(), observed), key=jr.key(2))
        np.testing.assert_allclose(found.stats["ess"], 100, rtol=1e-5)
        np.testing.assert_allclose(found.stats["entropy"], 1, rtol=1e-5)
        assert float(found.log_evidence) == pytest.approx(0, abs=1e-5)
        assert bool(np.any(found.stats["resampled"])) == isinstance(when, Always)


def test_a_constant_added_to_the_potentials_is_added_to_the_evidence_and_changes_nothing_else():
    class Shifted(Bootstrap):
        def log_potential(self, t, before, x):
            return super().log_potential(t, before, x) - 7.5

    plain = run_filter(ParticleFilter(100), MODEL, key=jr.key(3))
    shifted = run_filter(ParticleFilter(100), Shifted(Walk(), WALK), key=jr.key(3))
    np.testing.assert_array_equal(plain.state.particles, shifted.state.particles)
    assert float(plain.log_evidence - shifted.log_evidence) == pytest.approx(7.5 * (T - 1), rel=1e-5)


def test_forecasts_are_kalmans():
    found = run_filter(ParticleFilter(20_000), MODEL, key=jr.key(0))
    states, observed = forecast(found, Walk(), steps=4, num=20_000, key=jr.key(1))
    exact = kalman().forecast(WALK[:, None], steps=4)
    assert states.shape == observed.shape == (20_000, 4)
    np.testing.assert_allclose(states.mean(axis=0), exact.mean[:, 0], atol=0.04)
    np.testing.assert_allclose(observed.mean(axis=0), exact.observed_mean[:, 0], atol=0.04)
    np.testing.assert_allclose(observed.std(axis=0), np.sqrt(exact.observed_cov[:, 0, 0]), atol=0.04)


# Annealing: the published rules by hand


def weights_with_ess(n, share):
    """Log-weights with 1 / sum of squares = share * n: share * n equal ones, the others all but without weight."""
    return jnp.where(jnp.arange(n) < share * n, 0.0, -60.0)


@pytest.mark.parametrize(
    ("schedule", "share", "progress", "temperature"),
    [
        (EssSchedule(), 0.2, 0.2, 4.0),  # (1 / 0.2) (1 - 0.2)
        (EssSchedule(), 0.2, 0.5, 1.0),  # late
        (EssSchedule(), 0.5, 0.2, 1.0),  # not below one half
        (EssSchedule(early_phase=1.0), 0.4, 0.8, 1.0),  # 2.5 * 0.2 is less than 1
        (BaseSchedule(), 0.2, 0.3, 1.7),
        (EntropySchedule(), 0.1, 0.3, 1 / (np.log(2) / np.log(20) * 0.7 + 0.3)),
    ],
)
def test_temperatures_are_the_published_ones(schedule, share, progress, temperature):
    found = 1 / schedule.inverse_temperature(weights_with_ess(20, share), jnp.asarray(progress))
    assert float(found) == pytest.approx(temperature, rel=1e-5)


def test_entropy_of_one_half_at_progress_three_tenths():
    log_weights = jnp.array([0.0, 0.0, -80.0, -80.0])  # entropy log 2 of log 4; ESS 2 of 4 is not below one half
    schedule = EntropySchedule(ess_threshold=0.6)
    assert float(schedule.inverse_temperature(log_weights, jnp.asarray(0.3))) == pytest.approx(0.65, rel=1e-5)


def test_with_two_particles_the_published_annealing_never_acts():
    for gap in (0.0, 1.0, 30.0):
        assert float(EssSchedule().inverse_temperature(jnp.array([0.0, gap]), jnp.asarray(0.0))) == 1


def test_the_target_schedule_leaves_the_effective_sample_size_asked_for():
    log_weights = 4 * jr.normal(jr.key(0), (200,))
    inverse = TargetEssSchedule(0.7).inverse_temperature(log_weights, jnp.asarray(0.9))
    weights = np.exp(np.asarray(inverse * log_weights, float))
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(140, rel=1e-3)
    assert float(TargetEssSchedule(0.5).inverse_temperature(jnp.zeros(10), jnp.asarray(0.0))) == 1
    lonely = jnp.where(jnp.arange(10) < 3, -jnp.arange(10.0), -jnp.inf)
    assert float(TargetEssSchedule(0.5).inverse_temperature(lonely, jnp.asarray(0.0))) < 1e-6


def test_progress_is_the_share_of_steps_taken():
    seen = []

    class Noting(EssSchedule):
        def inverse_temperature(self, log_weights, progress):
            jax.debug.callback(lambda p: seen.append(float(p)), progress, ordered=True)
            return super().inverse_temperature(log_weights, progress)

    for num_steps in (None, 20):
        run_filter(EntropicParticleFilter(8, Noting(), num_steps=num_steps), MODEL, key=jr.key(0))
        jax.effects_barrier()
    np.testing.assert_allclose(seen, [*np.arange(1, T) / T, *np.arange(1, T) / 20], rtol=1e-5)


def test_annealing_is_told_by_its_temperature():
    schedule = EssSchedule(ess_threshold=1.0, early_phase=0.5)
    found = run_filter(EntropicParticleFilter(200, schedule), MODEL, key=jr.key(0))
    temperature, ess = np.asarray(found.stats["temperature"]), np.asarray(found.stats["ess"])
    progress = np.arange(T) / T
    expected = np.where(progress < 0.5, np.maximum(1, 200 / np.roll(ess, 1) * (1 - progress)), 1)
    np.testing.assert_allclose(temperature[1:], expected[1:], rtol=1e-4)
    assert temperature[1] > 1


def test_look_ahead_tells_what_it_costs():
    found = run_filter(ParticleFilter(10, look_ahead=LookAhead(3)), MODEL, key=jr.key(0))
    np.testing.assert_array_equal(found.stats["moves"], [10, *[40] * (T - 1)])


# Selection, driven from Python with particles of any kind


def test_selection_drives_particles_that_are_no_arrays():
    # Words that grow by letters, weighted by their vowels: what a language model's particles look like.
    words, log_weights = ["a", "b", "e", "x"], jnp.log(jnp.array([3.0, 1.0, 3.0, 1.0]))
    for letter, key in zip("na", jr.split(jr.key(0), 2), strict=True):
        chosen = select(log_weights, key=key, when=Always(), resampler=Systematic())
        words = [words[i] + letter for i in chosen.ancestors]
        log_weights = chosen.log_weights + jnp.log(jnp.array([1.0 + (word[0] in "ae") for word in words]))
    assert all(len(word) == 3 for word in words)
    assert sum(word[0] in "ae" for word in words) >= 2


@pytest.mark.parametrize("inverse", [1.0, 0.3])
@pytest.mark.parametrize("guess", [None, 2.0])
def test_selection_keeps_what_weighted_particles_stand_for(inverse, guess):
    # E[sum of new weights of copies of i] = old weight of i, exactly; by 20,000 selections, within 5 standard errors.
    log_weights = jnp.log(jnp.array([5.0, 1.0, 0.2, 0.0, 2.0]))
    scores = None if guess is None else jnp.where(log_weights > -jnp.inf, guess * jnp.arange(5.0)[::-1], -jnp.inf)

    def copies(key):
        chosen = select(
            log_weights, key=key, scores=scores, inverse_temperature=inverse, when=Always(), resampler=Systematic()
        )
        return jnp.zeros(5).at[chosen.ancestors].add(jnp.exp(chosen.log_weights))

    found = np.asarray(jax.vmap(copies)(jr.split(jr.key(1), 20_000)), float)
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - np.exp(log_weights)) <= 5 * error + 1e-4).all()


def test_selection_without_need_changes_nothing():
    log_weights = jnp.log(jnp.array([1.0, 2.0, 1.5]))
    chosen = select(log_weights, key=jr.key(0), when=EssBelow(0.5), resampler=Systematic())
    np.testing.assert_array_equal(chosen.ancestors, [0, 1, 2])
    np.testing.assert_array_equal(chosen.log_weights, log_weights)
    assert not bool(chosen.resampled)


def test_a_guess_of_zero_loses_no_particle():
    log_weights, scores = jnp.zeros(4), jnp.array([0.0, -jnp.inf, 0.0, -jnp.inf])

    def mean(key):
        chosen = select(log_weights, key=key, scores=scores, when=Always(), resampler=Systematic())
        return log_mean(chosen.log_weights), jnp.any(chosen.ancestors == 1)

    means, kept = jax.vmap(mean)(jr.split(jr.key(0), 100_000))
    assert 0 < float(jnp.mean(kept)) < 0.01
    found = np.exp(np.asarray(means, float))
    assert abs(found.mean() - 1) <= 4.5 * found.std() / np.sqrt(len(found))


# Models of other kinds


def test_states_that_are_discrete_or_named():
    found = run_filter(ParticleFilter(64), Bootstrap(Chain(), SIGNAL), key=jr.key(0))
    assert found.state.particles.dtype == jnp.int32

    class Pair(FeynmanKac):
        @property
        def num_steps(self):
            return 3

        def start(self, *, key):
            return {"count": jnp.zeros((), int), "place": jr.normal(key, (2,))}

        def log_start(self, x):
            return -jnp.sum(x["place"] ** 2)

        def move(self, t, before, *, key):
            return {"count": before["count"] + 1, "place": before["place"] + jr.normal(key, (2,))}

        def log_potential(self, t, before, x):
            return -jnp.sum(x["place"] ** 2)

    draws = posterax.sample(ParticleFilter(16, paths=True), Pair(), num_chains=2, key=jr.key(0), progress=False)
    assert draws["count"].shape == (2, 16, 3)
    assert draws["place"].shape == (2, 16, 3, 2)
    np.testing.assert_array_equal(draws["count"], np.broadcast_to([0, 1, 2], (2, 16, 3)))
    assert draws.stats["place_mean"].shape == (2, 3, 2)


@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (100_001,)])
def test_normal_numbers_are_jaxs(shape):
    for seed in range(3):
        np.testing.assert_allclose(
            normal(jr.key(seed), shape, jnp.float32), jr.normal(jr.key(seed), shape), rtol=1e-6, atol=1e-7
        )
    other = jr.key(0, impl="rbg")
    np.testing.assert_array_equal(normal(other, shape, jnp.float32), jr.normal(other, shape))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(normal(jr.key(0), shape, jnp.float64), jr.normal(jr.key(0), shape, jnp.float64))
