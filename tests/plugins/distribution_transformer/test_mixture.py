import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from posterax_distribution_transformer import (
    Components,
    cdf,
    components_of,
    conditional,
    from_log_cholesky,
    gaussian_mixture,
    linear_update,
    log_cholesky,
    marginal,
    mixture_of,
    moment_match,
    moments,
    push_forward,
    quantile,
)
from scipy import stats

# Level A: the algebra against SciPy and against integrals on grids, in float64.

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[0.0, 1.0, -1.0], [2.0, -1.0, 0.5], [-1.0, 0.3, 2.0]])
ROOTS = np.array([
    [[1.0, 0, 0], [0.4, 0.8, 0], [-0.3, 0.2, 0.5]],
    [[0.5, 0, 0], [0.1, 1.2, 0], [0.6, -0.4, 0.9]],
    [[1.5, 0, 0], [-0.7, 0.4, 0], [0.2, 0.1, 1.1]],
])  # fmt: skip
COVARIANCES = ROOTS @ np.swapaxes(ROOTS, -1, -2)


def law(**kwargs):
    return gaussian_mixture(WEIGHTS, MEANS, **(kwargs or {"covariance": COVARIANCES}))


def density(x, weights=WEIGHTS, means=MEANS, covariances=COVARIANCES):
    parts = zip(weights, means, covariances, strict=True)
    return sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in parts)


POINTS = np.random.default_rng(0).normal(size=(7, 3))


def test_log_prob_is_that_of_scipy(float64):
    for one in (law(), law(scale_tril=ROOTS)):
        np.testing.assert_allclose(one.log_prob(POINTS), np.log(density(POINTS)), rtol=1e-12)
    np.testing.assert_allclose(components_of(law()).log_prob(jnp.asarray(POINTS)), np.log(density(POINTS)), rtol=1e-12)


def test_on_the_line_and_with_diagonal_covariances_too(float64):
    line = gaussian_mixture(WEIGHTS, MEANS[:, 0], scale=[0.5, 1.0, 2.0])
    expected = sum(w * stats.norm(m, s).pdf(0.7) for w, m, s in zip(WEIGHTS, MEANS[:, 0], [0.5, 1, 2], strict=True))
    np.testing.assert_allclose(line.log_prob(0.7), np.log(expected), rtol=1e-12)
    assert line.event_shape == ()
    flat = gaussian_mixture(WEIGHTS, MEANS, scale=np.full((3, 3), 0.5))
    np.testing.assert_allclose(
        flat.log_prob(POINTS), np.log(density(POINTS, covariances=[0.25 * np.eye(3)] * 3)), rtol=1e-12
    )
    assert flat.event_shape == (3,)


def test_marginal_is_the_integral_over_the_other_coordinates(float64):
    grid = np.linspace(-14, 14, 561)
    third = np.stack([np.full_like(grid, 0.4), np.full_like(grid, -0.2), grid], -1)
    expected = np.log(np.trapezoid(density(third), grid))
    np.testing.assert_allclose(marginal(law(), [0, 1]).log_prob(np.array([0.4, -0.2])), expected, rtol=1e-10)
    swapped = marginal(law(), [1, 0]).log_prob(np.array([-0.2, 0.4]))
    np.testing.assert_allclose(swapped, expected, rtol=1e-10)
    assert marginal(law(), 1).event_shape == ()
    assert marginal(law(), [1]).event_shape == (1,)


def test_joint_is_marginal_times_conditional(float64):
    x = POINTS[0]
    for index in ([0], [2, 0], [1, 2]):
        rest = [i for i in range(3) if i not in index]
        other = conditional(law(), index, x[index])
        there = x[rest] if other.event_shape else x[rest[0]]
        total = marginal(law(), index).log_prob(x[index]) + other.log_prob(there)
        np.testing.assert_allclose(total, np.log(density(x)), rtol=1e-10)
    assert conditional(law(), 0, 0.3).event_shape == (2,)


def test_cdf_and_quantile_are_inverse_and_right(float64):
    line = marginal(law(), 0)
    q = np.array([1e-4, 0.05, 0.5, 0.9, 0.9999])
    x = quantile(line, q)
    np.testing.assert_allclose(cdf(line, x), q, rtol=1e-9)
    expected = sum(w * stats.norm(m, s).cdf(x) for w, m, s in zip(WEIGHTS, MEANS[:, 0], ROOTS[:, 0, 0], strict=True))
    np.testing.assert_allclose(q, expected, rtol=1e-9)


def test_quantile_ignores_components_without_weight_and_keeps_batches():
    line = gaussian_mixture([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1e3], [-1.0, 1.0]], scale=[[1.0, 1.0], [1.0, 1.0]])
    found = quantile(line, np.array([0.5, 0.975]))
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[:, 0], [0.0, 1.959964], atol=1e-5)
    np.testing.assert_allclose(found[0, 1], 0.0, atol=1e-5)


def test_moments_are_those_of_draws_and_the_matched_normal_has_them(float64):
    mean, covariance = moments(law())
    np.testing.assert_allclose(mean, WEIGHTS @ MEANS, rtol=1e-12)
    second = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), rtol=1e-12)
    draws = np.asarray(law().sample(jr.key(0), (40_000,)))
    error = np.sqrt(np.diag(covariance) / len(draws))
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * error)  # rings falsely in a million; finds 0.05 sd
    np.testing.assert_allclose(moment_match(law()).covariance_matrix, covariance, rtol=1e-12)
    number = moment_match(marginal(law(), 2))
    np.testing.assert_allclose([number.loc, number.scale**2], [mean[2], covariance[2, 2]], rtol=1e-12)


def test_the_matched_normal_is_the_nearest_one(float64):
    draws, best = law().sample(jr.key(1), (20_000,)), moment_match(law())
    near = best.log_prob(draws).mean()
    for factor, shift in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1)):
        other = dist.MultivariateNormal(best.loc + shift, factor * best.covariance_matrix)
        assert other.log_prob(draws).mean() < near


def test_push_forward_is_the_law_of_the_image(float64):
    matrix, shift, noise = np.array([[1.0, 2.0, 0.0], [0.5, 0.0, -1.0]]), np.array([1.0, -2.0]), np.diag([0.1, 0.2])
    found = push_forward(law(), matrix, shift, noise)
    expected = density(
        POINTS[:, :2], means=MEANS @ matrix.T + shift, covariances=matrix @ COVARIANCES @ matrix.T + noise
    )
    np.testing.assert_allclose(found.log_prob(POINTS[:, :2]), np.log(expected), rtol=1e-10)
    doubled = push_forward(marginal(law(), 0), [[2.0]])
    assert doubled.event_shape == ()
    np.testing.assert_allclose(doubled.log_prob(1.0), marginal(law(), 0).log_prob(0.5) - np.log(2), rtol=1e-12)


def test_linear_update_is_bayes_rule_on_a_grid(float64):
    prior = gaussian_mixture([0.3, 0.7], [-1.0, 1.5], scale=[0.7, 0.4])
    found = mixture_of(linear_update(components_of(prior), jnp.array([[2.0]]), jnp.array([[0.5]]), jnp.array([1.2])))
    grid = np.linspace(-6, 6, 4001)
    joint = np.exp(prior.log_prob(grid)) * stats.norm(2 * grid, np.sqrt(0.5)).pdf(1.2)
    expected = joint / np.trapezoid(joint, grid)
    np.testing.assert_allclose(np.exp(found.log_prob(grid[:, None])), expected, atol=1e-10)


def test_linear_update_survives_a_tiny_noise():
    parts = components_of(gaussian_mixture(WEIGHTS, MEANS, covariance=COVARIANCES))
    found = linear_update(parts, jnp.eye(3), 1e-6 * jnp.eye(3), jnp.ones(3))
    assert np.isfinite(np.asarray(found.scale_tril)).all()
    np.testing.assert_allclose(found.mean, np.ones((3, 3)), atol=1e-3)


def test_log_cholesky_is_a_bijection_onto_the_real_numbers(float64):
    np.testing.assert_allclose(from_log_cholesky(log_cholesky(jnp.asarray(ROOTS)), 3), ROOTS, rtol=1e-12)
    numbers = jr.normal(jr.key(0), (5, 6))
    factor = from_log_cholesky(numbers, 3)
    np.testing.assert_allclose(log_cholesky(factor), numbers, rtol=1e-10)
    assert np.all(np.linalg.eigvalsh(factor @ jnp.swapaxes(factor, -1, -2)) > 0)


@pytest.mark.parametrize(
    "one",
    [
        dist.Normal(1.0, 2.0),
        dist.Normal(jnp.zeros(3), 1.0).to_event(1),
        dist.MultivariateNormal(jnp.ones(2), jnp.eye(2)),
    ],
    ids=["normal", "independent", "multivariate"],
)
def test_a_normal_is_a_mixture_of_one(one):
    parts = components_of(one)
    assert parts.num == 1
    again = mixture_of(parts, scalar=one.event_shape == ())
    x = one.sample(jr.key(0), (4,))
    np.testing.assert_allclose(again.log_prob(x), one.log_prob(x), rtol=1e-5)


def test_mixtures_can_be_mapped_jitted_and_differentiated():
    def density(weight):
        one = gaussian_mixture(jnp.stack([weight, 1 - weight]), jnp.array([0.0, 1.0]), scale=jnp.ones(2))
        return quantile(one, 0.5) + one.log_prob(0.3)

    found = jax.jit(jax.vmap(density))(jnp.array([0.2, 0.8]))
    assert found.shape == (2,)
    assert np.isfinite(jax.grad(lambda w: gaussian_mixture(
        jnp.stack([w, 1 - w]), jnp.array([0.0, 1.0]), scale=jnp.ones(2)).log_prob(0.3))(0.2))  # fmt: skip


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.3, 0.5], [0.0, 1.0]), "`weights` must not be negative and must sum to 1"),
        (([-0.5, 1.5], [0.0, 1.0]), "`weights` must not be negative"),
        (([0.5, 0.5], [0.0, np.nan]), "`mean` must be finite"),
        (([0.5, 0.5], [0.0, 1.0, 2.0]), "`mean` must have shape"),
    ],
)
def test_weights_and_means_that_are_none_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        gaussian_mixture(*arguments, scale=[1.0, 1.0])


def test_a_covariance_that_is_not_positive_definite_is_named():
    broken = COVARIANCES.copy()
    broken[1] = [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="`covariance` of component 1 of 3 is not symmetric and positive definite"):
        law(covariance=broken)
    with pytest.raises(ValueError, match="`scale_tril` of component 0 of 3 is not lower triangular"):
        law(scale_tril=np.swapaxes(ROOTS, -1, -2))
    with pytest.raises(ValueError, match="`scale` of component 2 of 3 is not positive"):
        law(scale=np.array([[1.0] * 3, [1.0] * 3, [1.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="Give one of `scale`, `covariance` and `scale_tril`; got none"):
        gaussian_mixture(WEIGHTS, MEANS)
    with pytest.raises(ValueError, match=r"\(on the line give `scale`\)"):
        gaussian_mixture([1.0], [0.0], covariance=[[1.0]])


def test_other_misuse_names_its_cure():
    with pytest.raises(TypeError, match="Expected a normal or a mixture of normals; got Gamma"):
        components_of(dist.Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match=r"`law` has 3 coordinates; this needs one. `marginal\(law, i\)`"):
        quantile(law(), 0.5)
    with pytest.raises(ValueError, match="`index` must name different coordinates from 0 to 2"):
        marginal(law(), 3)
    with pytest.raises(ValueError, match="nothing is left"):
        conditional(law(), [0, 1, 2], POINTS[0])
    with pytest.raises(ValueError, match="The result has no density"):
        push_forward(law(), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(m, 3\)"):
        push_forward(law(), np.eye(2))


def test_components_tell_their_sizes():
    parts = components_of(law())
    assert isinstance(parts, Components)
    assert (parts.num, parts.size) == (3, 3)
    np.testing.assert_allclose(parts.covariance, COVARIANCES, rtol=1e-5)
