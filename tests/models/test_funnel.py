import jax
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm


def test_the_target_is_neals_density(float64):
    problem = pm.NealsFunnel(4)
    for seed in range(4):
        u = problem.target.initial(key=jr.key(seed))
        truth = norm.logpdf(u["v"], 0, 3) + norm.logpdf(u["x"], 0, np.exp(u["v"] / 2)).sum()
        np.testing.assert_allclose(problem.target.log_density(u), truth, rtol=1e-12)
        np.testing.assert_allclose(problem.target.log_prior(u), truth, rtol=1e-12)
        assert problem.target.log_likelihood(u) == {}
    assert problem.target.structure.latent == {"v": (), "x": (3,)}


@pytest.mark.parametrize("x", [-40.0, -1.0, 0.0, 0.02, 3.0, 300.0])
def test_the_marginal_of_x_is_the_integral_over_v(x):
    def integrand(v):
        return norm.pdf(v, 0, 3) * norm.cdf(x * np.exp(-v / 2))

    truth = quad(integrand, -25, 25, epsabs=1e-13, limit=500, points=[0.0])[0]
    np.testing.assert_allclose(pm.NealsFunnel().x_cdf(x), truth, rtol=0, atol=1e-9)


def test_the_sd_of_x_is_the_integral_over_v(float64):
    square = quad(lambda v: norm.pdf(v, 0, 3) * np.exp(v), -40, 60, epsabs=1e-10, points=[9.0])[0]
    np.testing.assert_allclose(pm.NealsFunnel(3).sd["x"], np.sqrt([square, square]), rtol=1e-9)


def test_exact_draws_have_the_exact_law(assert_mean):
    # 20,000 draws, three Kolmogorov-Smirnov tests at 1e-6 each: false alarm 3e-6; a distribution function off
    # by 0.04 anywhere is caught for sure. Squares of x / exp(v/2) (10 standard errors = 10 %) tie x to v.
    problem = pm.NealsFunnel(5)
    draws = jax.vmap(lambda key: problem.sample(key=key))(jr.split(jr.key(0), 20_000))
    v, x = np.asarray(draws["v"]), np.asarray(draws["x"])
    assert kstest(v, problem.v_cdf).pvalue > 1e-6
    assert kstest(x[:, 0], problem.x_cdf).pvalue > 1e-6
    assert kstest(x[:, 3], problem.x_cdf).pvalue > 1e-6
    z = x / np.exp(v / 2)[:, None]
    assert_mean(z, 0.0)
    assert_mean(z**2, 1.0)
    assert_mean(z[:, 0] * z[:, 1], 0.0)
    assert_mean((z**2 - 1) * v[:, None], 0.0)


def test_the_prior_of_the_target_is_the_funnel():
    problem = pm.NealsFunnel(3)
    draws = jax.jit(jax.vmap(lambda key: problem.target.sample_prior(key=key)))(jr.split(jr.key(1), 10_000))
    assert kstest(np.asarray(draws["v"]), problem.v_cdf).pvalue > 1e-6
    assert kstest(np.asarray(draws["x"][:, 0]), problem.x_cdf).pvalue > 1e-6


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="`dim` must be at least 2"):
        pm.NealsFunnel(1)
    with pytest.raises(ValueError, match="`v_sd` must be positive"):
        pm.NealsFunnel(v_sd=-1.0)
