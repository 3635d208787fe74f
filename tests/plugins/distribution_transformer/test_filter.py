import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from posterax_distribution_transformer import (
    BearingRange,
    LinearDynamics,
    SigmaPoints,
    SigmaPointUpdate,
    components_of,
    filter_mixture,
    gaussian_mixture,
    linear_update,
    moments,
    split,
)

MATRIX, SHIFT = np.array([[1.0, 0.5], [-0.2, 0.9]]), np.array([0.1, -0.3])
NOISE, SEEN_NOISE, OBSERVE = np.diag([0.2, 0.1]), np.array([[0.4]]), np.array([[1.0, 0.3]])


def exact(parts, seen):
    return linear_update(parts, jnp.asarray(OBSERVE), jnp.asarray(SEEN_NOISE), seen)


def kalman(mean, covariance, series):
    """Textbook Kalman filter: means and covariances given the data until each step."""
    found = []
    for z in series:
        spread = OBSERVE @ covariance @ OBSERVE.T + SEEN_NOISE
        gain = covariance @ OBSERVE.T @ np.linalg.inv(spread)
        mean, covariance = mean + gain @ (z - OBSERVE @ mean), covariance - gain @ OBSERVE @ covariance
        found.append((mean, covariance))
        mean, covariance = MATRIX @ mean + SHIFT, MATRIX @ covariance @ MATRIX.T + NOISE
    return [np.stack(column) for column in zip(*found, strict=True)]


SERIES = np.random.default_rng(0).normal(size=(12, 1))


def test_one_component_and_an_exact_update_are_the_kalman_filter(float64):
    start = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    found = filter_mixture(exact, SERIES, initial=start, dynamics=LinearDynamics(MATRIX, NOISE, SHIFT))
    mean, covariance = kalman(np.zeros(2), np.eye(2), SERIES)
    np.testing.assert_allclose(found.parts.mean[:, 0], mean, atol=1e-10)
    np.testing.assert_allclose(found.parts.covariance[:, 0], covariance, atol=1e-10)


def test_many_components_are_as_many_kalman_filters_with_weights(float64):
    means = np.array([[0.0, 0.0], [2.0, -1.0]])
    start = gaussian_mixture([0.3, 0.7], means, covariance=np.stack([np.eye(2), 0.5 * np.eye(2)]))
    found = filter_mixture(exact, SERIES, initial=start, dynamics=LinearDynamics(MATRIX, NOISE, SHIFT))
    for k, covariance in enumerate([np.eye(2), 0.5 * np.eye(2)]):
        mean, spread = kalman(means[k], covariance, SERIES)
        np.testing.assert_allclose(found.parts.mean[:, k], mean, atol=1e-10)
        np.testing.assert_allclose(found.parts.covariance[:, k], spread, atol=1e-10)
    assert found.law(3).batch_shape == ()
    assert found.law().batch_shape == (12,)
    weights = np.exp(found.parts.log_weights)
    np.testing.assert_allclose(found.effective_components, np.exp(-(weights * np.log(weights)).sum(-1)), rtol=1e-6)


def test_sigma_points_are_exact_for_linear_dynamics(float64):
    parts = components_of(gaussian_mixture([0.4, 0.6], np.eye(2), covariance=np.stack([np.eye(2), 2 * np.eye(2)])))
    linear = LinearDynamics(MATRIX, NOISE, SHIFT).push(parts)
    for spread in (None, 0.5):
        points = SigmaPoints(lambda x: jnp.asarray(MATRIX) @ x + SHIFT, NOISE, spread).push(parts)
        np.testing.assert_allclose(points.mean, linear.mean, atol=1e-12)
        np.testing.assert_allclose(points.covariance, linear.covariance, atol=1e-12)


def test_sigma_points_have_the_mean_of_a_quadratic_map(float64):
    """E[x^2] = m^2 + v, component by component; a first-order (extended Kalman) push would say m^2."""
    parts = components_of(gaussian_mixture([0.5, 0.5], [[1.0], [-2.0]], scale=[[0.5], [1.5]]))
    found = SigmaPoints(lambda x: x**2, np.array([[0.1]])).push(parts)
    np.testing.assert_allclose(found.mean[:, 0], [1.25, 6.25], atol=1e-12)
    # Var x^2 = 4 m^2 v + 2 v^2 for a normal.
    expected = [4 * 0.25 + 2 * 0.25**2 + 0.1, 4 * 4 * 2.25 + 2 * 2.25**2 + 0.1]
    np.testing.assert_allclose(found.covariance[:, 0, 0], expected, rtol=1e-9)


def test_an_update_by_sigma_points_is_exact_for_linear_data(float64):
    parts = components_of(gaussian_mixture([0.4, 0.6], np.eye(2), covariance=np.stack([np.eye(2), 2 * np.eye(2)])))
    seen, noise = jnp.array([0.7]), jnp.asarray(SEEN_NOISE)
    for given, spread in ((noise, None), (lambda x: noise, 0.5)):
        found = SigmaPointUpdate(lambda x: jnp.asarray(OBSERVE) @ x, given, spread)(parts, seen)
        for leaf, expected in zip(found, exact(parts, seen), strict=True):
            np.testing.assert_allclose(leaf, expected, atol=1e-12)
    series = filter_mixture(
        SigmaPointUpdate(lambda x: jnp.asarray(OBSERVE) @ x, noise), SERIES,
        initial=dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), dynamics=LinearDynamics(MATRIX, NOISE, SHIFT),
    )  # fmt: skip
    np.testing.assert_allclose(series.parts.mean[:, 0], kalman(np.zeros(2), np.eye(2), SERIES)[0], atol=1e-10)


def test_an_update_by_sigma_points_knows_the_moments_of_a_quadratic(float64):
    """z = x^2 + N(0, x^2 + r): with x ~ N(m, v), E z = m^2 + v, Var z = 4 m^2 v + 2 v^2 + m^2 + v + r, Cov = 2 m v."""
    m, v, r, seen = 1.0, 0.25, 0.3, 2.0
    start = components_of(dist.Normal(m, np.sqrt(v)))
    found = SigmaPointUpdate(lambda x: x**2, lambda x: jnp.diag(x**2 + r))(start, jnp.array([seen]))
    spread, across = 4 * m**2 * v + 2 * v**2 + m**2 + v + r, 2 * m * v
    np.testing.assert_allclose(found.mean[0, 0], m + across / spread * (seen - m**2 - v), rtol=1e-9)
    np.testing.assert_allclose(found.covariance[0, 0, 0], v - across**2 / spread, rtol=1e-9)


@pytest.mark.parametrize(("num", "size"), [(1, 2), (2, 1), (2, 3), (4, 2), (8, 2), (16, 4)])
def test_a_split_normal_keeps_mean_and_covariance_and_has_different_components(float64, num, size):
    root = np.tril(np.random.default_rng(0).normal(size=(size, size))) + 2 * np.eye(size)
    law = dist.MultivariateNormal(jnp.arange(float(size)), scale_tril=jnp.asarray(root))
    found = split(law, num)
    mean, covariance = moments(found)
    np.testing.assert_allclose(mean, law.loc, atol=1e-9)
    np.testing.assert_allclose(covariance, root @ root.T, atol=1e-9)
    means = np.asarray(components_of(found).mean)
    gaps = np.linalg.norm(means[:, None] - means, axis=-1) + 10 * np.eye(num)
    assert gaps.min() > 0.1


def test_a_split_normal_on_the_line_stays_on_the_line():
    found = split(dist.Normal(1.0, 2.0), 3)
    assert found.event_shape == ()
    np.testing.assert_allclose(moments(found), (1.0, 4.0), rtol=1e-5)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="`law` must be one normal; it has 2 components"):
        split(gaussian_mixture([0.5, 0.5], [0.0, 1.0], scale=[1.0, 1.0]), 4)
    with pytest.raises(ValueError, match="`spread` must be between 0 and 1"):
        split(dist.Normal(0.0, 1.0), 4, spread=1.0)


# The target in the plane: its simulator and its density agree


def test_the_bearing_is_normal_about_the_truth_and_the_range_has_its_parts():
    problem, x = BearingRange(), jnp.array([1.0, 2.0])
    data = jax.vmap(lambda key: problem.simulate(x, key=key))(jr.split(jr.key(0), 40_000))
    bearing = np.arctan2(data["bearing"][:, 0], data["bearing"][:, 1]) - np.arctan2(1.0, 2.0)
    assert abs(bearing.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * len(bearing))
    seen = np.asarray(data["range"])
    edges = np.concatenate([np.linspace(0.0, 4.0, 41), np.linspace(4.5, 20.0, 32)])
    middle = 0.5 * (edges[1:] + edges[:-1])
    here = jnp.broadcast_to(x, (len(middle), 2))
    density = np.exp(np.asarray(problem.log_likelihood(here, {"range": jnp.asarray(middle)}), float))
    expected = density * np.diff(edges) * len(seen)
    counts = np.histogram(seen, edges)[0]
    inside = expected > 5
    z = (counts - expected)[inside] / np.sqrt(expected[inside])
    # 60 cells, midpoint rule: a false alarm in a thousand; swapped clutter shares, as in the published code, give 2000.
    assert np.sum(z**2) < 110
    at_ends = np.mean((seen <= 0) | (seen >= 20))
    ends = jnp.broadcast_to(x, (2, 2))
    mass = np.exp(np.asarray(problem.log_likelihood(ends, {"range": jnp.array([0.0, 20.0])}), float)).sum()
    assert abs(at_ends - mass) < 5 * np.sqrt(max(mass, 1e-4) / len(seen))


def test_the_moments_of_the_data_are_those_of_its_draws():
    """40,000 draws: within 5 standard errors; a mean without the noise of the bearing would be 25 off."""
    problem, x = BearingRange(bearing_sd=0.5), jnp.array([1.0, 2.0])
    data = jax.vmap(lambda key: problem.simulate(x, key=key))(jr.split(jr.key(0), 40_000))
    draws = np.column_stack([data["bearing"], data["range"]]).astype(float)
    mean, covariance = problem.expected(x)
    off = draws - np.asarray(mean)
    np.testing.assert_array_less(np.abs(off.mean(0)), 5 * draws.std(0) / np.sqrt(len(draws)))
    products = off[:, :, None] * off[:, None]
    error = products.std(0) / np.sqrt(len(draws))
    np.testing.assert_array_less(np.abs(products.mean(0) - np.asarray(covariance)), 5 * error + 1e-4)


def test_a_missing_sensor_is_left_out_of_the_likelihood():
    problem, x = BearingRange(), jnp.array([[0.5, 1.0], [1.0, 1.0]])
    data = problem.simulate(x[0], key=jr.key(1))
    both = problem.log_likelihood(x, data)
    each = [problem.log_likelihood(x, {name: data[name]}) for name in data]
    np.testing.assert_allclose(both, sum(each), rtol=1e-5)
