import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from scipy.stats import multivariate_normal

M0 = np.array([0.3, -1.0])
P0 = np.array([[1.5, 0.4], [0.4, 0.8]])
F = np.array([[0.9, 0.3], [-0.2, 0.7]])
Q = np.array([[0.5, 0.1], [0.1, 0.3]])
H = np.array([[1.0, 0.5], [0.2, -1.0], [0.0, 0.7]])
R = np.array([[0.6, 0.2, 0.1], [0.2, 0.9, -0.3], [0.1, -0.3, 0.5]])
NAN = np.nan

COMPLETE = np.array([[0.5, 1.0, -0.3], [1.4, -0.2, 0.8], [0.1, 0.6, 0.0], [-1.2, 0.3, 0.4], [0.7, -0.9, 1.1]])
MISSING = {
    "nothing": np.zeros((5, 3), bool),
    "single entries": np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool),
    "whole times": np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]], bool),
    "the ends": np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]], bool),
    "everything": np.ones((5, 3), bool),
}


def _model():
    return pm.LinearGaussianStateSpace(M0, P0, F, Q, H, R)


# What is missing is data: each of these compiles once for all cases.
_gradients = eqx.filter_jit(jax.grad(lambda model, observed: model.log_likelihood(observed), argnums=(0, 1)))
_smoother_gradient = eqx.filter_jit(jax.grad(lambda model, observed: model.smooth(observed).mean.sum()))
_paths_of_noises = eqx.filter_jit(jax.vmap(lambda *args: args[0]._path_of_noise(*args[1:]), (None, None, 0)))


@eqx.filter_jit
def _log_densities(problem, paths):
    return jax.vmap(lambda path: problem.target.log_density({"state": path}))(paths)


@pytest.fixture(params=list(MISSING))
def observed(request):
    return np.where(MISSING[request.param], NAN, COMPLETE)


def _joint(num_steps):
    """Mean and covariance of all states, then all observations, written out in full."""
    d, p = 2, 3
    # Each state is a linear map of the first one and of all moves.
    maps = [np.zeros((d, d * num_steps)) for _ in range(num_steps)]
    for t in range(num_steps):
        if t > 0:
            maps[t] = F @ maps[t - 1]
        maps[t][:, t * d : (t + 1) * d] = np.eye(d)
    states = np.concatenate(maps)
    sources = np.kron(np.eye(num_steps), Q)
    sources[:d, :d] = P0
    state_mean = states[:, :d] @ M0
    state_cov = states @ sources @ states.T
    see = np.kron(np.eye(num_steps), H)
    mean = np.concatenate([state_mean, see @ state_mean])
    cross = state_cov @ see.T
    cov = np.block([[state_cov, cross], [cross.T, see @ cross + np.kron(np.eye(num_steps), R)]])
    assert mean.size == num_steps * (d + p)
    return mean, cov


def _conditional(num_steps, observed):
    """Moments of states and observations given what is not NaN in `observed`, and its log density."""
    mean, cov = _joint(num_steps)
    flat = np.full(num_steps * 3, NAN)
    flat[: observed.size] = observed.ravel()
    seen = np.flatnonzero(~np.isnan(flat))
    if seen.size == 0:
        return mean, cov, 0.0
    at = num_steps * 2 + seen
    gain = np.linalg.solve(cov[np.ix_(at, at)], cov[at]).T
    log_density = multivariate_normal(mean[at], cov[np.ix_(at, at)]).logpdf(flat[seen])
    return mean + gain @ (flat[seen] - mean[at]), cov - gain @ cov[at], log_density


def _state(moments, t):
    at = slice(2 * t, 2 * t + 2)
    return moments[0][at], moments[1][at, at]


def _seen(moments, num_steps, t):
    at = slice(2 * num_steps + 3 * t, 2 * num_steps + 3 * t + 3)
    return moments[0][at], moments[1][at, at]


def _close(got, truth):
    np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-10)


def test_the_filter_is_the_joint_gaussian_conditioned_on_the_past(float64, observed):
    filtered = _model().filter(observed)
    for t in range(5):
        before, after = _conditional(5, observed[:t]), _conditional(5, observed[: t + 1])
        _close(filtered.predicted_mean[t], _state(before, t)[0])
        _close(filtered.predicted_cov[t], _state(before, t)[1])
        _close(filtered.mean[t], _state(after, t)[0])
        _close(filtered.cov[t], _state(after, t)[1])
        _close(filtered.observed_mean[t], _seen(before, 5, t)[0])
        _close(filtered.observed_cov[t], _seen(before, 5, t)[1])
        _close(filtered.log_likelihood_terms[t], after[2] - before[2])


def test_the_log_likelihood_is_the_density_of_the_joint_gaussian(float64, observed):
    _close(_model().log_likelihood(observed), _conditional(5, observed)[2])


def test_the_smoother_is_the_joint_gaussian_conditioned_on_everything(float64, observed):
    smoothed = _model().smooth(observed)
    truth = _conditional(5, observed)
    for t in range(5):
        _close(smoothed.mean[t], _state(truth, t)[0])
        _close(smoothed.cov[t], _state(truth, t)[1])
        if t < 4:
            _close(smoothed.next_cov[t], truth[1][2 * t : 2 * t + 2, 2 * t + 2 : 2 * t + 4])


def test_forecasts_are_the_joint_gaussian_of_what_follows(float64, observed):
    forecast = _model().forecast(observed, steps=3)
    truth = _conditional(8, observed)
    for t in range(3):
        _close(forecast.mean[t], _state(truth, 5 + t)[0])
        _close(forecast.cov[t], _state(truth, 5 + t)[1])
        _close(forecast.observed_mean[t], _seen(truth, 8, 5 + t)[0])
        _close(forecast.observed_cov[t], _seen(truth, 8, 5 + t)[1])


def test_path_draws_have_exactly_the_joint_smoothing_law(float64, observed):
    # A draw is a linear map of standard normal noise. Reading the map off, one unit of noise at a time, gives
    # mean and covariance of the draws without statistics.
    truth = _conditional(5, observed)
    units = np.concatenate([np.zeros((1, 20)), np.eye(20)]).reshape(21, 5, 2, 2)
    paths = np.asarray(_paths_of_noises(_model(), observed, units)).reshape(21, 10)
    moves = paths[1:] - paths[0]
    _close(paths[0], truth[0][:10])
    _close(moves.T @ moves, truth[1][:10, :10])


def test_simulated_series_have_the_law_of_the_model(assert_standard_normal):
    # 20,000 replicates of 15 numbers, 135 statistics at 5 standard errors: false alarm 8e-5; a mean off by 7
    # % of its sd, or a variance by 10 %, is caught for sure.
    draw = jax.jit(jax.vmap(lambda key: _model().simulate(num_steps=3, key=key)))
    states, seen = draw(jr.split(jr.key(1), 20_000))
    mean, cov = _joint(3)
    rows = np.column_stack([states.reshape(-1, 6), seen.reshape(-1, 9)])
    assert_standard_normal(np.linalg.solve(np.linalg.cholesky(cov), (rows - mean).T).T)


def test_path_draws_differ_by_key_and_repeat_by_key():
    first, again, other = (_model().sample_path(COMPLETE, key=jr.key(seed)) for seed in (0, 0, 1))
    assert eqx.tree_equal(first, again)
    assert not eqx.tree_equal(first, other)


def test_gradients_are_those_of_finite_differences_whatever_is_missing(float64, observed):
    by_model, by_data = _gradients(_model(), observed)
    leaves, treedef = jax.tree.flatten(_model())
    rng = np.random.default_rng(0)
    for _ in range(3):  # along random directions in all parameters at once
        direction = [rng.standard_normal(leaf.shape) for leaf in leaves]
        ends = []
        for h in (1e-5, -1e-5):
            moved = [a + h * b for a, b in zip(leaves, direction, strict=True)]
            ends.append(jax.tree.unflatten(treedef, moved).log_likelihood(observed))
        slope = sum(np.sum(g * b) for g, b in zip(jax.tree.leaves(by_model), direction, strict=True))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)
    assert np.all(np.isfinite(by_data))
    assert np.all(np.asarray(by_data)[np.isnan(observed)] == 0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(_smoother_gradient(_model(), observed)))


def test_float32_stays_accurate_and_definite_under_a_nearly_diffuse_prior():
    # A trend of 300 steps with gaps; the level is known at first only to 100 and seen to 0.1.
    def model():
        return pm.LinearGaussianStateSpace(
            [0, 0], np.diag([1e4, 1e4]), [[1, 1], [0, 1]], [[0.1, 0], [0, 1e-3]], [[1, 0]], [[0.01]]
        )

    time = np.arange(300.0)
    observed = np.float32(np.sin(time / 20) * 30 + 0.1 * np.cos(17 * time))[:, None]
    observed[50:70] = NAN
    observed[:3] = NAN
    single = jax.tree.map(np.asarray, (model().filter(observed), model().smooth(observed)))
    with jax.enable_x64(True):
        double = jax.tree.map(np.asarray, (model().filter(observed), model().smooth(observed)))
    for got, truth in zip(single, double, strict=True):
        sd = np.sqrt(np.diagonal(truth.cov, axis1=1, axis2=2))
        assert np.max(np.abs(got.mean - truth.mean) / sd) < 2e-3
        np.testing.assert_allclose(np.diagonal(got.cov, axis1=1, axis2=2), sd**2, rtol=2e-3)
        eigenvalues = np.linalg.eigvalsh(np.asarray(got.cov, np.float64))
        assert np.all(eigenvalues > -1e-7 * eigenvalues.max(1, keepdims=True))
    np.testing.assert_allclose(single[0].log_likelihood, double[0].log_likelihood, rtol=1e-5)


def test_singular_moves_are_allowed_in_filter_smoother_and_draws(float64):
    # An integrated random walk: only the slope moves.
    model = pm.LinearGaussianStateSpace(
        [0.0, 0.0], np.eye(2), [[1.0, 1.0], [0.0, 1.0]], np.diag([0.0, 0.5]), [[1.0, 0.0]], [[0.1]]
    )
    observed = np.array([[0.1], [0.5], [1.5], [2.0]])
    path = model.sample_path(observed, key=jr.key(3))
    np.testing.assert_allclose(path[1:, 0], path[:-1, 0] + path[:-1, 1], atol=1e-10)
    states, _ = model.simulate(num_steps=6, key=jr.key(4))
    np.testing.assert_allclose(states[1:, 0], states[:-1, 0] + states[:-1, 1], atol=1e-12)
    assert np.all(np.isfinite(model.smooth(observed).cov))


def test_a_series_of_one_step_works(float64):
    one = COMPLETE[:1]
    _close(_model().smooth(one).mean[0], _state(_conditional(1, one), 0)[0])
    assert _model().smooth(one).next_cov.shape == (0, 2, 2)
    assert _model().sample_path(one, key=jr.key(0)).shape == (1, 2)
    assert _model().simulate(num_steps=1, key=jr.key(0))[1].shape == (1, 3)


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`transition_matrix` must have shape \(2, 2\); got \(3, 3\)"):
        pm.LinearGaussianStateSpace(M0, P0, np.eye(3), Q, H, R)
    with pytest.raises(ValueError, match=r"`emission_cov` must have shape \(3, 3\)"):
        pm.LinearGaussianStateSpace(M0, P0, F, Q, H, Q)
    with pytest.raises(ValueError, match=r"`observed` must have shape \(time, 3\); got \(5,\).*jax.vmap"):
        _model().log_likelihood(COMPLETE[:, 0])


def test_the_target_of_the_path_is_evidence_times_the_smoothing_law(float64, observed):
    problem = pm.StateSpacePosterior(_model(), observed)
    mean, cov, log_evidence = _conditional(5, observed)
    law = multivariate_normal(mean[:10], cov[:10, :10])
    _close(problem.mean["state"].ravel(), mean[:10])
    _close(problem.sd["state"].ravel(), np.sqrt(np.diag(cov)[:10]))
    _close(problem.log_evidence, log_evidence)
    paths = np.stack([problem.sample(key=jr.key(seed))["state"] for seed in range(3)])
    _close(_log_densities(problem, paths), log_evidence + law.logpdf(paths.reshape(3, 10)))
    assert problem.target.structure.observed == {"y": (5, 3)}
    assert problem.target.labels.dims["state"] == ["time", "component"]
    np.testing.assert_array_equal(problem.target.unconstrain({"state": paths[0]})["state"], paths[0])


def test_the_path_has_no_target_where_it_has_no_density():
    model = eqx.tree_at(lambda m: m.transition_cov, _model(), jnp.diag(jnp.array([0.0, 1.0])))
    with pytest.raises(ValueError, match=r"`model.transition_cov` must be positive definite"):
        pm.StateSpacePosterior(model, COMPLETE)


def test_the_target_of_the_path_simulates_from_the_model(assert_mean):
    # 4,000 replicates, 25 statistics at 5 standard errors: false alarm 1.4e-5; means off by 16 % of an sd are
    # caught.
    target = pm.StateSpacePosterior(_model(), COMPLETE).target
    draws = jax.jit(jax.vmap(lambda key: target.sample_prior(key=key)["state"]))(jr.split(jr.key(5), 4_000))
    assert_mean(draws.reshape(-1, 10), _joint(5)[0][:10])
    values = {"state": draws[0]}
    seen = jax.jit(jax.vmap(lambda key: target.sample_predictive(values, key=key)["y"]))(jr.split(jr.key(6), 4_000))
    assert_mean(seen.reshape(-1, 15), (np.asarray(draws[0]) @ H.T).ravel())
