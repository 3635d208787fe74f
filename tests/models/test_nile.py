import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from scipy.optimize import minimize
from scipy.stats import halfnorm, multivariate_normal


@pytest.fixture(scope="module")
def problem():
    return pm.nile()


def _dense_log_likelihood(y, sigma_obs, sigma_level, level_mean, level_sd):
    steps = np.arange(len(y))
    cov = level_sd**2 + sigma_level**2 * np.minimum.outer(steps, steps) + sigma_obs**2 * np.eye(len(y))
    return multivariate_normal(np.full(len(y), level_mean), cov).logpdf(y)


def test_the_data_are_those_of_durbin_and_koopman(problem):
    assert problem.observed.shape == problem.years.shape == (100,)
    assert problem.observed.sum() == 91_935
    assert (problem.years[0], problem.years[-1]) == (1871, 1970)
    # The year the Aswan dam was begun ends the high flows; 1913 is the driest of all.
    assert problem.years[problem.observed.argmin()] == 1913
    assert problem.observed.min() == 456


@pytest.mark.parametrize(("sigma_obs", "sigma_level"), [(120.0, 40.0), (30.0, 150.0), (200.0, 0.5)])
def test_the_likelihood_is_the_density_of_the_joint_gaussian(float64, problem, sigma_obs, sigma_level):
    y = problem.observed
    truth = _dense_log_likelihood(y, sigma_obs, sigma_level, 1000.0, 500.0)
    numpy = pm.local_level_log_likelihood(y, sigma_obs, sigma_level, level_mean=1000.0, level_sd=500.0)
    np.testing.assert_allclose(numpy, truth, rtol=1e-10)
    u = problem.target.unconstrain({"sigma_obs": sigma_obs, "sigma_level": sigma_level})
    pointwise = problem.target.log_likelihood(u)["flow"]
    assert pointwise.shape == (100,)
    np.testing.assert_allclose(pointwise.sum(), truth, rtol=1e-10)
    prior = halfnorm.logpdf(sigma_obs, scale=200.0) + halfnorm.logpdf(sigma_level, scale=100.0)
    density = problem.target.log_density(u) - problem.target.log_jacobian(u)
    np.testing.assert_allclose(density, truth + prior, rtol=1e-10)
    # One term a year, each given the years before it.
    early = _dense_log_likelihood(y[:40], sigma_obs, sigma_level, 1000.0, 500.0)
    np.testing.assert_allclose(pointwise[:40].sum(), early, rtol=1e-10)


def test_the_scalar_filter_is_the_general_one(float64, problem):
    y = problem.observed
    mean, sd = pm.local_level_predictions(y, 120.0, 40.0, level_mean=1000.0, level_sd=500.0)
    general = pm.LinearGaussianStateSpace([1000.0], [[500.0**2]], [[1.0]], [[40.0**2]], [[1.0]], [[120.0**2]]).filter(
        y[:, None]
    )
    np.testing.assert_allclose(mean, general.observed_mean[:, 0], rtol=1e-12)
    np.testing.assert_allclose(sd**2, general.observed_cov[:, 0, 0], rtol=1e-12)


def test_maximum_likelihood_is_that_of_durbin_and_koopman(problem):
    def fit(**level):
        def loss(log_sigmas):
            return -pm.local_level_log_likelihood(problem.observed, *np.exp(log_sigmas), **level)

        found = minimize(loss, np.log([100.0, 50.0]), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
        return np.exp(2 * found.x)

    # As they print them, with the diffuse likelihood: variances 15099 and 1469.1.
    diffuse = fit(level_mean=0.0, level_sd=1e6, diffuse=True)
    np.testing.assert_allclose(diffuse, [15099, 1469.1], rtol=1e-4)
    # Our first level is not quite diffuse; that moves both by less than 1 %.
    np.testing.assert_allclose(fit(level_mean=1000.0, level_sd=500.0), [15099, 1469.1], rtol=0.01)


def test_the_answer_is_the_integral_of_the_target(float64, problem):
    # The target itself, on another grid: Gauss-Legendre on the unconstrained logs, through the JAX filter.
    nodes, weights = np.polynomial.legendre.leggauss(60)

    def rule(low, high):
        middle, half = (np.log(high) + np.log(low)) / 2, (np.log(high) - np.log(low)) / 2
        return middle + half * nodes, half * weights

    (u_obs, w_obs), (u_level, w_level) = rule(40.0, 300.0), rule(2.0, 300.0)
    u = {
        "sigma_obs": jnp.repeat(jnp.asarray(u_obs), nodes.size),
        "sigma_level": jnp.tile(jnp.asarray(u_level), nodes.size),
    }
    # Positive sites are moved by exp, so that u is the log; held here because the rule above relies on it.
    at = problem.target.unconstrain({"sigma_obs": 2.0, "sigma_level": 3.0})
    np.testing.assert_allclose([at["sigma_obs"], at["sigma_level"]], np.log([2.0, 3.0]), rtol=1e-12)
    log_density = np.asarray(jax.jit(jax.vmap(problem.target.log_density))(u))
    mass = np.exp(log_density + 640) * np.outer(w_obs, w_level).ravel()
    np.testing.assert_allclose(problem.log_evidence, np.log(mass.sum()) - 640, rtol=0, atol=1e-5)
    for name in ("sigma_obs", "sigma_level"):
        sigma = np.exp(np.asarray(u[name]))
        mean = (mass * sigma).sum() / mass.sum()
        np.testing.assert_allclose(problem.mean[name], mean, rtol=1e-5)
        sd = np.sqrt((mass * (sigma - mean) ** 2).sum() / mass.sum())
        np.testing.assert_allclose(problem.sd[name], sd, rtol=1e-4)


def test_the_answer_does_not_depend_on_the_number_of_nodes(problem):
    fine = pm.nile_exact(problem.observed, num_nodes=350)
    for name in fine.mean:
        np.testing.assert_allclose(problem.mean[name], fine.mean[name], rtol=1e-8)
        np.testing.assert_allclose(problem.sd[name], fine.sd[name], rtol=1e-7)
    np.testing.assert_allclose(problem.log_evidence, fine.log_evidence, rtol=1e-10)


def test_axes_are_years_and_gradients_are_finite_in_float32(problem):
    target = problem.target
    assert target.labels.dims == {"flow": ["time"]}
    np.testing.assert_array_equal(target.labels.coords["time"], problem.years)
    values = {"sigma_obs": 120.0, "sigma_level": 40.0}
    gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(target.log_density))(target.unconstrain(values)))
    with jax.enable_x64(True):
        truth = jax.jit(jax.grad(target.log_density))(target.unconstrain(values))
    for name in values:
        np.testing.assert_allclose(gradient[name], truth[name], rtol=1e-3, atol=1e-3)
    assert target.sample_predictive({"sigma_obs": 120.0, "sigma_level": 40.0}, key=jr.key(0))["flow"].shape == (100,)
