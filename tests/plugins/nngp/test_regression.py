"""Regression against SciPy's multivariate t, one-dimensional quadrature, and itself by another road."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import posterax
import pytest
from posterax import PosteraxWarning
from posterax_nngp import (
    Atoms,
    BurrXII,
    Kernel,
    MLPKernel,
    RBFKernel,
    ScaleMixtureNNGP,
    _data,
)
from scipy import stats
from scipy.special import logsumexp

KERNEL = MLPKernel(2, "erf", 1.5, 0.3)
A, B, NOISE = 1.7, 0.9, 0.15
INVERSE_GAMMA = dist.InverseGamma(A, B)
SAME_BY_QUADRATURE = dist.TransformedDistribution(dist.Gamma(A, B), dist.transforms.PowerTransform(-1.0))
rng = np.random.default_rng(0)
X = rng.normal(size=(7, 2))
Y = rng.normal(size=(7, 2))
NEW, Y_NEW = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
KEY = jr.key(0)

pytestmark = pytest.mark.usefixtures("float64")


def model(prior=INVERSE_GAMMA, **settings):
    return ScaleMixtureNNGP(KERNEL, prior, NOISE, **{"learn": (), **settings})


def known(prior=INVERSE_GAMMA, y=Y[:, 0], **settings):
    return model(prior, **settings).fit((X, y), key=KEY)


def log_t(x, y):
    """Log density of outputs in the columns of y, jointly: one scale for all, so a t on the flattened vector."""
    gram = np.asarray(KERNEL.nngp(x)) + NOISE * np.eye(len(x))
    covariance = np.kron(np.eye(y.shape[1]), gram)
    return stats.multivariate_t(df=2 * A, shape=B / A * covariance).logpdf(y.T.ravel())


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("prior", "outputs"),
    [
        pytest.param(INVERSE_GAMMA, 1, id="closed-1", marks=slow),
        pytest.param(INVERSE_GAMMA, 2, id="closed-2"),
        pytest.param(SAME_BY_QUADRATURE, 1, id="quadrature-1"),
        pytest.param(SAME_BY_QUADRATURE, 2, id="quadrature-2", marks=slow),
    ],
)
def test_evidence_and_predictions_are_those_of_the_multivariate_t(prior, outputs):
    y, y_new = Y[:, :outputs], Y_NEW[:, :outputs]
    fitted = known(prior, y)
    evidence = log_t(X, y)
    np.testing.assert_allclose(fitted.report["log_evidence"], evidence, rtol=1e-10)
    both = log_t(np.concatenate([X, NEW]), np.concatenate([y, y_new]))
    np.testing.assert_allclose(fitted.infer(NEW).log_prob(y_new), both - evidence, rtol=1e-9)
    # Each point alone
    each = [
        log_t(np.concatenate([X, NEW[i : i + 1]]), np.concatenate([y[:, :1], y_new[i : i + 1, :1]])) for i in range(3)
    ]
    if outputs == 1:
        marginals = fitted.infer(NEW, joint=False)
        np.testing.assert_allclose(marginals.log_prob(y_new)[:, 0], np.array(each) - log_t(X, y), rtol=1e-9)
        q = fitted.quantiles(NEW, [0.1, 0.5])
        np.testing.assert_allclose(np.asarray(marginals.cdf(q[0][:, :])), 0.1, rtol=1e-9)


def test_one_output_without_an_axis_is_numpyros_multivariate_t():
    flat, column = known().infer(NEW), known(y=Y[:, :1]).infer(NEW)
    assert isinstance(flat, dist.MultivariateStudentT)
    np.testing.assert_allclose(flat.log_prob(Y_NEW[:, 0]), column.log_prob(Y_NEW[:, :1]), rtol=1e-12)


@pytest.mark.slow
def test_outputs_share_one_scale_in_every_draw():
    # Two outputs of a t with 2a + 14 degrees of freedom: their squares correlate as theory says, 4 standard errors.
    law = known(y=Y).infer(NEW[:1])
    draws = np.asarray(law.sample(KEY, (20_000,)))[:, 0]
    z = (draws - np.asarray(law.mean)[0]) / np.sqrt(np.asarray(law.variance)[0])
    df = float(law.df)
    products = z[:, 0] ** 2 * z[:, 1] ** 2
    exact = (df - 2) / (df - 4)
    assert abs(products.mean() - exact) < 4 * products.std() / np.sqrt(len(z))
    assert exact > 1.05  # independent scales would give 1: some 5 standard errors away


BURR = BurrXII(2.0, 1.5)
ATOMS = Atoms(jnp.array([0.5, 2.0]), jnp.log(jnp.array([0.3, 0.7])))


@pytest.mark.parametrize(
    ("prior", "noise_model"),
    [
        pytest.param(INVERSE_GAMMA, "tied", id="inverse-gamma-tied"),
        pytest.param(BURR, "tied", id="burr-tied", marks=slow),
        pytest.param(ATOMS, "tied", id="atoms-tied"),
        pytest.param(INVERSE_GAMMA, "free", id="inverse-gamma-free", marks=slow),
        pytest.param(BURR, "free", id="burr-free", marks=slow),
        pytest.param(ATOMS, "free", id="atoms-free", marks=slow),
    ],
)
def test_leaving_one_out_is_predicting_it_from_the_others(prior, noise_model):
    fitted = known(prior, noise_model=noise_model)
    log_density, mean = fitted.leave_one_out()
    rest = np.arange(len(X)) != 2
    law = model(prior, noise_model=noise_model).fit((X[rest], Y[rest, 0]), key=KEY).infer(X[2:3], joint=False)
    np.testing.assert_allclose(log_density[2], law.log_prob(Y[2:3, 0])[0], rtol=1e-8)
    np.testing.assert_allclose(mean[2], law.mean[0], rtol=1e-8)


def normal_log_density(s, y, x, kernel=KERNEL):
    covariance = s * np.asarray(kernel.nngp(x)) + NOISE * np.eye(len(x))
    return stats.multivariate_normal(cov=covariance).logpdf(y)


def test_free_noise_is_one_integral_over_the_scale():
    t = np.linspace(-30, 40, 20_001)  # the trapezoidal rule: exact to rounding for a smooth integrand that dies away

    def total(x, y):
        values, vectors = np.linalg.eigh(np.asarray(KERNEL.nngp(x)))
        variances = np.exp(t)[:, None] * values + NOISE
        squares = (vectors.T @ y) ** 2 / variances
        log_normal = -0.5 * np.sum(squares + np.log(2 * np.pi * variances), axis=1)
        log_prior = stats.invgamma(A, scale=B).logpdf(np.exp(t)) + t
        return np.log(np.sum(np.exp(log_normal + log_prior)) * (t[1] - t[0]))

    fitted = known(noise_model="free")
    evidence = total(X, Y[:, 0])
    np.testing.assert_allclose(fitted.report["log_evidence"], evidence, rtol=1e-9)
    both = total(np.concatenate([X, NEW]), np.concatenate([Y, Y_NEW])[:, 0])
    np.testing.assert_allclose(fitted.infer(NEW).log_prob(Y_NEW[:, 0]), both - evidence, rtol=1e-6)
    one = total(np.concatenate([X, NEW[:1]]), np.concatenate([Y, Y_NEW[:1]])[:, 0])
    np.testing.assert_allclose(fitted.infer(NEW, joint=False).log_prob(Y_NEW[:, 0])[0], one - evidence, rtol=1e-8)


@pytest.mark.parametrize(
    ("prior", "settings"),
    [
        pytest.param(INVERSE_GAMMA, {}, id="inverse-gamma-tied", marks=slow),
        pytest.param(BURR, {}, id="burr-tied"),
        pytest.param(INVERSE_GAMMA, {"noise_model": "free"}, id="inverse-gamma-free", marks=slow),
        pytest.param(BURR, {"noise_model": "free"}, id="burr-free", marks=slow),
        pytest.param(INVERSE_GAMMA, {"num_inducing": 4}, id="inverse-gamma-inducing", marks=slow),
        pytest.param(BURR, {"num_inducing": 4}, id="burr-inducing", marks=slow),
    ],
)
def test_gradients_of_the_evidence(settings, prior):
    from posterax_nngp._parameters import Hyper, unconstrained
    from posterax_nngp._regression_fit import value_and_gradient

    hyper = Hyper(KERNEL, NOISE, prior).widened()
    free = unconstrained(hyper, ("kernel", "noise", "scale_prior"))
    inducing = jnp.asarray(X[:4]) if "num_inducing" in settings else None
    rest = (hyper, jnp.asarray(X), jnp.asarray(Y), inducing, settings.get("noise_model") != "free", False)
    _, gradient = value_and_gradient(free, *rest)
    assert len(free) == 5
    for name in free:
        up, down = ({**free, name: free[name] + step} for step in (1e-5, -1e-5))
        slope = (value_and_gradient(up, *rest)[0] - value_and_gradient(down, *rest)[0]) / 2e-5
        np.testing.assert_allclose(gradient[name], slope, rtol=1e-6, atol=1e-8)


def sum_over_atoms(prior, kernel, noise, y):
    """Log evidence with free noise, by dense normal log densities."""
    gram, terms = np.asarray(kernel.nngp(X)), []
    for s, log_weight in zip(prior.values, prior.log_weights, strict=True):
        normal = stats.multivariate_normal(cov=float(s) * gram + float(noise) * np.eye(len(X)))
        terms.append(float(log_weight) + normal.logpdf(y.T).sum())
    return logsumexp(terms)


def test_free_noise_with_a_discrete_prior_is_a_sum_over_its_atoms():
    """The gradient against differences of that sum."""
    from jax.flatten_util import ravel_pytree
    from posterax_nngp._parameters import Hyper, constrained, unconstrained
    from posterax_nngp._regression_fit import value_and_gradient

    hyper = Hyper(KERNEL, NOISE, Atoms(jnp.array([0.5, 2.0, 7.0]), jnp.log(jnp.array([0.3, 0.6, 0.1])))).widened()
    vector, unravel = ravel_pytree(unconstrained(hyper, ("kernel", "noise", "scale_prior")))

    def directly(vector):
        here = constrained(hyper, unravel(vector))
        return sum_over_atoms(here.scale_prior, here.kernel, here.noise, Y)

    value, gradient = value_and_gradient(unravel(vector), hyper, jnp.asarray(X), jnp.asarray(Y), None, False, False)
    np.testing.assert_allclose(value, directly(vector), rtol=1e-12)
    steps = 1e-5 * np.eye(9)  # two of the kernel, noise, three atoms and their log-weights
    slopes = [(directly(vector + step) - directly(vector - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(ravel_pytree(gradient)[0], slopes, rtol=1e-6, atol=1e-8)

    target = model(hyper.scale_prior, noise_model="free", learn=("noise",)).target((X, Y))
    position = target.unconstrain({"noise": jnp.asarray(NOISE)})
    prior = stats.norm.logpdf(0.0)  # of log noise, where it is centred
    np.testing.assert_allclose(target.log_density(position), directly(vector) + prior, rtol=1e-12)


def test_learning_with_free_noise_and_a_discrete_prior_climbs_that_sum():
    fitted = known(ATOMS, noise_model="free", learn=("noise",))
    assert fitted.report["converged"]
    np.testing.assert_allclose(fitted.report["starts"], [fitted.report["log_evidence"]], rtol=1e-12)

    def directly(noise):
        return sum_over_atoms(ATOMS, KERNEL, noise, Y[:, 0])

    np.testing.assert_allclose(fitted.report["log_evidence"], directly(fitted.noise), rtol=1e-12)
    assert directly(fitted.noise) >= max(directly(fitted.noise * factor) for factor in (0.9, 1.1))


@pytest.mark.slow
def test_all_rows_as_inducing_points_is_exact_and_fewer_give_a_lower_bound():
    exact, sparse, few = known(), known(num_inducing=7), known(num_inducing=3)
    np.testing.assert_allclose(sparse.report["log_evidence"], exact.report["log_evidence"], rtol=1e-8)
    for joint in (True, False):
        here, there = (m.infer(NEW, joint=joint).log_prob(Y_NEW[:, 0]) for m in (sparse, exact))
        np.testing.assert_allclose(here, there, rtol=1e-6)
    assert few.report["log_evidence"] < exact.report["log_evidence"] - 1e-3


@pytest.mark.parametrize("outputs", [1, pytest.param(2, marks=slow)])
def test_the_bound_by_few_inducing_points_is_that_of_titsias(outputs):
    """Log density of a t with Q in place of K, less m tr(K - Q) / 2 noise."""
    fitted = known(y=Y[:, :outputs], num_inducing=3)
    z = np.asarray(fitted.knowledge.state["inducing"])
    cross = np.asarray(KERNEL.nngp(X, z))
    nystrom = cross @ np.linalg.solve(np.asarray(KERNEL.nngp(z)), cross.T)
    covariance = np.kron(np.eye(outputs), nystrom + NOISE * np.eye(7))
    log_t = stats.multivariate_t(df=2 * A, shape=B / A * covariance).logpdf(Y[:, :outputs].T.ravel())
    trace = np.trace(np.asarray(KERNEL.nngp(X)) - nystrom)
    np.testing.assert_allclose(fitted.report["log_evidence"], log_t - outputs * trace / (2 * NOISE), rtol=1e-9)


def test_a_sure_scale_is_the_gaussian_process():
    sure, limit = known(dist.Delta(1.0)), known(dist.InverseGamma(1e9, 1e9))
    np.testing.assert_allclose(sure.report["log_evidence"], normal_log_density(1.0, Y[:, 0], X), rtol=1e-10)
    np.testing.assert_allclose(limit.report["log_evidence"], sure.report["log_evidence"], rtol=1e-6)
    np.testing.assert_allclose(limit.infer(NEW).mean, sure.infer(NEW).mean, rtol=1e-9)


def test_a_learnt_point_mass_stands_at_the_likeliest_scale():
    fitted = known(dist.Delta(1.0), learn=("scale_prior",))
    gram = np.asarray(KERNEL.nngp(X)) + NOISE * np.eye(len(X))
    best = Y[:, 0] @ np.linalg.solve(gram, Y[:, 0]) / len(X)
    np.testing.assert_allclose(float(fitted.scale_prior.v), best, rtol=1e-12)


def test_standardising_changes_units_and_nothing_else():
    x, y = 50 + 3 * X, np.stack([1e3 + 200 * Y[:, 0], 5 + 1e-3 * Y[:, 1]], axis=1)
    raw = known(y=(y - y.mean(0)) / y.std(0))
    raw = model().fit(((x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)), key=KEY)
    units = model(standardise=True).fit((x, y), key=KEY)
    jacobian = np.log(y.std(0)).sum()
    np.testing.assert_allclose(units.report["log_evidence"], raw.report["log_evidence"] - len(x) * jacobian, rtol=1e-10)
    new, target = 50 + 3 * NEW, y[:3] + 0.1
    expected = raw.infer((new - x.mean(0)) / x.std(0)).log_prob((target - y.mean(0)) / y.std(0)) - 3 * jacobian
    np.testing.assert_allclose(units.infer(new).log_prob(target), expected, rtol=1e-9)
    alone = units.infer(new, joint=False)
    np.testing.assert_allclose(alone.mean, units.infer(new).mean, rtol=1e-9)
    np.testing.assert_allclose(alone.variance, units.infer(new).variance, rtol=1e-6)
    log_density, mean = units.leave_one_out()
    np.testing.assert_allclose(log_density, raw.leave_one_out()[0] - jacobian, rtol=1e-9)
    assert mean.shape == y.shape


@pytest.mark.slow
def test_importance_sampling_agrees_and_the_papers_proposal_warns():
    x, y = rng.normal(size=(60, 1)), 5 * rng.normal(size=60)
    settings = {"method": "importance", "num_draws": 4000}
    good = model(**settings).fit((x, y), key=KEY)
    exact = model().fit((x, y), key=KEY).infer(NEW[:, :1], joint=False)
    np.testing.assert_allclose(good.infer(NEW[:, :1], joint=False).variance, exact.variance, rtol=0.02)
    assert good.report["importance"]["ess"] > 1000
    with pytest.warns(PosteraxWarning, match="not to be trusted"):
        model(**settings, proposal="prior").fit((x, 50 * y), key=KEY)


def test_another_prior_at_call_time_needs_no_new_fit():
    other = dist.InverseGamma(5.0, 1.0)
    here = known().infer(NEW, prior=other).log_prob(Y_NEW[:, 0])
    np.testing.assert_allclose(here, known(other).infer(NEW).log_prob(Y_NEW[:, 0]), rtol=1e-12)


def test_fit_climbs_the_evidence_and_a_second_fit_compiles_nothing():
    x = np.linspace(-2, 2, 20)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.05 * rng.normal(size=20)
    before = model().fit((x, y), key=KEY)
    after = model(learn=("kernel", "noise")).fit((x, y), key=KEY)
    assert after.report["log_evidence"] > before.report["log_evidence"] + 1
    assert after.report["converged"]
    from posterax_nngp._regression_fit import value_and_gradient

    size = value_and_gradient._cached._cache_size()
    model(learn=("kernel", "noise")).fit((x, 2 * y), key=KEY)
    assert value_and_gradient._cached._cache_size() == size


def test_it_comes_back_from_a_file(tmp_path):
    fitted = known(BURR, standardise=True)
    posterax.save(tmp_path / "fitted.posterax", fitted)
    back = posterax.load(tmp_path / "fitted.posterax")
    np.testing.assert_array_equal(back.infer(NEW).log_prob(Y_NEW[:, 0]), fitted.infer(NEW).log_prob(Y_NEW[:, 0]))
    assert back.report == fitted.report


def test_results_work_in_a_float32_program():
    with jax.enable_x64(False):
        fitted = known()
        law = fitted.infer(NEW)
        draws = jax.jit(lambda key: law.sample(key, (4,)))(KEY)
        assert draws.dtype == jnp.float32
        np.testing.assert_allclose(law.log_prob(Y_NEW[:, 0]), law.log_prob(jnp.asarray(Y_NEW[:, 0])), rtol=1e-5)
        value = float(law.log_prob(Y_NEW[:, 0]))
    both = log_t(np.concatenate([X, NEW]), np.concatenate([Y, Y_NEW])[:, :1])
    np.testing.assert_allclose(value, both - log_t(X, Y[:, :1]), rtol=1e-4)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ((X, Y[:5, 0]), ValueError, r"`y` must have shape \(7,\)"),
        ((X[:, 0], Y[:, 0]), ValueError, r"write x\[:, None\]"),
        ((np.where(X > 1, np.nan, X), Y[:, 0]), ValueError, "`x` must be finite"),
        ((X, np.where(Y[:, 0] > 0, np.inf, Y[:, 0])), ValueError, "`y` must be finite"),
        ((X, Y.astype(str)), TypeError, "`y` must be numbers"),
        (X, TypeError, r"a pair \(x, y\)"),
        ((X[:0], Y[:0, 0]), ValueError, r"`x` must have at least one row and one input; got shape \(0, 2\)"),
        ((X[:, :0], Y[:, 0]), ValueError, r"`x` must have at least one row and one input; got shape \(7, 0\)"),
        ((X, Y[:, :0]), ValueError, "`y` must have shape"),
    ],
)
def test_bad_data_are_refused_in_words(data, error, words):
    with pytest.raises(error, match=words):
        model().fit(data, key=KEY)


def test_other_bad_input(monkeypatch):
    with pytest.raises(ValueError, match="knows no data"):
        model().infer(NEW)
    with pytest.raises(ValueError, match="must have shape"):
        known().infer(NEW[:, :1])
    with pytest.raises(ValueError, match="positive"):
        model(dist.Normal(0.0, 1.0)).fit((X, Y), key=KEY)
    with pytest.raises(ValueError, match="constant"):
        model(standardise=True).fit((X, np.ones(7)), key=KEY)
    with pytest.raises(ValueError, match="`learn` must be"):
        model(learn=("depth",))
    fitted = known()
    monkeypatch.setattr(_data, "free_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="num_inducing=500"):
        known()
    with pytest.raises(MemoryError, match="joint=False"):
        fitted.infer(np.zeros((1000, 2)))


def test_copies_constant_columns_and_infinite_means_are_told():
    x = np.concatenate([X[:3], X[:3]]) * [1.0, 0.0]
    fitted = ScaleMixtureNNGP(RBFKernel(), dist.HalfCauchy(1.0), 0.0, learn=()).fit(
        (x, np.r_[Y[:3, 0], Y[:3, 0]]), key=KEY
    )
    assert fitted.report["jitter"] > 0
    told = " ".join(fitted.report["notes"])
    assert "copies" in told
    assert "constant" in told
    assert "jitter" in told
    assert "infinite mean" in told
    assert np.isfinite(fitted.infer(NEW).log_prob(Y_NEW[:, 0]))


@pytest.mark.parametrize("noise_model", ["tied", "free"])
def test_where_copies_leave_the_evidence_without_a_maximum_it_is_told(noise_model):
    x, y = np.concatenate([X, X[:3]]), np.concatenate([Y, Y[:3]])[:, 0]

    def known(noise, y=y, x=x, learn=()):
        start = dist.Delta(1.3)
        return ScaleMixtureNNGP(KERNEL, start, noise, noise_model=noise_model, learn=learn).fit((x, y), key=KEY)

    # Three agreeing copies: each factor of ten off the noise adds half its logarithm three times.
    rise = known(1e-9).report["log_evidence"] - known(1e-8).report["log_evidence"]
    np.testing.assert_allclose(rise, 1.5 * np.log(10), rtol=1e-3)
    with pytest.warns(PosteraxWarning, match=r"no maximum: 3 rows .* copies") as caught:
        fitted = known(1e-6, learn=("noise",))
    assert caught[0].filename == __file__
    assert "no maximum" in fitted.report["notes"][-1]
    for fine in (known(1e-6, y + 0.1 * (np.arange(10) == 9), learn=("noise",)), known(1e-6, y[:7], x[:7], ("noise",))):
        assert not any("no maximum" in note for note in fine.report["notes"])


class Indefinite(Kernel):
    """No kernel: its Gram matrices have negative eigenvalues."""

    def pair(self, x, z, *, ntk):
        return -(x @ z.T) + (x @ z.T) ** 2, None

    def diag_of(self, x, *, ntk):
        return jnp.sum(x**2, axis=1) ** 2, None


@pytest.mark.parametrize("learn", [(), ("noise",)])
def test_what_is_no_kernel_is_told_so(learn):
    with pytest.raises(ValueError, match="not positive definite"):
        ScaleMixtureNNGP(Indefinite(), noise=1e-9, learn=learn).fit((X, Y[:, 0]), key=KEY)


@pytest.mark.parametrize("noisy", [True, False])
def test_the_prior_law_is_a_multivariate_t(noisy):
    law = model().prior(X, observation_noise=noisy)
    gram = np.asarray(KERNEL.nngp(X)) + noisy * NOISE * np.eye(7)
    truth = stats.multivariate_t(df=2 * A, shape=B / A * gram)
    np.testing.assert_allclose(law.log_prob(Y[:, 0]), truth.logpdf(Y[:, 0]), rtol=1e-10)
    alone = model().prior(X, observation_noise=noisy, joint=False)
    np.testing.assert_allclose(
        alone.log_prob(Y[:, 0]), stats.t(2 * A, scale=np.sqrt(B / A * np.diag(gram))).logpdf(Y[:, 0]), rtol=1e-10
    )


@slow
def test_the_prior_law_with_free_noise_is_a_sum_over_scales():
    law = model(ATOMS, noise_model="free").prior(X, observation_noise=True)
    terms = [np.log(w) + normal_log_density(s, Y[:, 0], X) for s, w in ((0.5, 0.3), (2.0, 0.7))]
    np.testing.assert_allclose(law.log_prob(Y[:, 0]), np.logaddexp(*terms), rtol=1e-8)


def test_a_single_row_is_enough():
    fitted = model().fit((X[:1], Y[:1, 0]), key=KEY)
    np.testing.assert_allclose(fitted.report["log_evidence"], log_t(X[:1], Y[:1, :1]), rtol=1e-10)


@pytest.mark.slow
def test_it_can_be_mapped_over_data_sets():
    fitted = eqx.filter_vmap(lambda y: model().condition((X, y)).infer(NEW).log_prob(jnp.asarray(Y_NEW[:, 0])))(
        jnp.asarray(Y.T)
    )
    np.testing.assert_allclose(fitted[0], known().infer(NEW).log_prob(Y_NEW[:, 0]), rtol=1e-10)
