import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from scipy.stats import multivariate_normal

Y = np.array([1.3, -0.4, 2.2, 0.9])


def _problem():
    return pm.ConjugateNormal(Y, noise_sd=0.7, prior_mean=-0.3, prior_sd=1.6)


def test_the_evidence_is_the_density_of_the_joint_gaussian(float64):
    cov = 0.7**2 * np.eye(4) + 1.6**2
    truth = multivariate_normal(np.full(4, -0.3), cov).logpdf(Y)
    np.testing.assert_allclose(_problem().log_evidence, truth, rtol=1e-12)


def test_the_posterior_is_that_of_the_joint_gaussian(float64):
    cov = 0.7**2 * np.eye(4) + 1.6**2
    gain = np.linalg.solve(cov, np.full(4, 1.6**2))
    problem = _problem()
    np.testing.assert_allclose(problem.mean["mu"], -0.3 + gain @ (Y + 0.3), rtol=1e-12)
    np.testing.assert_allclose(problem.sd["mu"], np.sqrt(1.6**2 - gain @ np.full(4, 1.6**2)), rtol=1e-12)


def test_the_target_is_evidence_times_posterior(float64):
    problem = _problem()
    for mu in np.linspace(-3.0, 4.0, 7):
        u = problem.target.unconstrain({"mu": mu})
        truth = problem.log_evidence + problem.posterior.log_prob(mu)
        np.testing.assert_allclose(problem.target.log_density(u), truth, rtol=1e-11)
    assert problem.target.log_likelihood(u)["y"].shape == (4,)
    assert problem.target.labels.dims == {"y": ["observation"]}


def test_simulated_pairs_have_the_law_of_the_model(assert_standard_normal):
    # 20,000 replicates, 20 statistics at 5 standard errors: false alarm 1e-5; a mean off by 7 % of its sd, or
    # a variance by 10 %, is caught for sure.
    problem = _problem()
    theta, y = jax.vmap(lambda key: problem.simulate(key=key))(jr.split(jr.key(0), 20_000))
    joint = np.column_stack([theta["mu"], y]).astype(np.float64)
    spread = np.concatenate([[1.6], np.full(4, 1.6)])
    cov = np.outer(spread, spread) + np.diag([0.0, *np.full(4, 0.7**2)])
    assert_standard_normal(np.linalg.solve(np.linalg.cholesky(cov), (joint + 0.3).T).T)


def test_everything_holds_under_vmap_and_replace(float64):
    data = np.stack([Y, 2 * Y, Y**2])
    together = jax.vmap(lambda y: dataclasses.replace(_problem(), observed=y).log_evidence)(data)
    apart = [dataclasses.replace(_problem(), observed=y).log_evidence for y in data]
    np.testing.assert_allclose(together, apart, rtol=1e-12)
    gradient = jax.grad(lambda y: dataclasses.replace(_problem(), observed=y).log_evidence)(jnp.asarray(Y))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", ["noise_sd", "prior_sd"])
def test_impossible_settings_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"`{name}` must be positive"):
        pm.ConjugateNormal(Y, **{name: 0.0})
    with pytest.raises(ValueError, match=f"`{name}` must have shape"):
        pm.ConjugateNormal(Y, **{name: [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"`observed` must have shape \(n,\); got \(2, 2\)"):
        pm.ConjugateNormal(Y.reshape(2, 2))
    with pytest.raises(ValueError, match="`observed`"):
        pm.ConjugateNormal([])
