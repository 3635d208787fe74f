"""Tempered sequential Monte Carlo, importance sampling and the random walk against exact posteriors."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import posterax
import pytest
from posterax import Draw, Infer, Move, Target, weights
from posterax._whitened import whitened
from posterax_models import BimodalMixture, ConjugateNormal
from posterax_numpyro import HMC, NUTS, SVI
from posterax_particles import Importance, RandomWalk, TemperedSMC
from scipy import stats

BIMODAL = BimodalMixture()


@pytest.fixture(scope="module")
def tempered():
    return posterax.sample(TemperedSMC(500), BIMODAL.target, num_chains=20, key=jr.key(0), progress=False)


def test_evidence_of_two_modes(tempered):
    ratio = np.exp(tempered.log_evidence.astype(float) - float(BIMODAL.log_evidence))
    error = ratio.std(ddof=1) / np.sqrt(len(ratio))
    assert error < 0.1
    assert abs(ratio.mean() - 1) < 5 * error


def test_both_modes_have_their_weight(tempered):
    # One population splits about binomially at low temperature: 500 particles, 20 populations.
    shares = np.mean(tempered["x"].sum(axis=-1) > 0, axis=1)
    assert abs(shares.mean() - 0.75) < 5 * shares.std(ddof=1) / np.sqrt(20)
    assert shares.std(ddof=1) < 0.1
    np.testing.assert_allclose(tempered.sd()["x"], BIMODAL.sd["x"], rtol=0.05)


def test_temperatures_ascend_to_one_and_keep_the_effective_sample_size(tempered):
    beta, ess = tempered.stats["inverse_temperature"], tempered.stats["ess"]
    for row, sizes in zip(beta, ess, strict=True):
        steps = int(np.argmax(row == 1)) + 1
        assert steps > 2
        assert (np.diff(row[:steps]) > 0).all()
        np.testing.assert_allclose(sizes[: steps - 1], 250, rtol=0.02)
        assert sizes[steps - 1] >= 250 * 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "moves", [HMC(num_warmup=0, step_size=0.5, trajectory_length=1.5), NUTS(num_warmup=0, step_size=0.5)]
)
def test_moves_by_other_samplers(moves):
    sampler = TemperedSMC(300, moves=moves, num_moves=2)
    draws = posterax.sample(sampler, BIMODAL.target, num_chains=8, key=jr.key(1), progress=False)
    ratio = np.exp(draws.log_evidence.astype(float) - float(BIMODAL.log_evidence))
    assert abs(ratio.mean() - 1) < 5 * ratio.std(ddof=1) / np.sqrt(len(ratio))
    np.testing.assert_allclose(draws.sd()["x"], BIMODAL.sd["x"], rtol=0.1)


@pytest.mark.slow
def test_a_fixed_ladder_is_climbed():
    ladder = jnp.array([0.01, 0.1, 0.4, 1.0])
    sampler = TemperedSMC(500, inverse_temperatures=ladder)
    draws = posterax.sample(sampler, BIMODAL.target, num_chains=8, key=jr.key(2), progress=False)
    np.testing.assert_allclose(draws.stats["inverse_temperature"], np.tile(ladder, (8, 1)), rtol=1e-6)
    ratio = np.exp(draws.log_evidence.astype(float) - float(BIMODAL.log_evidence))
    assert abs(ratio.mean() - 1) < 5 * ratio.std(ddof=1) / np.sqrt(len(ratio))


def test_parameters_that_are_constrained():
    def model(y):
        sd = numpyro.sample("sd", dist.InverseGamma(3.0, 2.0))
        numpyro.sample("y", dist.Normal(0.0, jnp.sqrt(sd)), obs=y)

    y = jnp.array([0.5, -1.2, 2.0, 0.3])
    draws = posterax.sample(
        TemperedSMC(2000), Target.from_numpyro(model, y), num_chains=2, key=jr.key(0), progress=False
    )
    exact = stats.invgamma(3 + 2, scale=2 + float(jnp.sum(y**2)) / 2)
    assert draws.mean()["sd"] == pytest.approx(exact.mean(), rel=0.05)
    np.testing.assert_allclose(draws.quantile([0.1, 0.5, 0.9])["sd"], exact.ppf([0.1, 0.5, 0.9]), rtol=0.06)


def test_the_whitened_space_is_the_tempered_target_seen_through_an_affine_map():
    target = Target(
        log_prior=lambda x: -0.5 * jnp.sum(x["x"] ** 2),
        log_likelihood=lambda x: -((x["x"] - 1.0) ** 4),
        like={"x": jnp.zeros(3)},
    )
    mixing = np.array([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [-1.0, 0.2, 0.1]])
    positions = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(500, 3)) @ mixing.T + 3.0, jnp.float32)}
    log_weights = jnp.log(jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(500)), jnp.float32))
    space = whitened(target, jnp.asarray(0.3), positions, log_weights)
    inner = jax.vmap(space.inward)(positions)["x"]
    weight = np.exp(np.asarray(log_weights, float))
    mean = weight @ np.asarray(inner, float)
    np.testing.assert_allclose(mean, 0, atol=1e-3)
    np.testing.assert_allclose((weight[:, None] * (inner - mean)).T @ (inner - mean), np.eye(3), atol=0.02)
    np.testing.assert_allclose(jax.vmap(lambda z: space.outward({"x": z}))(inner)["x"], positions["x"], atol=1e-3)
    root = np.asarray(jax.jacobian(lambda z: space.outward({"x": z})["x"])(jnp.zeros(3)), float)
    for u, z in zip(np.asarray(positions["x"][:5], float), inner[:5], strict=True):
        by_hand = -0.5 * (u**2).sum() - 0.3 * ((u - 1) ** 4).sum() + np.log(np.linalg.det(root))
        assert float(space.target.log_density({"x": z})) == pytest.approx(by_hand, rel=1e-3)


# Importance sampling


def test_importance_from_the_prior_and_from_a_better_proposal():
    problem = ConjugateNormal(jnp.array([0.4, 1.1, -0.3, 0.8]))
    better = dist.Normal(problem.mean["mu"], 1.3 * problem.sd["mu"])  # the posterior, a little wider
    found = {}
    for label, proposal in (("prior", None), ("better", better)):
        draws = posterax.sample(Importance(2000, proposal), problem.target, num_chains=8, key=jr.key(0), progress=False)
        ratio = np.exp(draws.log_evidence.astype(float) - float(problem.log_evidence))
        assert abs(ratio.mean() - 1) < 5 * ratio.std(ddof=1) / np.sqrt(8)
        found[label] = draws
    # Normal weights: 1 / E[w^2] is sqrt(2 c^2 - 1) / c^2 for a proposal c times as wide.
    share = found["better"].effective_sample_size() / 16_000
    assert share == pytest.approx(np.sqrt(2 * 1.3**2 - 1) / 1.3**2, rel=0.02)
    assert found["prior"].effective_sample_size() / 16_000 < share
    assert found["better"].pareto_k() < 0.5
    np.testing.assert_allclose(found["better"].mean()["mu"], problem.mean["mu"], atol=0.05 * problem.sd["mu"])


@pytest.mark.slow
def test_an_inferred_distribution_is_a_proposal():
    problem = ConjugateNormal(jnp.array([0.4, 1.1, -0.3, 0.8]))
    guide = SVI(num_steps=1000).fit(problem.target, key=jr.key(0)).infer(None, key=jr.key(1))
    draws = posterax.sample(Importance(2000, guide), problem.target, num_chains=4, key=jr.key(2), progress=False)
    np.testing.assert_allclose(draws.log_evidence, float(problem.log_evidence), atol=0.05)
    assert draws.pareto_k() < 0.7


def test_the_largest_weights_are_smoothed_and_the_evidence_is_not():
    target = Target(lambda x: -jnp.abs(x["x"]) * 0.5, like={"x": 0.0})  # heavier tails than the proposal
    proposal = dist.Normal(0.0, 1.0)
    raw, smooth = (
        posterax.sample(Importance(1000, proposal, on), target, num_chains=2, key=jr.key(0), progress=False)
        for on in (False, True)
    )
    np.testing.assert_array_equal(raw["x"], smooth["x"])
    assert raw.pareto_k() > 0.5
    for before, after in zip(raw.log_weights, smooth.log_weights, strict=True):
        np.testing.assert_allclose(after, weights.smooth(before)[0], rtol=1e-5)
    assert smooth.effective_sample_size() > raw.effective_sample_size()
    np.testing.assert_array_equal(raw.log_evidence, smooth.log_evidence)


# The random walk


def test_the_random_walk_learns_its_covariance():
    precision = jnp.array([[100.0, 0.0], [0.0, 0.25]])
    target = Target(lambda x: -0.5 * x["x"] @ precision @ x["x"], like={"x": jnp.zeros(2)})
    draws = posterax.sample(RandomWalk(2000), target, num_draws=4000, key=jr.key(0), progress=False)
    np.testing.assert_allclose(draws.sd()["x"], [0.1, 2.0], rtol=0.15)
    assert 0.15 < draws.stats["acceptance_rate"].mean() < 0.4
    frozen = posterax.warm_up(RandomWalk(2000), target, key=jr.key(1), progress=False)
    assert frozen.num_warmup == 0
    spread = np.sqrt(np.diagonal(frozen.scale))
    assert spread[1] / spread[0] == pytest.approx(20, rel=0.4)


@pytest.mark.slow
def test_a_frozen_walk_moves_draws_in_a_pipeline():
    problem = ConjugateNormal(jnp.array([0.4, 1.1, -0.3, 0.8]))
    walk = posterax.warm_up(RandomWalk(500), problem.target, key=jr.key(1), progress=False)
    svi = SVI(num_steps=500).fit(problem.target, key=jr.key(0))
    draws = (Infer(svi) >> Draw(500) >> Move(walk, problem.target, steps=50)).run(key=jr.key(2), progress=False)
    np.testing.assert_allclose(draws.mean()["mu"], problem.mean["mu"], atol=5 * problem.sd["mu"] / np.sqrt(500))
