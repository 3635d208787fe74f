import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from scipy.stats import kstest, multivariate_normal, norm

_evaluate = eqx.filter_jit(lambda target, u: (target.log_density(u), target.log_prior(u), target.log_likelihood(u)))


def _problem():
    return pm.BimodalMixture([1.2, -0.7], weight=0.7, prior_sd=1.5, noise_sd=0.6)


def test_the_target_is_the_model_in_words(float64):
    problem, y = _problem(), np.array([1.2, -0.7])
    for seed in range(4):
        u = problem.target.initial(key=jr.key(seed))
        x = np.asarray(u["x"])
        prior = norm.logpdf(x, 0, 1.5).sum()
        likelihood = np.log(0.7 * norm.pdf(y, x, 0.6).prod() + 0.3 * norm.pdf(y, -x, 0.6).prod())
        _, log_prior, pointwise = _evaluate(problem.target, u)
        np.testing.assert_allclose(log_prior, prior, rtol=1e-12)
        np.testing.assert_allclose(pointwise["y"], likelihood, rtol=1e-12)


def test_the_target_is_evidence_times_posterior(float64):
    problem = _problem()
    for seed in range(4):
        u = problem.target.initial(key=jr.key(seed))
        truth = problem.log_evidence + problem.posterior.log_prob(u["x"])
        np.testing.assert_allclose(_evaluate(problem.target, u)[0], truth, rtol=1e-12)


def test_the_answers_are_integrals_of_the_target(float64):
    # The trapezium rule over the plane; it converges geometrically for Gaussians.
    problem = _problem()
    line = np.linspace(-6.0, 6.0, 161)
    plane = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    log_density = jax.jit(jax.vmap(lambda x: problem.target.log_density({"x": x})))(plane)
    mass = np.exp(np.asarray(log_density)) * (line[1] - line[0]) ** 2
    np.testing.assert_allclose(problem.log_evidence, np.log(mass.sum()), rtol=1e-10)
    mean = mass @ plane / mass.sum()
    np.testing.assert_allclose(problem.mean["x"], mean, rtol=1e-9)
    np.testing.assert_allclose(problem.sd["x"], np.sqrt(mass @ (plane - mean) ** 2 / mass.sum()), rtol=1e-9)


def test_exact_draws_have_the_exact_law(assert_mean, assert_standard_normal):
    # 20,000 draws, 20 statistics at 5 standard errors: false alarm 1e-5; a mode weight off by 0.03 is caught
    # for sure.
    problem = pm.BimodalMixture()
    x = jax.jit(jax.vmap(lambda key: problem.sample(key=key)["x"]))(jr.split(jr.key(0), 20_000))
    mode = np.asarray(jax.vmap(problem.which_mode)(x))
    assert_mean(mode == 0, problem.mode_weights[0])
    for k in range(2):
        assert_standard_normal((x[mode == k] - problem.mode_means[k]) / problem.mode_sd)
    assert_mean(x, problem.mean["x"])
    assert_mean((x - problem.mean["x"]) ** 2, problem.sd["x"] ** 2)


def test_the_default_modes_are_far_apart():
    problem = pm.BimodalMixture()
    apart = np.linalg.norm(problem.mode_means[0] - problem.mode_means[1]) / problem.mode_sd
    np.testing.assert_allclose(apart, 16.56, atol=0.01)
    np.testing.assert_allclose(problem.mode_weights, [0.75, 0.25])


def test_simulated_pairs_have_the_law_of_the_model(assert_mean):
    # 20,000 replicates. Given y, the posterior CDF at the drawn x is uniform: a Kolmogorov-Smirnov test at
    # 1e-6, which catches a distribution function off by 0.04. The data have the law that the evidence says.
    problem = _problem()
    theta, y = jax.jit(jax.vmap(lambda key: problem.simulate(key=key)))(jr.split(jr.key(1), 20_000))
    x, y = np.asarray(theta["x"]), np.asarray(y)
    center, sd = y * 1.5**2 / (1.5**2 + 0.6**2), 1.5 * 0.6 / np.sqrt(1.5**2 + 0.6**2)
    ranks = 0.7 * norm.cdf(x, center, sd) + 0.3 * norm.cdf(x, -center, sd)
    assert kstest(ranks[:, 0], "uniform").pvalue > 1e-6
    assert kstest(ranks[:, 1], "uniform").pvalue > 1e-6
    spread = np.sqrt(1.5**2 + 0.6**2)
    assert kstest(y[:, 0] / spread, "norm").pvalue > 1e-6
    truth = multivariate_normal(np.zeros(2), spread**2 * np.eye(2)).logpdf([1.2, -0.7])
    np.testing.assert_allclose(problem.log_evidence, truth, rtol=1e-6)
    # Both entries share one sign: the product of two entries' agreement has mean (2 w - 1)^2 otherwise.
    assert_mean(x[:, 0] * y[:, 0] * x[:, 1] * y[:, 1], 1.5**4)


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="`1 - weight` must be positive"):
        pm.BimodalMixture(weight=1.0)
    with pytest.raises(ValueError, match="`noise_sd` must be positive"):
        pm.BimodalMixture(noise_sd=0.0)
    with pytest.raises(ValueError, match=r"`observed` must have shape \(d,\)"):
        pm.BimodalMixture([[1.0]])
