import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from posterax_nngp import MLPKernel, RBFKernel
from posterax_nngp._inducing_points import greedy_inducing
from posterax_nngp._variational import Marginals, SparseProcess
from posterax_nngp._variational_elbo import VariationalBound, expected_log_softmax, sample_latent
from posterax_nngp._variational_law import SharedScaleStudentT
from posterax_nngp._variational_scale import InverseGammaScale, PointScale, scale_at_prior
from scipy import special, stats

ALPHA, BETA, NOISE = 4.0, 5.0, 0.3
KERNEL = RBFKernel(0.8, 1.5)
PRIORS = {"t": dist.InverseGamma(ALPHA, BETA), "gauss": dist.Delta(1.7)}
FIVE_SIGMA = 5.0  # of a normal statistic: a correct program fails one such test in 1.7 million


pytestmark = pytest.mark.usefixtures("float64")

rng = np.random.default_rng(20261121)
X = rng.uniform(-2, 2, (6, 1))
Y = rng.normal(size=(6, 2)) + np.sin(2 * X)
NEW = np.array([[-0.3], [5.0]])


def gram(x, z):
    return 1.5 * np.exp(-0.5 * (x - z.T) ** 2 / 0.8**2)


def process(prior, points, covariance="full", jitter=1e-13, num_classes=2):
    return SparseProcess.at_prior(KERNEL, jnp.asarray(points), num_classes, prior, covariance, jitter)


def anywhere(prior, points, covariance="full", seed=0, jitter=1e-6):
    """A process whose every array has been moved at random."""
    start, draw = process(prior, points, covariance, jitter), np.random.default_rng(seed)
    learnt, rest = eqx.partition(start, start.trainable(kernel=False, inducing=False))
    return eqx.combine(jax.tree.map(lambda leaf: leaf + 0.4 * draw.normal(size=leaf.shape), learnt), rest)


def with_root(model, mean, covariances, scale):
    lower = np.linalg.cholesky(covariances)
    root = np.tril(lower, -1) + np.stack([np.diag(np.log(np.diag(part))) for part in lower])
    return eqx.tree_at(lambda m: (m.mean, m.root, m.scale), model, (jnp.asarray(mean), jnp.asarray(root), scale))


@eqx.filter_jit
def loss(model, batch, num_rows=None, num_draws=1, likelihood="gaussian", key=None):
    key = jr.key(0) if key is None else key
    return VariationalBound(num_rows, likelihood, num_draws, NOISE).loss(model, batch, None, key=key)


@eqx.filter_jit
def look(model, x):
    return model.divergence(), model.marginals(x), model.joint(x)


@jax.jit
def scale_draws(log_shape, log_rate):
    def mean(scale):
        draws = scale.sample_log(jr.key(0), 5000)
        return jnp.mean(draws), draws

    one = jnp.asarray(1.0)
    return jax.grad(mean, has_aux=True)(InverseGammaScale(log_shape, log_rate, one, one))


# Exactness under the Gaussian likelihood with noise tied to the scale


def optimum(points, prior):
    """The best q in closed form, and the bound there: evidence of the Nystrom kernel, less the trace of its error."""
    n, m = Y.shape
    white = np.linalg.solve(np.linalg.cholesky(gram(points, points) + 1.5e-13 * np.eye(len(points))), gram(points, X))
    inner = np.linalg.inv(np.eye(len(points)) + white @ white.T / NOISE)
    covariance = white.T @ white + NOISE * np.eye(n)
    quad = np.trace(Y.T @ np.linalg.solve(covariance, Y))
    log_det = m * np.linalg.slogdet(covariance)[1] + n * m * np.log(2 * np.pi)
    if isinstance(prior, dist.Delta):
        scale, value = PointScale(jnp.log(1.7)), -0.5 * (n * m * np.log(1.7) + quad / 1.7)
    else:
        a, b = ALPHA + n * m / 2, BETA + quad / 2
        scale = InverseGammaScale(*map(jnp.asarray, (np.log(a), np.log(b), ALPHA, BETA)))
        value = special.gammaln(a) - special.gammaln(ALPHA) + ALPHA * np.log(BETA) - a * np.log(b)
    mean = (inner @ white @ Y / NOISE).T
    model = with_root(process(prior, points), mean, np.stack([inner, inner]), scale)
    penalty = 0.5 * m * (1.5 * n - np.sum(white**2)) / NOISE
    return model, value - 0.5 * log_det, penalty


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_with_all_points_the_best_bound_is_the_evidence(prior):
    model, evidence, _ = optimum(X, prior)
    np.testing.assert_allclose(-loss(model, (X, Y))[0], evidence, atol=1e-6, rtol=0)


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_with_few_points_the_best_bound_lacks_the_trace(prior):
    model, evidence, penalty = optimum(X[:3], prior)
    assert penalty > 0.1
    np.testing.assert_allclose(-loss(model, (X, Y))[0], evidence - penalty, atol=1e-6, rtol=0)


def test_the_best_bound_is_a_maximum_in_all_that_q_has():
    model, _, _ = optimum(X[:3], PRIORS["t"])
    learnt, rest = eqx.partition(model, model.trainable(kernel=False, inducing=False))
    gradient = jax.jit(jax.grad(lambda learnt: loss(eqx.combine(learnt, rest), (X, Y))[0]))(learnt)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-8)
    assert len(jax.tree.leaves(gradient)) == 4  # mean, root, a, b


def test_the_best_q_predicts_as_the_exact_student_t_process():
    model, _, _ = optimum(X, PRIORS["t"])
    covariance = gram(X, X) + NOISE * np.eye(6)
    weights = np.linalg.solve(covariance, gram(X, NEW))
    _, marginals, (mean, spread) = look(model, NEW)
    exact = gram(NEW, NEW) - gram(NEW, X) @ weights
    np.testing.assert_allclose(mean, weights.T @ Y, atol=1e-6)
    np.testing.assert_allclose(spread, np.stack([exact, exact]), atol=1e-6)
    np.testing.assert_allclose(marginals.mean, mean, atol=1e-12)
    np.testing.assert_allclose(marginals.variance, np.diagonal(spread, axis1=1, axis2=2).T, atol=1e-12)
    quad = np.trace(Y.T @ np.linalg.solve(covariance, Y))
    np.testing.assert_allclose(2 * model.scale.shape, 2 * ALPHA + 12)
    np.testing.assert_allclose(model.scale.level, (2 * BETA + quad) / (2 * ALPHA + 12), rtol=1e-8)


# The divergence


@pytest.mark.parametrize(("prior", "covariance"), [("t", "full"), ("t", "diagonal"), ("gauss", "full")])
def test_divergence_and_marginals_are_those_of_the_values_at_the_points(prior, covariance):
    # In the coordinates of u, with the jittered matrix, inverses and determinants as they stand in the paper.
    model = anywhere(PRIORS[prior], X[:3], covariance, jitter=1e-2)
    divergence, marginals, (joint_mean, joint_covariance) = look(model, NEW)
    matrix = gram(X[:3], X[:3]) + 1.5e-2 * np.eye(3)
    a = np.linalg.solve(matrix, gram(X[:3], NEW)).T
    lower, level = np.linalg.cholesky(matrix), float(model.scale.level)
    total = float(model.scale.divergence())
    for c, (mean, factor) in enumerate(zip(np.asarray(model.mean), np.asarray(model.factors()), strict=True)):
        m, s = lower @ mean, lower @ factor @ factor.T @ lower.T
        total += 0.5 * (m @ np.linalg.solve(matrix, m) / level + np.trace(np.linalg.solve(matrix, s)) - 3)
        total += 0.5 * (np.linalg.slogdet(matrix)[1] - np.linalg.slogdet(s)[1])
        expected = gram(NEW, NEW) - a @ gram(X[:3], NEW) + a @ s @ a.T
        np.testing.assert_allclose(joint_covariance[c], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(marginals.variance[:, c], np.diag(expected), rtol=1e-9)
        np.testing.assert_allclose(marginals.mean[:, c], a @ m, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(joint_mean[:, c], a @ m, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(divergence, total, rtol=1e-9)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_divergence_by_monte_carlo(covariance):
    model, draw = anywhere(PRIORS["t"], X[:3], covariance), np.random.default_rng(1)
    a, b = float(model.scale.shape), float(jnp.exp(model.scale.log_rate))
    s = stats.invgamma.rvs(a, scale=b, size=100_000, random_state=draw)
    log_ratio = stats.invgamma.logpdf(s, a, scale=b) - stats.invgamma.logpdf(s, ALPHA, scale=BETA)
    for mean, factor in zip(np.asarray(model.mean), np.asarray(model.factors()), strict=True):
        z = draw.normal(size=(len(s), 3))
        v = mean + np.sqrt(s)[:, None] * z @ factor.T
        log_ratio += 0.5 * np.sum(v**2, axis=1) / s - 0.5 * np.sum(z**2, axis=1) - np.linalg.slogdet(factor)[1]
    z = (log_ratio.mean() - float(look(model, NEW)[0])) / (log_ratio.std() / np.sqrt(len(s)))
    assert abs(z) < FIVE_SIGMA


def test_a_sharp_scale_is_the_gaussian_process():
    sharp = anywhere(PRIORS["t"], X[:3])
    big = jnp.asarray(1e7)
    sharp = eqx.tree_at(lambda p: p.scale, sharp, InverseGammaScale(jnp.log(big), jnp.log(big), big, big))
    point = eqx.tree_at(lambda p: p.scale, sharp, PointScale(jnp.asarray(0.0)))
    np.testing.assert_allclose(look(sharp, NEW)[0], look(point, NEW)[0], atol=1e-6)
    np.testing.assert_allclose(loss(sharp, (X, Y))[0], loss(point, (X, Y))[0], atol=1e-5)


# The expectation under the softmax


def toy():
    """Two points, two classes: all that matters is the difference d of the two functions at two points."""
    x, labels = np.array([[0.0], [0.7]]), np.array([0, 1])
    return x, labels, anywhere(PRIORS["t"], x, seed=3)


LEGENDRE = np.polynomial.legendre.leggauss(200)


def scales(a, b):
    """A fine rule for s ~ InverseGamma(a, b), by its quantiles' logarithms."""
    low, high = stats.invgamma.ppf([1e-13, 1 - 1e-13], a, scale=b)
    nodes, weights = LEGENDRE
    t = 0.5 * (np.log(high) - np.log(low)) * (nodes + 1) + np.log(low)
    s = np.exp(t)
    return s, 0.5 * (np.log(high) - np.log(low)) * weights * stats.invgamma.pdf(s, a, scale=b) * s


HERMITE = np.polynomial.hermite_e.hermegauss(60)


def log_evidence(x, labels):
    s, weights = scales(ALPHA, BETA)
    nodes, hermite = HERMITE[0], HERMITE[1] / HERMITE[1].sum()
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1)
    d = np.linalg.cholesky(2 * gram(x, x)) @ grid  # f_1 - f_0, given s = 1
    sign = np.where(labels == 1, 1, -1)[:, None, None]
    terms = special.expit(sign * np.sqrt(s)[:, None] * d[:, None, :]).prod(axis=0)
    return np.log(weights @ terms @ np.outer(hermite, hermite).ravel())


def exact_terms(marginals, a, b, labels):
    s, weights = scales(a, b)
    nodes, hermite = HERMITE[0], HERMITE[1] / HERMITE[1].sum()
    mean, variance = np.asarray(marginals.mean), np.asarray(marginals.variance)
    sign = np.where(labels == 1, 1, -1)
    d = sign * (mean[:, 1] - mean[:, 0])
    values = d + np.sqrt(s[:, None, None] * variance.sum(axis=1)) * nodes[None, :, None]
    return np.einsum("s,h,shn->n", weights, hermite, special.log_expit(values))


@pytest.mark.slow
def test_the_bound_is_below_the_evidence_of_a_toy_and_its_estimates_are_right():
    x, labels, _ = toy()
    evidence = log_evidence(x, labels)
    for seed in range(3):
        model = anywhere(PRIORS["t"], x, seed=seed)
        a, b = float(model.scale.shape), float(jnp.exp(model.scale.log_rate))
        terms = exact_terms(model.marginals(jnp.asarray(x)), a, b, labels)
        exact = terms.sum() - float(model.divergence())
        assert exact < evidence
        keys = jr.split(jr.key(seed), 20)
        full = np.array([-loss(model, (x, labels), None, 250, "softmax", key)[0] for key in keys])
        assert abs(full.mean() - exact) < 7 * full.std(ddof=1) / np.sqrt(20)  # t with 19 dof: 1 in 900,000
        assert full.std() < 0.3


def test_minibatches_are_unbiased():
    model = anywhere(PRIORS["t"], X[:3])
    full = loss(model, (X, Y))[0]
    parts = [loss(model, (X[i : i + 2], Y[i : i + 2]), 6)[0] for i in range(0, 6, 2)]
    np.testing.assert_allclose(np.mean(parts), full, rtol=1e-12)


def test_gradients_of_the_estimate_are_those_of_the_expectation():
    # By finite differences of the quadrature, in mean, variance, a and b.
    x, labels, model = toy()
    marginals, scale = model.marginals(jnp.asarray(x)), model.scale

    def estimate(marginals, scale, key):
        return jnp.sum(expected_log_softmax(marginals, scale, labels, 50, key=key))

    keys = jr.split(jr.key(5), 400)
    found = jax.jit(jax.vmap(jax.grad(estimate, argnums=(0, 1)), in_axes=(None, None, 0)))(marginals, scale, keys)

    def value(shift):
        moved = Marginals(marginals.mean + shift[0], marginals.variance + shift[1])
        a, b = np.exp(float(scale.log_shape) + shift[2]), np.exp(float(scale.log_rate) + shift[3])
        return exact_terms(moved, a, b, labels).sum()

    for i, leaf in enumerate((found[0].mean, found[0].variance, found[1].log_shape, found[1].log_rate)):
        each = np.asarray(leaf).reshape(400, -1)
        if i == 0:
            each = each[:, :1]  # its four sum to zero: one of them, then
            step = np.zeros((2, 2))
            step[0, 0] = 1e-4
        else:
            each, step = each.sum(axis=1, keepdims=True), 1e-4
        shifts = [[sign * step if j == i else 0.0 for j in range(4)] for sign in (1, -1)]
        exact = (value(shifts[0]) - value(shifts[1])) / 2e-4
        error = each.std(ddof=1) / np.sqrt(400)
        assert abs(each.mean() - exact) < FIVE_SIGMA * error
        assert error < 0.05 * max(abs(exact), 0.05)


@pytest.mark.slow
def test_classes_share_their_scale():
    # Of two uncorrelated Student-t with 4 degrees of freedom both are above 4 in size with probability 3.1e-3; of
    # independent ones with 2.6e-4. Over s both are normal.
    s, weights = scales(2.0, 2.0)
    expected = float(weights @ (2 * stats.norm.sf(4 / np.sqrt(s))) ** 2)
    scale = InverseGammaScale(*map(jnp.asarray, (np.log(2.0), np.log(2.0), 2.0, 2.0)))
    draws = sample_latent(Marginals(jnp.zeros((1, 2)), jnp.ones((1, 2))), scale, 40_000, key=jr.key(2))
    law = SharedScaleStudentT(4.0, jnp.zeros((1, 2)), jnp.ones((2, 1, 1)))
    for values, each in ((draws[:20_000], 20_000), (law.sample(jr.key(3), (20_000,)), 20_000)):
        both = np.all(np.abs(values[:, 0]) > 4, axis=-1).sum()
        assert abs(both - each * expected) < FIVE_SIGMA * np.sqrt(each * expected)
    np.testing.assert_allclose(draws[:20_000] + draws[20_000:], 0, atol=1e-12)  # mirrored


@pytest.mark.parametrize("a", [0.5, 3.0, 1e4])
def test_draws_of_the_scale(a):
    gradient, draws = scale_draws(np.log(a), np.log(3.0))
    place = stats.gamma.sf(3 * np.exp(-np.sort(draws)), a)
    assert np.abs(place - (np.arange(5000) + 0.5) / 5000).max() < 5e-4  # one in each stratum
    np.testing.assert_allclose(gradient.log_shape, -a * special.polygamma(1, a), rtol=1e-3)
    np.testing.assert_allclose(gradient.log_rate, 1, rtol=1e-3)


@pytest.mark.slow
def test_gradients_are_finite_where_points_coincide():
    points = jnp.asarray(np.repeat(X[:2], 2, axis=0))
    kernel = MLPKernel(depth=1)
    model = SparseProcess.at_prior(kernel, points, 2, PRIORS["t"], "full", 1e-6)
    learnt, rest = eqx.partition(model, model.trainable(kernel=True, inducing=True))
    bound, batch = VariationalBound(None, "softmax", 4), (points, jnp.arange(4) % 2)
    value = lambda learnt: bound.loss(eqx.combine(learnt, rest), batch, None, key=jr.key(0))[0]  # noqa: E731
    leaves = jax.tree.leaves(jax.jit(jax.grad(value))(learnt))
    assert len(leaves) == 7  # two of the kernel, points, mean, root, a, b
    for leaf in leaves:
        assert np.isfinite(leaf).all()


def test_what_is_learnt():
    for prior, point, scale in (
        ("t", False, ["log_shape", "log_rate"]),
        ("gauss", True, ["log_value"]),
        ("gauss", False, []),
    ):
        model = process(PRIORS[prior], X)
        for kernel, inducing in ((True, False), (False, True)):
            chosen = model.trainable(kernel=kernel, inducing=inducing, point=point)
            assert chosen.mean
            assert chosen.root
            assert chosen.inducing == inducing
            assert jax.tree.leaves(chosen.log_kernel) == [kernel, kernel]
            assert [name for name, yes in vars(chosen.scale).items() if yes] == scale


# The law of the latent functions


@pytest.mark.parametrize("df", [3.0, np.inf])
def test_the_latent_law_is_scipys(df):
    draw = np.random.default_rng(4)
    loc, lower = draw.normal(size=(3, 2)), np.tril(draw.normal(size=(2, 3, 3))) + 2 * np.eye(3)
    law = SharedScaleStudentT(df, jnp.asarray(loc), jnp.asarray(lower))
    block = np.zeros((6, 6))
    block[:3, :3], block[3:, 3:] = lower[0] @ lower[0].T, lower[1] @ lower[1].T
    values = draw.normal(size=(4, 3, 2))
    flat = np.concatenate([values[..., 0], values[..., 1]], axis=1)
    exact = stats.multivariate_t(loc.T.ravel(), block, df=df).logpdf(flat)
    np.testing.assert_allclose(law.log_prob(values), exact, rtol=1e-10)
    np.testing.assert_allclose(law.log_prob(values[0]), exact[0], rtol=1e-10)
    np.testing.assert_allclose(law.mean, loc)
    factor = 3.0 if df == 3 else 1.0
    np.testing.assert_allclose(law.variance.T.ravel(), factor * np.diag(block))
    if np.isinf(df):
        draws = np.asarray(law.sample(jr.key(0), (20_000,)))
        flat = np.concatenate([draws[..., 0], draws[..., 1]], axis=1)
        white = np.linalg.solve(np.linalg.cholesky(block), (flat - loc.T.ravel()).T)
        assert np.abs(white @ white.T / 20_000 - np.eye(6)).max() < 5 * np.sqrt(2 / 20_000)


def test_moments_that_the_latent_law_does_not_have():
    for df, mean, variance in ((0.9, np.nan, np.nan), (1.0, np.nan, np.nan), (1.5, 1.0, np.inf), (2.0, 1.0, np.inf)):
        law = SharedScaleStudentT(df, jnp.ones((2, 1)), jnp.eye(2)[None])
        np.testing.assert_array_equal(law.mean, np.full((2, 1), mean))
        np.testing.assert_array_equal(law.variance, np.full((2, 1), variance))
    assert np.isfinite(law.log_prob(jnp.zeros((2, 1))))
    with pytest.raises(ValueError, match="scale_tril"):
        SharedScaleStudentT(3.0, jnp.ones((2, 1)), jnp.ones((1, 2, 2)), validate_args=True)


# Inducing points


def test_greedy_points_are_the_least_known_ones():
    x = np.random.default_rng(5).uniform(-3, 3, (40, 1))
    chosen, variances = [], np.full(40, 1.5)
    for _ in range(6):
        chosen.append(int(np.argmax(variances)))
        known = gram(x[chosen], x)
        variances = 1.5 - np.sum(known * np.linalg.solve(gram(x[chosen], x[chosen]), known), axis=0)
    np.testing.assert_array_equal(greedy_inducing(KERNEL, x, 6), chosen)


def test_greedy_points_never_repeat_one():
    x = np.repeat(X, 3, axis=0)
    chosen = greedy_inducing(KERNEL, x, 15)
    assert sorted(chosen // 3) == list(range(6))
    with jax.enable_x64(False):
        np.testing.assert_array_equal(greedy_inducing(KERNEL, x, 15), chosen)


@pytest.mark.parametrize(("num", "x", "words"), [(0, X, "between 1 and the 6"), (2, X * np.nan, "not all finite")])
def test_greedy_points_of_nothing(num, x, words):
    with pytest.raises(ValueError, match=words):
        greedy_inducing(KERNEL, x, num)


# Priors and settings out of place


@pytest.mark.parametrize(
    ("prior", "error", "words"),
    [
        (dist.Gamma(2.0, 2.0), TypeError, "InverseGamma.*or Delta.*got Gamma"),
        (2.0, TypeError, "got float"),
        (dist.InverseGamma(np.ones(2), 1.0), ValueError, "law of one number"),
        (dist.Delta(-1.0), ValueError, "positive and finite; got"),
        (dist.InverseGamma(2.0, np.inf), ValueError, "positive and finite; got"),
    ],
)
def test_prior_refused(prior, error, words):
    with pytest.raises(error, match=words):
        scale_at_prior(prior)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"likelihood": "probit"}, "'softmax' or 'gaussian'"),
        ({"num_draws": 0}, "at least 1"),
        ({"num_rows": 0}, "at least 1"),
        ({"noise": 0.0}, "positive and finite"),
    ],
)
def test_bound_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        VariationalBound(**settings)
