"""Integrals over the scale: closed forms, dense sums, identities between them, and importance sampling."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as stats
from jax.scipy.special import logsumexp
from posterax import PosteraxWarning
from posterax_nngp._priors import Atoms, BetaPrime, BurrXII, GeneralizedInverseGaussian
from posterax_nngp._scale import (
    ScalePosterior,
    _log_marginal,
    atoms,
    check_prior,
    importance,
    integrate,
    log_marginal,
    mean_is_infinite,
    scale_posterior,
)

COUNTS = np.array([1.0, 2.0, 40.0, 3000.0, 1e5])
QUADS = np.array([1e-8, 1e-3, 1.0, 1e4, 1e8])
GRID = [x.ravel() for x in np.meshgrid(QUADS, COUNTS)]

PRIORS = {
    "inverse-gamma": (dist.InverseGamma, (2.0, 1.5)),
    "burr": (BurrXII, (2.0, 1.5)),
    "gamma": (dist.Gamma, (2.0, 1.5)),
    "half-cauchy": (dist.HalfCauchy, (1.5,)),
    "gig": (GeneralizedInverseGaussian, (-0.5, 1.0, 1.5)),
    "log-normal": (dist.LogNormal, (0.5, 1.5)),
    "beta-prime": (BetaPrime, (0.5, 1.5)),
    "uniform": (dist.Uniform, (0.5, 2.0)),
    "atoms": (lambda *weights: Atoms(jnp.array([0.5, 1.0, 7.0]), jnp.stack(weights)), (0.1, -0.3, -2.0)),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def dense_log_marginal(log_h, quad, count):
    """The trapezoidal rule with 20000 points about the maximum, in NumPy."""

    def log_f(t):
        with np.errstate(over="ignore"):
            return log_h(np.exp(t)) + t - count / 2 * t - quad / 2 * np.exp(-t)

    low, high = -60.0, 80.0
    for _ in range(4):
        t = np.linspace(low, high, 20001)
        value = log_f(t)
        kept = t[value > value.max() - 60]
        low, high = kept[0] - (t[1] - t[0]), kept[-1] + t[1] - t[0]
    t = np.linspace(low, high, 20001)
    value = log_f(t)
    return value.max() + np.log(np.sum(np.exp(value - value.max())) * (t[1] - t[0]))


def test_quadrature_against_the_closed_form():
    def by_quadrature(a, b, quad, count):
        return _log_marginal(dist.InverseGamma(a, b), quad, count)

    def closed(a, b, quad, count):
        return log_marginal(dist.InverseGamma(a, b), quad, count)

    rows = [np.tile(x, 2) for x in GRID]
    a, b = np.repeat([2.0, 0.5], len(GRID[0])), np.repeat([2.0, 1e-2], len(GRID[0]))
    results = [
        jax.jit(jax.vmap(jax.value_and_grad(f, argnums=(0, 1, 2))))(a, b, *rows) for f in (by_quadrature, closed)
    ]
    for left, right in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-13)


SLOW = set(PRIORS) - {"inverse-gamma", "burr", "half-cauchy"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PRIORS])
def test_gradients(name):
    """d/dQ log M(Q, N) = -exp(log M(Q, N + 2) - log M(Q, N)) / 2 exactly; in the parameters central differences."""
    make, parameters = PRIORS[name]
    theta, (quad, count) = np.array(parameters), GRID
    rows, step = len(quad), 1e-5

    @jax.jit
    @jax.vmap
    def evaluate(theta, quad, count):
        return jax.value_and_grad(lambda theta, quad: log_marginal(make(*theta), quad, count), (0, 1))(theta, quad)

    shifts = [np.zeros(theta.size), np.zeros(theta.size), *(s * step * e for e in np.eye(theta.size) for s in (1, -1))]
    thetas = np.concatenate([np.tile(theta + shift, (rows, 1)) for shift in shifts])
    counts = np.concatenate([count, count + 2, *[count] * (len(shifts) - 2)])
    values, (by_theta, by_quad) = evaluate(thetas, np.tile(quad, len(shifts)), counts)
    values = np.asarray(values).reshape(len(shifts), rows)
    # A difference of two values of size 1e6 has ten digits less than they have.
    lost = 1e-15 * np.abs(values[0]) + 1e-12
    np.testing.assert_array_less(np.abs(-np.asarray(by_quad[:rows]) * 2 / np.exp(values[1] - values[0]) - 1), 20 * lost)
    differences = (values[2::2] - values[3::2]).T / (2 * step)
    error = np.abs(by_theta[:rows] - differences)
    scale = 1 + np.abs(differences)
    np.testing.assert_array_less(error, 1e-6 * scale + (lost / step)[:, None])


@pytest.mark.parametrize(
    ("make", "log_h"),
    [
        (BurrXII(2.0, 1.5), stats.burr12(2.0, 1.5).logpdf),
        (dist.Gamma(2.0, 1.5), stats.gamma(2.0, scale=1 / 1.5).logpdf),
        (dist.LogNormal(0.5, 1.5), stats.lognorm(1.5, scale=np.exp(0.5)).logpdf),
        (dist.HalfCauchy(1.5), stats.halfcauchy(scale=1.5).logpdf),
    ],
    ids=["burr", "gamma", "log-normal", "half-cauchy"],
)
def test_against_a_dense_sum(make, log_h):
    values = jax.jit(jax.vmap(lambda quad, count: log_marginal(make, quad, count)))(*GRID)
    dense = [dense_log_marginal(log_h, quad, count) for quad, count in zip(*GRID, strict=True)]
    np.testing.assert_allclose(values, dense, rtol=1e-11, atol=1e-10)


@pytest.mark.slow
def test_uniform_prior_is_an_incomplete_gamma_function():
    quad, count = 3.0, 7.0
    truth = stats.invgamma(count / 2 - 1, scale=quad / 2)
    mass = truth.cdf(2.0) - truth.cdf(0.5)
    constant = (
        np.log(mass) - np.log(1.5) + jax.scipy.special.gammaln(count / 2 - 1) - (count / 2 - 1) * np.log(quad / 2)
    )
    np.testing.assert_allclose(log_marginal(dist.Uniform(0.5, 2.0), quad, count), constant, rtol=1e-12)
    law = scale_posterior(dist.Uniform(0.5, 2.0), quad, count)
    expected = [0, (truth.cdf(1) - truth.cdf(0.5)) / mass, 1]
    np.testing.assert_allclose(jax.jit(type(law).cdf)(law, np.array([0.4, 1.0, 3.0])), expected, atol=1e-12)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert law.log_prob(2.1) == -np.inf


@pytest.mark.slow
def test_generalised_inverse_gaussian_prior_is_conjugate():
    quad, count, near = np.array([3.0, 1e-3, 2e3]), np.array([5.0, 400.0, 3000.0]), np.array([0.8, 1.0, 1.1])

    @jax.jit
    @jax.vmap
    def compare(quad, count):
        prior = GeneralizedInverseGaussian(-0.5, 1.0, 1.5)
        law, truth = scale_posterior(prior, quad, count), GeneralizedInverseGaussian(-0.5 - count / 2, 1.0 + quad, 1.5)
        mean = truth.mean
        evidence = truth.log_normaliser - prior.log_normaliser
        return [
            (law.log_prob(mean * near), truth.log_prob(mean * near)),
            (law.mean, mean),
            (law.variance, truth.variance),
            (log_marginal(prior, quad, count), evidence),
        ]

    for ours, expected in compare(quad, count):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-20)


def test_posterior_as_a_distribution():
    law, truth = ScalePosterior(dist.InverseGamma(2.0, 2.0), 6.0, 5), stats.invgamma(4.5, scale=5.0)
    values, q = np.array([0.2, 1.0, 4.0, 60.0]), np.array([1e-3, 0.1, 0.5, 0.999])

    @jax.jit
    def facts(law, key):
        return law.log_prob(values), law.cdf(values), law.icdf(q), law.mean, law.variance, law.sample(key, (2000,))

    log_prob, cdf, quantiles, mean, variance, draws = facts(law, jr.key(1))
    np.testing.assert_allclose(log_prob, truth.logpdf(values), rtol=1e-11)
    np.testing.assert_allclose(cdf, truth.cdf(values), atol=1e-12)
    np.testing.assert_allclose(quantiles, truth.ppf(q), rtol=1e-9)
    np.testing.assert_allclose([mean, variance], [truth.mean(), truth.var()], rtol=1e-11)
    assert stats.kstest(np.asarray(draws), truth.cdf).pvalue > 0.01


def test_quantiles_know_their_derivative():
    def icdf(q, quad):
        return ScalePosterior(dist.InverseGamma(2.0, 2.0), quad, 5.0).icdf(q)

    value, (by_q, by_quad) = jax.jit(jax.value_and_grad(icdf, argnums=(0, 1)))(0.3, 6.0)
    np.testing.assert_allclose(by_q, 1 / stats.invgamma(4.5, scale=5.0).pdf(value), rtol=1e-9)
    np.testing.assert_allclose(by_quad, value / 10.0, rtol=1e-9)  # the rate 2 + quad / 2 is a scale


def test_kinds_of_posterior():
    law = scale_posterior(dist.InverseGamma(2.0, 3.0), 4.0, 6)
    assert (float(law.concentration), float(law.rate)) == (5.0, 5.0)
    point = scale_posterior(dist.Delta(2.0), 4.0, 6)
    assert isinstance(point, dist.Delta)
    np.testing.assert_allclose(log_marginal(dist.Delta(2.0), 4.0, 6), -3 * np.log(2) - 1, rtol=1e-14)
    two = Atoms(jnp.array([1.0, 2.0]), jnp.log(jnp.array([0.25, 0.75])))
    terms = np.array([0.25 * np.exp(-2), 0.75 * np.exp(-1) / 8])
    np.testing.assert_allclose(log_marginal(two, 4.0, 6), np.log(terms.sum()), rtol=1e-14)
    np.testing.assert_allclose(scale_posterior(two, 4.0, 6).mean, terms @ [1, 2] / terms.sum(), rtol=1e-14)


def test_atoms_of_a_law():
    scales, log_weights = atoms(dist.InverseGamma(5.0, 5.0))
    np.testing.assert_allclose(logsumexp(log_weights), 0, atol=1e-13)
    # E[1/s] = a/b, E[log s] = log b - digamma(a)
    weights = jnp.exp(log_weights)
    np.testing.assert_allclose(weights @ (1 / scales), 1, rtol=1e-12)
    np.testing.assert_allclose(weights @ jnp.log(scales), np.log(5) - jax.scipy.special.digamma(5.0), rtol=1e-12)
    np.testing.assert_array_equal(atoms(dist.Delta(2.0)), [[2.0], [0.0]])
    posterior = scale_posterior(BurrXII(2.0, 2.0), 3.0, 9)
    scales, log_weights = atoms(posterior)
    np.testing.assert_allclose(jnp.exp(log_weights) @ scales, posterior.mean, rtol=1e-11)


@pytest.mark.parametrize(("centre", "width"), [(-300.0, 1.0), (13.0, 3e-3), (0.0, 30.0)])
def test_nodes_find_the_mass(centre, width):
    def log_f(t):
        return -((t - centre) ** 2) / (2 * width**2)

    nodes, log_weights = integrate(log_f)
    np.testing.assert_allclose(logsumexp(log_weights + log_f(nodes)), np.log(width * np.sqrt(2 * np.pi)), rtol=1e-12)


def test_nodes_at_an_end_of_the_support():
    for rate in (1.0, 1e6):
        nodes, log_weights = integrate(lambda t, rate=rate: -rate * t, 0.0, 2.0)
        expected = np.log(-np.expm1(-2 * rate) / rate)
        np.testing.assert_allclose(logsumexp(log_weights - rate * nodes), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("prior", "infinite"),
    [
        (dist.InverseGamma(1.0, 1.0), True),
        (dist.InverseGamma(1.1, 1.0), False),
        (dist.HalfCauchy(1.0), True),
        (BurrXII(2.0, 0.5), True),
        (BurrXII(2.0, 0.6), False),
        pytest.param(GeneralizedInverseGaussian(-1.0, 1.0, 0.0), True, marks=pytest.mark.slow),
        (dist.LogNormal(0.0, 3.0), False),
        (Atoms(jnp.array([1.0]), jnp.zeros(1)), False),
        (dist.Delta(1.0), False),
    ],
)
def test_mean_is_infinite(prior, infinite):
    check_prior(prior)
    assert mean_is_infinite(prior) is infinite


@pytest.mark.parametrize(
    ("prior", "error", "words"),
    [
        (2.0, TypeError, "NumPyro distribution.*float"),
        (dist.Normal(0.0, 1.0), ValueError, "positive values.*Normal"),
        (dist.Uniform(-1.0, 1.0), ValueError, "positive values.*-1"),
        (dist.Poisson(2.0), ValueError, "Atoms"),
        (dist.Delta(0.0), ValueError, "positive"),
        (dist.InverseGamma(2.0, np.inf), ValueError, "positive finite"),
        (dist.InverseGamma(jnp.ones(3), 1.0), ValueError, r"batch shape \(3,\)"),
        (dist.Dirichlet(jnp.ones(3)), ValueError, "event shape"),
    ],
)
def test_priors_that_are_refused(prior, error, words):
    with pytest.raises(error, match=words):
        check_prior(prior)


SINE_QUAD, SINE_COUNT = 28.8 * 400, 400  # data of 400 numbers that want a scale near 29, against priors near 1


@pytest.mark.parametrize("prior", [dist.InverseGamma(2.0, 2.0), BurrXII(2.0, 2.0), dist.Gamma(2.0, 2.0)])
def test_draws_from_the_prior_collapse(prior):
    with pytest.warns(PosteraxWarning, match='"prior" is not to be trusted'):
        sample = importance(prior, SINE_QUAD, SINE_COUNT, proposal="prior", key=jr.key(0))
    assert sample.ess < 10
    assert sample.pareto_k > 0.7


@pytest.mark.parametrize(
    ("prior", "proposal", "quad", "count", "least"),
    [
        (dist.InverseGamma(2.0, 2.0), "likelihood", SINE_QUAD, SINE_COUNT, 900),
        (BurrXII(2.0, 2.0), "likelihood", SINE_QUAD, SINE_COUNT, 800),
        (dist.Gamma(2.0, 2.0), "mixture", SINE_QUAD, SINE_COUNT, 200),
        (BurrXII(2.0, 2.0), "prior", 3.0, 4, 300),
        (dist.HalfCauchy(1.0), "mixture", 0.5, 1, 300),
    ],
)
@pytest.mark.slow
def test_importance_sampling_agrees_with_quadrature(prior, proposal, quad, count, least):
    sample = importance(prior, quad, count, proposal=proposal, num_draws=2000, key=jr.key(3))
    assert sample.ess > 2 * least * 0.9
    error = np.sqrt(1 / sample.ess - 1 / 2000)  # of the mean weight, relative
    assert abs(sample.log_marginal - log_marginal(prior, quad, count)) < 3 * error + 1e-12
    weights, logs = np.exp(sample.log_weights), np.log(sample.scales)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    scales, log_weights = atoms(scale_posterior(prior, quad, count))
    mean = weights @ logs
    deviation = np.sqrt(np.sum(weights**2 * (logs - mean) ** 2))
    assert abs(mean - np.exp(log_weights) @ np.log(scales)) < 3 * deviation


def test_likelihood_proposal_against_a_prior_that_contradicts_it():
    with pytest.warns(PosteraxWarning, match="mixture"):
        importance(dist.Gamma(2.0, 2.0), SINE_QUAD, SINE_COUNT, key=jr.key(0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"proposal": "posterior"}, "`proposal` must be"),
        ({"num_draws": 0}, "`num_draws` must be at least 1; got 0"),
        ({"count": 2}, "needs|only for `count` above 2"),
        ({"prior": dist.Delta(1.0)}, "density"),
    ],
)
def test_errors_of_importance_sampling(arguments, words):
    given = {"prior": BurrXII(2.0, 2.0), "quad": 1.0, "count": 5, "key": jr.key(0)} | arguments
    with pytest.raises(ValueError, match=words):
        importance(given.pop("prior"), given.pop("quad"), given.pop("count"), **given)


@pytest.mark.slow
def test_single_precision_outside_changes_nothing():
    prior = BurrXII(2.0, 2.0)
    inside = importance(prior, 3.0, 9, proposal="mixture", key=jr.key(0))
    with jax.enable_x64(False):
        outside = importance(prior, 3.0, 9, proposal="mixture", key=jr.key(0))
        assert outside.scales.dtype == jnp.float64
        assert not mean_is_infinite(prior)
    np.testing.assert_array_equal(inside.scales, outside.scales)
