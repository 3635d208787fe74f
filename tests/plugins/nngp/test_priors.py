"""Laws of the scale against scipy, closed forms and their own draws."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats
from posterax_nngp._priors import Atoms, BetaPrime, BurrXII, GeneralizedInverseGaussian


def geninvgauss(p, chi, psi):
    """Scipy's law of the same name has one parameter fewer, and a scale."""
    return stats.geninvgauss(p, np.sqrt(chi * psi), scale=np.sqrt(chi / psi))


CASES = [
    (BurrXII, (2.0, 2.0), stats.burr12(2.0, 2.0)),
    (BurrXII, (0.7, 9.0), stats.burr12(0.7, 9.0)),
    (BetaPrime, (0.5, 3.5), stats.betaprime(0.5, 3.5)),
    (GeneralizedInverseGaussian, (-0.5, 1.0, 2.0), geninvgauss(-0.5, 1.0, 2.0)),
    (GeneralizedInverseGaussian, (3.0, 0.2, 5.0), geninvgauss(3.0, 0.2, 5.0)),
]
LAWS = pytest.mark.parametrize(("cls", "parameters", "truth"), CASES, ids=lambda x: getattr(x, "__name__", ""))
VALUES = np.array([1e-3, 0.1, 0.7, 1.0, 2.5, 30.0])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@LAWS
def test_agrees_with_scipy(cls, parameters, truth):
    @jax.jit
    def facts(*parameters):
        law = cls(*parameters)
        return law.log_prob(VALUES), law.cdf(VALUES), law.mean, law.variance

    log_prob, cdf, mean, variance = facts(*parameters)
    np.testing.assert_allclose(log_prob, truth.logpdf(VALUES), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(cdf, truth.cdf(VALUES), rtol=1e-8, atol=1e-10)  # scipy integrates this one numerically
    np.testing.assert_allclose(mean, truth.mean(), rtol=1e-9)
    np.testing.assert_allclose(variance, truth.var(), rtol=1e-8)


@LAWS
@pytest.mark.slow
def test_draws_follow_the_law(cls, parameters, truth):
    draws = jax.jit(lambda law, key: law.sample(key, (2000,)))(cls(*parameters), jr.key(0))
    assert draws.shape == (2000,)
    assert stats.kstest(np.asarray(draws), truth.cdf).pvalue > 0.01


@pytest.mark.slow
def test_quantiles_invert_the_distribution_function():
    q = np.array([0.0, 1e-6, 0.3, 0.999])
    for law in (BurrXII(2.0, 0.4), GeneralizedInverseGaussian(-2.0, 3.0, 0.1)):
        np.testing.assert_allclose(jax.jit(lambda law: law.cdf(law.icdf(q)))(law), q, atol=1e-12)


@pytest.mark.parametrize(
    ("cls", "heavy", "heavier"), [(BurrXII, (2.0, 1.0), (0.5, 2.0)), (BetaPrime, (1.0, 2.0), (3.0, 1.0))]
)
def test_moments_that_do_not_exist_are_infinite(cls, heavy, heavier):
    assert np.isfinite(cls(*heavy).mean)
    assert cls(*heavy).variance == np.inf
    assert cls(*heavier).mean == np.inf
    assert cls(*heavier).variance == np.inf


@pytest.mark.parametrize(("p", "mean", "variance"), [(-3.0, True, True), (-2.0, True, False), (-1.0, False, False)])
@pytest.mark.slow
def test_moments_of_the_inverse_gamma_limit(p, mean, variance):
    law = GeneralizedInverseGaussian(p, 4.0, 0.0)
    truth = stats.invgamma(-p, scale=2.0)
    np.testing.assert_allclose(law.mean, truth.mean() if mean else np.inf, rtol=1e-10)
    np.testing.assert_allclose(law.variance, truth.var() if variance else np.inf, rtol=1e-10)
    np.testing.assert_allclose(law.log_prob(VALUES), truth.logpdf(VALUES), rtol=1e-12)


@pytest.mark.slow
def test_gamma_limit():
    law = GeneralizedInverseGaussian(1.5, 0.0, 4.0)
    np.testing.assert_allclose(law.log_prob(VALUES), stats.gamma(1.5, scale=0.5).logpdf(VALUES), rtol=1e-11)


def test_normaliser_of_large_order():
    """log 2 K_p(z) with z far below the order: log Gamma(p) + p log(2/z) - z^2/4(p-1) + O(p^-3)."""
    p, z = 5e4, 2.0
    law = GeneralizedInverseGaussian(p, z, z)
    expected = special.gammaln(p) + p * np.log(2 / z) - z**2 / (4 * (p - 1))
    np.testing.assert_allclose(law.log_normaliser, expected, rtol=1e-13)


@LAWS
@pytest.mark.slow
def test_gradient_in_the_parameters(cls, parameters, truth):
    """Of the log density at 0.7, against central differences; the normaliser's order has no elementary derivative."""

    def log_prob(theta):
        return cls(*theta).log_prob(0.7)

    step, theta = 1e-5, jnp.array(parameters)
    shifted = jax.jit(jax.vmap(log_prob))(theta + step * jnp.concatenate([jnp.eye(theta.size), -jnp.eye(theta.size)]))
    differences = (shifted[: theta.size] - shifted[theta.size :]) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(log_prob))(theta), differences, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_batches():
    law = GeneralizedInverseGaussian(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 2.0, 3.0]), 1.0)
    assert law.batch_shape == (2, 3)
    assert law.sample(jr.key(0), (4,)).shape == (4, 2, 3)
    alone = GeneralizedInverseGaussian(2.0, 3.0, 1.0)
    np.testing.assert_allclose(law.log_prob(0.5)[1, 2], alone.log_prob(0.5), rtol=1e-14)
    assert BurrXII(jnp.ones((2, 1)), jnp.ones(3)).sample(jr.key(0), (4,)).shape == (4, 2, 3)
    c = jnp.array([1.0, 2.0])
    mapped = jax.vmap(lambda c: BurrXII(c, 2.0))(c)
    np.testing.assert_allclose(jax.vmap(lambda law: law.log_prob(0.5))(mapped), BurrXII(c, 2.0).log_prob(0.5))


def test_atoms():
    law = Atoms(jnp.array([2.0, 0.5, 1.0]), jnp.log(jnp.array([2.0, 1.0, 1.0])) + 7)
    np.testing.assert_allclose(
        jnp.exp(law.log_prob(jnp.array([0.5, 1.0, 2.0, 3.0]))), [0.25, 0.25, 0.5, 0.0], rtol=1e-14
    )
    np.testing.assert_allclose([law.mean, law.variance], [1.375, 0.421875], rtol=1e-14)
    np.testing.assert_allclose(law.cdf(jnp.array([0.4, 0.5, 1.5, 2.0])), [0, 0.25, 0.5, 1], rtol=1e-14)
    np.testing.assert_array_equal(law.icdf(jnp.array([0.0, 0.25, 0.3, 0.6, 1.0])), [0.5, 0.5, 1.0, 2.0, 2.0])
    draws = jax.jit(lambda law: law.sample(jr.key(0), (4000,)))(law)
    counts = [int(jnp.sum(draws == value)) for value in (0.5, 1.0, 2.0)]
    assert stats.chisquare(counts, [1000, 1000, 2000]).pvalue > 0.01


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BurrXII(-1.0, 2.0, validate_args=True), "c"),
        (lambda: BetaPrime(1.0, 0.0, validate_args=True), "b"),
        (lambda: GeneralizedInverseGaussian(-1.0, 0.0, 1.0, validate_args=True), "`chi` may be 0 only where `p`"),
        (lambda: GeneralizedInverseGaussian(1.0, 1.0, 0.0, validate_args=True), "`psi` only where `p`"),
        (lambda: Atoms(jnp.ones(3), jnp.zeros(2)), "last axis of the same length"),
        (lambda: Atoms(jnp.array([-1.0, 1.0]), jnp.zeros(2), validate_args=True), "values"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
