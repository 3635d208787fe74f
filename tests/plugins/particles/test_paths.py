"""Whole paths: smoothing, conditional sweeps on an enumerated law, states and parameters of a model."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import posterax
import pytest
from jaxtyping import Array
from posterax import EssBelow
from posterax_numpyro import HMC, NUTS
from posterax_particles import (
    Bootstrap,
    ParticleFilter,
    ParticleGibbs,
    ParticleMarginal,
    conditional_sweep,
    forecast,
    run_filter,
    smooth,
    state_space_target,
)
from posterax_particles._conditional import conditional_run
from scipy import stats

from models import DECAY, INITIAL, LEVELS, MOVES, NOISE_SD, SIGNAL, STEP_SD, WALK, Chain, Walk, chain, kalman

# Smoothing


def test_backward_paths_are_kalmans():
    model = Bootstrap(Walk(), WALK)
    found = run_filter(ParticleFilter(4000, when=EssBelow(0.5), paths=True), model, key=jr.key(0))
    paths = smooth(found, model, 2000, key=jr.key(1))
    exact = kalman().smooth(WALK[:, None])
    assert paths.shape == (2000, len(WALK))
    # Standard errors: 0.011 of 2,000 paths, and as much of the filter's 4,000 particles.
    np.testing.assert_allclose(paths.mean(axis=0), exact.mean[:, 0], atol=0.06)
    np.testing.assert_allclose(paths.std(axis=0), np.sqrt(exact.cov[:, 0, 0]), atol=0.05)


def test_genealogies_are_the_smoothing_law_too_but_share_their_ancestors():
    model = Bootstrap(Walk(), WALK)
    draws = posterax.sample(ParticleFilter(500, paths=True), model, num_chains=40, key=jr.key(0), progress=False)
    exact = kalman().smooth(WALK[:, None])
    np.testing.assert_allclose(draws.mean()["states"], exact.mean[:, 0], atol=0.06)
    distinct = [len(np.unique(draws["states"][0, :, t])) for t in (0, len(WALK) - 1)]
    assert distinct[0] < 100 < distinct[1]


def test_backward_paths_of_a_chain_are_those_of_the_forward_backward_recursion():
    model = Bootstrap(Chain(), SIGNAL)
    found = run_filter(ParticleFilter(4000, paths=True), model, key=jr.key(0))
    paths = np.asarray(smooth(found, model, 4000, key=jr.key(1)))
    shares = np.stack([(paths == k).mean(axis=0) for k in range(3)], axis=1)
    np.testing.assert_allclose(shares, chain().smooth(SIGNAL).probs, atol=0.05)


# Conditional sweeps: an enumerated law of 81 paths is left as it is


SHORT = jnp.array([-0.5, 0.6, 1.2, 1.0])
PATHS = np.array(list(itertools.product(range(3), repeat=4)))


@pytest.fixture(scope="module")
def law():
    moves = np.asarray(MOVES, float)
    log = np.where(moves == 0, -np.inf, np.log(np.where(moves == 0, 1, moves)))
    density = stats.norm.logpdf(np.asarray(SHORT)[None, :], np.asarray(LEVELS)[PATHS], NOISE_SD).sum(axis=1)
    joint = np.log(np.asarray(INITIAL))[PATHS[:, 0]] + log[PATHS[:, :-1], PATHS[:, 1:]].sum(axis=1) + density
    law = np.exp(joint - joint.max())
    return law / law.sum()


def swept(law, num_particles, ancestor_sampling, sweep=conditional_sweep):
    """Counts of 1e5 exact draws after one sweep each."""
    start = np.random.default_rng(0).choice(len(PATHS), size=100_000, p=law)
    model = Bootstrap(Chain(), SHORT)

    @jax.jit
    @jax.vmap
    def one(path, key):
        return sweep(model, path, num_particles, key=key, ancestor_sampling=ancestor_sampling)

    ends = np.asarray(one(jnp.asarray(PATHS[start], jnp.int32), jr.split(jr.key(1), len(start))))
    return np.bincount(ends @ [27, 9, 3, 1], minlength=len(PATHS)), (ends != PATHS[start]).any(axis=1).mean()


def p_value(counts, law):
    """Of a chi-square test; rare paths are taken together."""
    rare = law * counts.sum() < 20
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(law[~rare], law[rare].sum()) * counts.sum()
    return stats.chisquare(observed, expected).pvalue


@pytest.mark.parametrize("ancestor_sampling", [False, True])
@pytest.mark.parametrize("num_particles", [2, 5])
def test_a_conditional_sweep_leaves_the_law_of_paths_as_it_is(law, num_particles, ancestor_sampling):
    # False alarms: one in 1e5 a case. Law and moves have zeros in them. Power: the next test.
    counts, moved = swept(law, num_particles, ancestor_sampling)
    assert counts[law == 0].sum() == 0
    assert p_value(counts, law) > 1e-5
    assert moved > 0.1


def test_the_same_test_finds_a_filter_that_ignores_the_reference(law):
    def ignoring(model, reference, num_particles, *, key, ancestor_sampling):
        found = run_filter(ParticleFilter(num_particles, paths=True, moments=False), model, key=key)
        paths, log_weights, _ = ParticleFilter(num_particles, paths=True).population(found.state)
        return paths["states"][jr.categorical(key, log_weights)]

    assert p_value(swept(law, 5, False, ignoring)[0], law) < 1e-9


def test_ancestor_sampling_renews_early_states():
    model = Bootstrap(Walk(), jnp.tile(WALK, 8))
    reference = jnp.zeros(80)
    renewed = {}
    for ancestor_sampling in (False, True):
        paths = jax.vmap(
            lambda k, a=ancestor_sampling: conditional_sweep(model, reference, 8, key=k, ancestor_sampling=a)
        )(jr.split(jr.key(0), 100))
        renewed[ancestor_sampling] = float(jnp.mean(paths[:, :10] != 0))
    assert renewed[True] > 0.8
    assert renewed[False] < 0.4


# States and parameters together


def walk_model():
    return Walk(numpyro.sample("step_sd", dist.LogNormal(-0.5, 0.5)))


@pytest.fixture(scope="module")
def exact_step_sd():
    """Mean and sd of the parameter, by quadrature on its logarithm with Kalman's likelihood."""
    grid = jnp.linspace(-3.5, 2.0, 300)
    log_likelihood = jax.vmap(lambda t: kalman(jnp.exp(t)).log_likelihood(WALK[:, None]))(grid)
    log_weight = np.asarray(log_likelihood + dist.Normal(-0.5, 0.5).log_prob(grid), float)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    values = np.exp(np.asarray(grid, float))
    mean = weight @ values
    return mean, np.sqrt(weight @ values**2 - mean**2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        ParticleGibbs(num_particles=15, num_warmup=300),
        ParticleGibbs(num_particles=40, num_warmup=300, ancestor_sampling=False),
        ParticleGibbs(num_particles=15, num_warmup=300, moves=HMC(num_warmup=0, step_size=0.3, trajectory_length=0.6)),
        ParticleMarginal(num_warmup=500),
        NUTS(num_warmup=500, target_accept=0.95),
    ],
    ids=["gibbs", "gibbs without ancestor sampling", "gibbs with HMC", "marginal", "nuts"],
)
def test_parameters_and_states_have_their_exact_posterior(sampler, exact_step_sd):
    target = state_space_target(walk_model, WALK)
    draws = posterax.sample(sampler, target, num_draws=2500, num_chains=4, key=jr.key(0), progress=False)
    table = draws.summary()
    assert table["r_hat"].max() < 1.03
    mean, sd = exact_step_sd
    error = table["mcse_mean"]["step_sd"]
    assert error < 0.1 * sd
    assert abs(table["mean"]["step_sd"] - mean) < 4.5 * error
    assert table["sd"]["step_sd"] == pytest.approx(sd, rel=0.25)


@pytest.mark.parametrize("sampler", [ParticleGibbs(num_particles=5), ParticleMarginal()], ids=["gibbs", "marginal"])
def test_a_chain_starts_from_the_path_it_is_given(sampler):
    # What `Move` relies on: a draw of the posterior must be where its chain begins.
    target = state_space_target(walk_model, WALK)
    position = target.unconstrain({"step_sd": 0.4, "states": 0.1 * jnp.arange(10.0)})
    start = sampler.position(sampler.init(target, position, key=jr.key(0)))
    jax.tree.map(np.testing.assert_array_equal, start, position)


def test_the_evidence_of_a_conditional_run_is_inflated_as_it_should_be():
    # E[1 / Z] = 1 / Z where the reference is a draw of the posterior: the conditional run has the law of the filter
    # weighted by its evidence.
    law, model = kalman(), Bootstrap(Walk(), WALK)
    keys = jr.split(jr.key(0), (4000, 2))

    def inverse(keys):
        path = law.sample_path(WALK[:, None], key=keys[0])[:, 0]
        return -conditional_run(model, path, 64, key=keys[1], ancestor_sampling=False)[1]

    exact = float(law.log_likelihood(WALK[:, None]))
    found = np.exp(np.asarray(jax.vmap(inverse)(keys), float) + exact)
    assert abs(found.mean() - 1) < 4.5 * found.std() / np.sqrt(len(found))
    assert np.exp(-np.log(found)).mean() - 1 > 0.01  # and Z itself is too large


def test_states_alone_by_particle_gibbs():
    target = state_space_target(Walk(), WALK)
    sampler = ParticleGibbs(num_particles=15, num_warmup=0)
    draws = posterax.sample(sampler, target, num_draws=1500, num_chains=4, key=jr.key(0), progress=False)
    exact = kalman().smooth(WALK[:, None])
    np.testing.assert_allclose(draws.mean()["states"], exact.mean[:, 0], atol=0.06)
    np.testing.assert_allclose(draws.sd()["states"], np.sqrt(exact.cov[:, 0, 0]), atol=0.05)
    tree = draws.to_datatree(target, log_likelihood=True, posterior_predictive=True, prior=10, key=jr.key(1))
    assert tree["log_likelihood"]["observed"].shape == (4, 1500, len(WALK))
    assert tree["posterior_predictive"]["observed"].shape == (4, 1500, len(WALK))
    np.testing.assert_array_equal(tree["observed_data"]["observed"], WALK)


def test_the_joint_density_is_that_of_states_parameters_and_observations():
    target = state_space_target(walk_model, WALK.at[3].set(jnp.nan))
    states, step_sd = 0.3 * jnp.arange(10.0), 0.6
    u = target.unconstrain({"step_sd": step_sd, "states": states})
    by_hand = (
        stats.lognorm.logpdf(step_sd, 0.5, scale=np.exp(-0.5))
        + stats.norm.logpdf(states[0])
        + stats.norm.logpdf(states[1:], DECAY * states[:-1], step_sd).sum()
        + np.delete(stats.norm.logpdf(WALK, states, NOISE_SD), 3).sum()
    )
    assert float(target.log_density(u) - target.log_jacobian(u)) == pytest.approx(by_hand, rel=1e-5)
    assert float(target.log_likelihood(u)["observed"][3]) == 0
    assert STEP_SD == Walk().step_sd


# What depends on time is asked for at the right time


class Seasonal(Walk):
    """Drift and noise that change; the first drift must never be used."""

    drift: Array = eqx.field(default_factory=lambda: jnp.array([99.0, 1.0, -2.0, 3.0, 0.5, -1.5, 7.0]))
    noise_sd: Array = eqx.field(default_factory=lambda: jnp.array([0.3, 1.0, 0.2, 0.5, 2.0, 0.4, 0.1]))

    def transition(self, t, x):
        return dist.Normal(DECAY * x + self.drift[t], STEP_SD)

    def emission(self, t, x):
        return dist.Normal(x, self.noise_sd[t])


def seasonal_law(num_steps):
    """Mean and covariance of the first states."""
    model, mean, covariance = Seasonal(), [0.0], np.eye(num_steps)
    for t in range(1, num_steps):
        mean.append(DECAY * mean[-1] + float(model.drift[t]))
        covariance[t, :t] = covariance[:t, t] = DECAY * covariance[t - 1, :t]
        covariance[t, t] = DECAY**2 * covariance[t - 1, t - 1] + STEP_SD**2
    return np.array(mean), covariance


def test_what_depends_on_time_is_asked_for_at_the_right_time():
    model, seen = Seasonal(), jnp.array([0.2, 1.5, -1.0, 2.5, 3.1])
    mean, covariance = seasonal_law(7)
    noise = np.diag(np.asarray(model.noise_sd[:5], float) ** 2)
    found = run_filter(ParticleFilter(20_000, paths=True), Bootstrap(model, seen), key=jr.key(0))
    exact = stats.multivariate_normal.logpdf(np.asarray(seen, float), mean[:5], covariance[:5, :5] + noise)
    assert float(found.log_evidence) == pytest.approx(exact, abs=0.06)
    gain = covariance[:, :5] @ np.linalg.inv(covariance[:5, :5] + noise)
    posterior = mean + gain @ (np.asarray(seen, float) - mean[:5])
    paths = smooth(found, Bootstrap(model, seen), 1000, key=jr.key(1))
    np.testing.assert_allclose(paths.mean(axis=0), posterior[:5], atol=0.08)
    states, _ = forecast(found, model, steps=2, num=4000, key=jr.key(2))
    np.testing.assert_allclose(states.mean(axis=0), posterior[5:], atol=0.08)
    drawn, _ = jax.vmap(lambda key: model.simulate(num_steps=7, key=key))(jr.split(jr.key(3), 4000))
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.1)

    target = state_space_target(model, seen)
    states = np.array([0.1, 1.0, -0.5, 2.0, 2.5])
    by_hand = (
        stats.multivariate_normal.logpdf(states, mean[:5], covariance[:5, :5])
        + stats.norm.logpdf(np.asarray(seen), states, np.asarray(model.noise_sd[:5])).sum()
    )
    assert float(target.log_density({"states": jnp.asarray(states)})) == pytest.approx(by_hand, rel=1e-4)
    swept = jax.vmap(lambda key: conditional_sweep(Bootstrap(model, seen), jnp.asarray(states), 30, key=key))(
        jr.split(jr.key(4), 2000)
    )
    np.testing.assert_allclose(swept.mean(axis=0), posterior[:5], atol=0.15)
