import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from posterax import load, save
from posterax_nngp import BurrXII, RBFKernel, ScaleMixtureClassifier
from posterax_nngp._classification_labels import log_prob_largest
from scipy import special, stats

KEY = jr.key(20261121)
rng = np.random.default_rng(7)
X = rng.uniform(-2, 2, (60, 2))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.7)
NEW = rng.uniform(-2, 2, (40, 2))
TRUTH = (NEW[:, 0] > 0).astype(int) + (NEW[:, 1] > 0.7)
SETTINGS = ScaleMixtureClassifier(RBFKernel(1.0, 2.0), num_inducing=12, num_steps=300, batch_size=20)


def fit(settings, x=X, labels=LABELS):
    return settings.fit((x, labels), key=KEY, progress=False)


@pytest.fixture(scope="module")
def student():
    return fit(SETTINGS)


@pytest.fixture(scope="module")
def gauss():
    return fit(dataclasses.replace(SETTINGS, scale_prior=dist.Delta(2.0), covariance="diagonal"))


# A float32 program


def test_classes_of_new_points(student, gauss):
    for fitted in (student, gauss):
        law = fitted.infer(NEW, key=jr.key(1))
        assert isinstance(law, dist.CategoricalLogits)
        assert law.batch_shape == (40,)
        assert law.probs.shape == (40, 3)
        assert law.probs.dtype == jnp.float32
        np.testing.assert_allclose(law.probs.sum(axis=1), 1, atol=1e-6)
        assert np.mean(law.probs.argmax(axis=1) == TRUTH) > 0.8
        assert -law.log_prob(TRUTH).mean() < 0.6  # nats; knowing nothing costs log 3 = 1.10
        np.testing.assert_array_equal(law.probs, fitted.infer(NEW, key=jr.key(1)).probs)
        losses = fitted.report.losses
        assert losses.shape == (300,)
        assert losses[-20:].mean() < 0.7 * losses[:20].mean()
    assert not np.array_equal(law.probs, gauss.infer(NEW, key=jr.key(2)).probs)


def test_what_is_learnt(student, gauss):
    assert isinstance(student.scale_posterior(), dist.InverseGamma)
    assert isinstance(gauss.scale_posterior(), dist.Delta)
    assert abs(float(gauss.scale_posterior().v) - 2) > 0.01
    for fitted in (student, gauss):
        assert abs(float(fitted.process.kernel.lengthscale) - 1) > 0.01
        assert fitted.kernel is SETTINGS.kernel
        points = np.asarray(fitted.process.inducing)
        assert points.dtype == np.float64
        assert points.shape == (12, 2)
        assert not np.isin(points, X).any()
        assert fitted.regression is None
    assert student.process.root.shape == (3, 12, 12)
    assert gauss.process.root.shape == (3, 12)


@pytest.mark.slow
def test_probabilities_are_those_of_the_latent_law(student, gauss):
    for fitted in (student, gauss):
        latent = fitted.latent(NEW[:3])
        assert latent.event_shape == (3, 3)
        assert np.isinf(latent.df) == (fitted is gauss)
        draws = np.asarray(jax.nn.softmax(latent.sample(jr.key(3), (20_000,))))
        found = np.asarray(fitted.infer(NEW[:3], key=jr.key(4)).probs)
        # Both are random: 20,000 independent draws, and 1,000 of which each second one mirrors the one before.
        error = draws.std(axis=0) * np.sqrt(1 / 20_000 + 1 / 500)
        assert np.abs(draws.mean(axis=0) - found).max() < 0.02
        assert (np.abs(draws.mean(axis=0) - found) < 5 * error).all()
        # One over the mean of 1/s, times the variance at s = 1.
        scale = fitted.scale_posterior()
        level = scale.v if fitted is gauss else scale.rate / scale.concentration
        with jax.enable_x64(True):
            variance = fitted.process.marginals(jnp.asarray(NEW[:3])).variance
        np.testing.assert_allclose(
            np.sum(latent.scale_tril**2, axis=2).T, float(level) * np.asarray(variance), rtol=1e-3
        )
    np.testing.assert_allclose(student.latent(NEW[:3]).df, 2 * student.scale_posterior().concentration, rtol=1e-6)


def test_in_a_float64_program_the_same_with_more_digits(student, float64):
    again = fit(SETTINGS)
    probs = again.infer(NEW, key=KEY).probs
    assert probs.dtype == again.latent(NEW).loc.dtype == again.scale_posterior().rate.dtype == np.float64
    np.testing.assert_allclose(again.process.mean, student.process.mean, rtol=1e-6, atol=1e-9)
    with jax.enable_x64(False):
        np.testing.assert_allclose(student.infer(NEW, key=KEY).probs, probs, rtol=1e-5)


@pytest.mark.slow
def test_saved_and_loaded(student, gauss, by_labels, tmp_path):
    for fitted in (student, gauss, *by_labels):
        save(tmp_path / "fitted.posterax", fitted)
        back = load(tmp_path / "fitted.posterax")
        np.testing.assert_array_equal(back.infer(NEW, key=KEY).probs, fitted.infer(NEW, key=KEY).probs)


# Exactness


@pytest.mark.slow
def test_two_points_by_quadrature():
    # Two classes: all that matters is the difference of the two functions at the two points and at a new one.
    x, labels, new = np.array([[0.0], [0.7]]), np.array([0, 1]), np.array([[1.0]])
    settings = ScaleMixtureClassifier(
        RBFKernel(0.8, 1.5), dist.InverseGamma(4.0, 5.0), num_steps=400, num_draws=64, num_predictive_draws=4000,
        learn_kernel=False, learn_inducing=False,
    )  # fmt: skip
    fitted = fit(settings, x, labels)
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    z = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij")).reshape(3, -1)
    weights = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3
    points = np.concatenate([x, new])
    root = np.linalg.cholesky(2 * 1.5 * np.exp(-0.5 * (points - points.T) ** 2 / 0.8**2))
    scales = stats.invgamma.ppf((np.arange(100) + 0.5) / 100, 4.0, scale=5.0)  # one in each stratum: good to 1e-3
    evidence, joint = 0.0, 0.0
    for s in scales:
        d = np.sqrt(s) * root @ z
        likelihood = weights * special.expit(-d[0]) * special.expit(d[1]) / 100
        evidence, joint = evidence + likelihood.sum(), joint + likelihood @ special.expit(d[2])
    bounds = -fitted.report.losses[-100:]
    # The best of the family, by BFGS on a quadrature of the bound. It lacks 0.145 nats:
    # labels tell of the difference of two functions that q has independent.
    assert np.log(evidence) - bounds.mean() > 0.1
    assert abs(bounds.mean() + 1.83686) < 0.02
    assert bounds.std() / 10 < 0.01
    probability = float(fitted.infer(new, key=KEY).probs[0, 1])
    assert abs(probability - 0.61368) < 0.01  # that best one's
    assert abs(probability - joint / evidence) < 0.04  # and so good is the approximation here: 0.022
    assert float(fitted.process.kernel.lengthscale) == pytest.approx(0.8)
    np.testing.assert_array_equal(np.sort(np.asarray(fitted.process.inducing), axis=0), x)


# Labels as regression

LABEL_PRIORS = (dist.InverseGamma(2.0, 2.0), dist.Delta(0.3), BurrXII(2.0, 1.5))


def gram(x, z):
    return 2.0 * np.exp(-0.5 * np.sum((x[:, None] - z[None]) ** 2, axis=2))


COVARIANCE, ONE_HOT = gram(X, X) + 0.1 * np.eye(60), np.eye(3)[LABELS]
MEAN = gram(NEW, X) @ np.linalg.solve(COVARIANCE, ONE_HOT)
VARIANCE = 2.1 - np.sum(gram(NEW, X) * np.linalg.solve(COVARIANCE, gram(X, NEW)).T, axis=1)  # of labels, at s = 1


def scales_given_labels(prior, num):
    """Draws of s from its posterior, by its distribution function on a fine grid."""
    log_s = np.linspace(-12, 12, 200_001)
    quad = np.trace(ONE_HOT.T @ np.linalg.solve(COVARIANCE, ONE_HOT))
    s = np.exp(log_s)
    if isinstance(prior, dist.Delta):
        return np.full(num, float(prior.v))
    if isinstance(prior, dist.InverseGamma):
        log_prior = stats.invgamma.logpdf(s, 2.0, scale=2.0)
    else:
        log_prior = stats.burr12.logpdf(s, 2.0, 1.5)
    log_density = log_prior + log_s - 90 * log_s - 0.5 * quad / s
    below = np.cumsum(np.exp(log_density - log_density.max()))
    return np.exp(np.interp(np.random.default_rng(8).uniform(size=num), below / below[-1], log_s))


@pytest.fixture(scope="module")
def by_labels():
    settings = dataclasses.replace(SETTINGS, method="labels", num_inducing=None, learn_kernel=False, learn_scale=False)
    return [dataclasses.replace(settings, scale_prior=prior).fit((X, LABELS), key=KEY) for prior in LABEL_PRIORS]


def test_classes_by_labels_are_those_of_the_mean_whatever_the_scale(by_labels):
    assert np.mean(MEAN.argmax(axis=1) == TRUTH) > 0.8
    found = [fitted.infer(NEW).probs for fitted in by_labels]
    for probs in found:
        assert probs.dtype == jnp.float32
        np.testing.assert_array_equal(probs.argmax(axis=1), MEAN.argmax(axis=1))
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3  # how sure, the prior does tell


def test_probabilities_by_labels_are_those_of_the_largest_entry(by_labels):
    # Of draws of a new one-hot row. A probability is off by more than five standard errors once in 1.7 million.
    num = 20_000
    for fitted, prior in zip(by_labels, LABEL_PRIORS, strict=True):
        spread = np.sqrt(scales_given_labels(prior, num)[:, None, None] * VARIANCE[:, None])
        rows = MEAN + spread * np.random.default_rng(9).normal(size=(num, *MEAN.shape))
        share = np.eye(3)[rows.argmax(axis=-1)].mean(axis=0)
        probs = np.asarray(fitted.infer(NEW).probs)
        assert (np.abs(share - probs) <= 5 * np.sqrt(probs * (1 - probs) / num) + 5 / num).all()
        assert np.abs(share - probs).max() < 0.01


def test_laws_by_labels(by_labels):
    latent = by_labels[0].latent(NEW[:5])
    assert latent.event_shape == (5, 3)
    np.testing.assert_allclose(latent.mean, MEAN[:5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(2 * by_labels[0].scale_posterior().concentration, 4 + 180)
    np.testing.assert_allclose(by_labels[1].scale_posterior().v, 0.3, rtol=1e-6)


def test_by_labels_a_sharp_scale_is_the_gaussian_twin(by_labels):
    sharp = dataclasses.replace(by_labels[0], scale_prior=dist.InverseGamma(1e7, 0.3e7)).fit((X, LABELS), key=KEY)
    np.testing.assert_allclose(sharp.infer(NEW).probs, by_labels[1].infer(NEW).probs, atol=1e-5)


@pytest.mark.slow
def test_by_labels_noise_and_a_point_mass_are_learnt():
    settings = dataclasses.replace(SETTINGS, method="labels", num_inducing=None, scale_prior=dist.Delta(2.0))
    learnt = settings.fit((X, LABELS), key=KEY).regression
    assert abs(float(learnt.noise) - 0.1) > 1e-3
    assert abs(float(learnt.scale_prior.v) - 2.0) > 1e-3
    # The likeliest scale is Q / (n C) in closed form.
    kernel = learnt.kernel
    squares = np.sum((X[:, None] - X[None]) ** 2, axis=2) / float(kernel.lengthscale) ** 2
    matrix = float(kernel.variance) * np.exp(-0.5 * squares) + float(learnt.noise) * np.eye(60)
    quad = np.trace(ONE_HOT.T @ np.linalg.solve(matrix, ONE_HOT))
    np.testing.assert_allclose(learnt.scale_prior.v, quad / 180, rtol=1e-5)
    only_scale = dataclasses.replace(settings, learn_kernel=False).fit((X, LABELS), key=KEY).regression
    assert float(only_scale.noise) == pytest.approx(0.1)
    quad = np.trace(ONE_HOT.T @ np.linalg.solve(COVARIANCE, ONE_HOT))
    np.testing.assert_allclose(only_scale.scale_prior.v, quad / 180, rtol=1e-5)


def test_the_largest_of_normals_by_quadrature():
    with jax.enable_x64(True):
        mean, spread = jnp.array([[0.3, -0.4], [2.0, -1.0]]), jnp.array([0.7, 0.2])
        sizes, weights = jnp.array([0.5, 3.0]), jnp.array([0.25, 0.75])
        found = np.exp(log_prob_largest(mean, spread, sizes, jnp.log(weights)))
        # Two values 90 standard deviations apart: the probability is no float any more, its logarithm is.
        assert np.isfinite(log_prob_largest(jnp.array([[0.0, 18.0]]), spread[1:], sizes[:1], jnp.zeros(1))).all()
    mean, spread, sizes, weights = (np.asarray(value) for value in (mean, spread, sizes, weights))
    z = (mean[:, :1] - mean[:, 1:]) / (np.sqrt(2) * spread[:, None] * sizes)
    np.testing.assert_allclose(found[:, 0], stats.norm.cdf(z) @ weights, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], stats.norm.sf(z) @ weights, rtol=1e-9)


# Bad input


def test_labels_take_no_settings_of_training(by_labels):
    with pytest.raises(TypeError, match="takes no \\['progress'\\]"):
        by_labels[0].fit((X, LABELS), key=KEY, progress=False)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (X, TypeError, r"pair \(x, labels\); got ndarray"),
        ((np.full(X.shape, "a"), LABELS), TypeError, "`x` must be numbers; got an array of <U1"),
        ((X[:, 0], LABELS), ValueError, r"`x` must have shape \(n, d\), one row a point; got \(60,\)"),
        ((X[:0], LABELS[:0]), ValueError, "at least one point"),
        ((np.where(X == X[3, 0], np.nan, X), LABELS), ValueError, "1 of 60 rows hold NaN or infinity, first row 3"),
        ((X, LABELS[:-1]), ValueError, r"`labels` must have shape \(60,\), one for each row of `x`; got \(59,\)"),
        ((X, np.eye(3)[LABELS]), ValueError, "argmax"),
        ((X, np.where(LABELS == 1, np.nan, LABELS)), ValueError, "not hold NaN or infinity; label"),
        ((X, LABELS + 0.5), ValueError, r"integers 0 ... C-1; got float64 \{0.5, 1.5, 2.5\}.*numpy.unique"),
        ((X, np.array(["a", "b"])[(LABELS > 0) * 1]), ValueError, r"got <U1 \{a, b\}"),
        ((X, LABELS + 1), ValueError, r"each at least once; got \{1, 2, 3\}.*num_classes"),
        ((X, 2 * LABELS - 2), ValueError, r"got \{-2, 0, 2\}"),
        ((X, 0 * LABELS), ValueError, "are all 0. At least two classes"),
    ],
)
def test_data_refused(data, error, words):
    with pytest.raises(error, match=words):
        SETTINGS.fit(data, key=KEY)


def test_classes_beyond_those_announced():
    with pytest.raises(ValueError, match=r"integers 0 ... 1; got \{0, 1, 2\}"):
        dataclasses.replace(SETTINGS, num_classes=2).fit((X, LABELS), key=KEY)


@pytest.mark.parametrize(
    ("prior", "error", "words"),
    [
        (dist.InverseGamma(2.0, np.inf), ValueError, "positive and finite; got {'concentration': 2.0, 'rate': inf}"),
        (dist.Delta(np.inf), ValueError, "positive and finite; got"),
        (dist.Delta(0.0), ValueError, "positive and finite; got"),
        (dist.Delta(np.ones(3)), ValueError, "law of one number.*Delta of shape"),
        (dist.Normal(0.0, 1.0), ValueError, "positive values"),
        (2.0, TypeError, "NumPyro distribution"),
    ],
)
def test_priors_refused_by_labels(prior, error, words):
    with pytest.raises(error, match=words):
        dataclasses.replace(SETTINGS, method="labels", scale_prior=prior).fit((X, LABELS), key=KEY)


def test_another_method_forgets_the_first(student):
    other = dataclasses.replace(student, method="labels", learn_kernel=False, num_inducing=None)
    with pytest.raises(ValueError, match="not fitted"):
        other.infer(NEW)
    other = other.fit((X, LABELS), key=KEY)
    assert other.process is None
    assert other.report is None
    assert other.infer(NEW).logits.shape == (40, 3)


def test_questions_refused(student):
    with pytest.raises(ValueError, match=r"not fitted. Call `.fit\(\(x, labels\), key=key\)`"):
        SETTINGS.infer(NEW, key=KEY)
    with pytest.raises(ValueError, match=r"shape \(2,\), as those fitted; got \(1,\)"):
        student.infer(NEW[:, :1], key=KEY)
    with pytest.raises(ValueError, match=r"For a single point write observed\[None\]"):
        student.latent(NEW[0])
    with pytest.raises(ValueError, match="first row 0"):
        student.infer(NEW * np.nan, key=KEY)
    with pytest.raises(TypeError, match=r"`key` of ScaleMixtureClassifier\.infer"):
        student.infer(NEW)
    with pytest.raises(TypeError, match="another `scale_prior`"):
        student.infer(NEW, prior=dist.Delta(1.0), key=KEY)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "laplace"}, "one of .*'labels'.*got 'laplace'"),
        ({"covariance": "banded"}, "one of .*'diagonal'.*got 'banded'"),
        ({"num_inducing": 0}, "`num_inducing` must be at least 1"),
        ({"num_classes": 1}, "`num_classes` must be at least 2; got 1"),
        ({"jitter": 0.0}, "`jitter` must be positive"),
        ({"noise": -0.1}, "`noise` must be positive"),
        ({"scale_prior": dist.InverseGamma(2.0, np.inf)}, "positive and finite; got"),
        ({"scale_prior": dist.Delta(0.0)}, "positive and finite; got"),
    ],
)
def test_settings_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SETTINGS, **settings)
