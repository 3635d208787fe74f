import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest
from jax.test_util import check_grads
from scipy.stats import chisquare, norm

INITIAL = np.array([0.5, 0.3, 0.2])
TRANSITION = np.array([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])
SYMBOLS = np.array([[0.6, 0.3, 0.1, 0.0], [0.1, 0.1, 0.4, 0.4], [0.25, 0.25, 0.0, 0.5]])
MEAN, SD = np.array([-1.0, 0.5, 2.0]), np.array([0.7, 1.0, 0.4])

CASES = {
    "symbols": (lambda: pm.CategoricalEmission(SYMBOLS), np.array([0, 2, 1, 3, 0])),
    "symbols with gaps": (lambda: pm.CategoricalEmission(SYMBOLS), np.array([-1, 2, -1, 3, -1])),
    "numbers": (lambda: pm.GaussianEmission(MEAN, SD), np.array([-0.3, 1.7, 0.2, -2.0, 1.0])),
    "numbers with gaps": (lambda: pm.GaussianEmission(MEAN, SD), np.array([-0.3, np.nan, np.nan, 2.5, 1.0])),
}


def _chain(emission):
    return pm.HiddenMarkovChain(INITIAL, TRANSITION, emission)


@pytest.fixture(params=list(CASES))
def case(request, float64):
    emission, observed = CASES[request.param]
    return _chain(emission()), observed


def _density(state, y):
    if np.issubdtype(np.asarray(y).dtype, np.integer):
        return 1.0 if y < 0 else SYMBOLS[state, y]
    return 1.0 if np.isnan(y) else norm.pdf(y, MEAN[state], SD[state])


def _enumerate(observed):
    """All paths, and the probability of each together with what was observed."""
    paths = np.array(list(itertools.product(range(3), repeat=len(observed))))
    joint = INITIAL[paths[:, 0]].copy()
    for t, y in enumerate(observed):
        joint *= np.array([_density(state, y) for state in paths[:, t]])
        if t > 0:
            joint *= TRANSITION[paths[:, t - 1], paths[:, t]]
    return paths, joint


def _close(got, truth):
    np.testing.assert_allclose(got, truth, rtol=1e-10, atol=1e-13)


def test_filter_and_likelihood_are_sums_over_all_paths(case):
    chain, observed = case
    filtered = chain.filter(observed)
    total = 1.0
    for t in range(len(observed)):
        paths, joint = _enumerate(observed[: t + 1])
        _close(filtered.probs[t], [joint[paths[:, t] == k].sum() / joint.sum() for k in range(3)])
        _close(filtered.log_likelihood_terms[t], np.log(joint.sum() / total))
        total = joint.sum()
        # What is predicted does not know the last observation.
        blind = np.concatenate([observed[:t], [-1 if observed.dtype.kind == "i" else np.nan]]).astype(observed.dtype)
        paths, joint = _enumerate(blind)
        _close(filtered.predicted_probs[t], [joint[paths[:, t] == k].sum() / joint.sum() for k in range(3)])
    _close(chain.log_likelihood(observed), np.log(total))
    _close(filtered.log_likelihood, np.log(total))


def test_smoothed_probabilities_are_sums_over_all_paths(case):
    chain, observed = case
    smoothed = chain.smooth(observed)
    paths, joint = _enumerate(observed)
    posterior = joint / joint.sum()
    for t in range(len(observed)):
        _close(smoothed.probs[t], [posterior[paths[:, t] == k].sum() for k in range(3)])
    for t in range(len(observed) - 1):
        truth = [[posterior[(paths[:, t] == i) & (paths[:, t + 1] == j)].sum() for j in range(3)] for i in range(3)]
        _close(smoothed.pair_probs[t], truth)


def test_the_most_likely_path_is_the_best_of_all(case):
    chain, observed = case
    path, log_joint = chain.most_likely_path(observed)
    paths, joint = _enumerate(observed)
    np.testing.assert_array_equal(path, paths[joint.argmax()])
    _close(log_joint, np.log(joint.max()))


def test_the_joint_density_of_a_path_is_its_product(case):
    chain, observed = case
    paths, joint = _enumerate(observed)
    with np.errstate(divide="ignore"):
        truth = np.log(joint)
    _close(jax.vmap(lambda path: chain.log_joint(path, observed))(paths), truth)


def test_path_draws_have_the_posterior_law_of_paths(case):
    # Chi-squared over all possible paths of 3 steps (rare ones pooled), 20,000 draws, false alarm 1e-6; sure
    # to catch any path whose probability of 0.1 is off by 0.02.
    chain, observed = case
    observed = observed[:3]
    draws = jax.jit(jax.vmap(lambda key: chain.sample_path(observed, key=key)))(jr.split(jr.key(0), 20_000))
    paths, joint = _enumerate(observed)
    expected = 20_000 * joint / joint.sum()
    counts = np.bincount(np.asarray(draws) @ [9, 3, 1], minlength=27)
    assert counts[joint == 0].sum() == 0
    common = expected > 10
    pooled = [np.append(x[common], x[~common].sum()) for x in (counts, expected)]
    kept = pooled[1] > 0
    assert chisquare(pooled[0][kept], pooled[1][kept]).pvalue > 1e-6
    assert len(paths) == 27


@pytest.mark.parametrize("name", ["symbols", "numbers"])
def test_simulated_series_have_the_law_of_the_model(name, assert_mean):
    # 20,000 replicates; 9 state pairs and the observations' means by state at 5 standard errors: false alarm
    # 1e-5; a probability of 0.3 that is off by 0.03 is caught for sure.
    chain = _chain(CASES[name][0]())
    path, seen = jax.jit(jax.vmap(lambda key: chain.simulate(num_steps=3, key=key)))(jr.split(jr.key(1), 20_000))
    path, seen = np.asarray(path), np.asarray(seen)
    at_two = INITIAL @ TRANSITION
    for i, j in itertools.product(range(3), repeat=2):
        hits = (path[:, 1] == i) & (path[:, 2] == j)
        if at_two[i] * TRANSITION[i, j] == 0:
            assert not hits.any()
        else:
            assert_mean(hits, at_two[i] * TRANSITION[i, j])
    for state in range(3):
        here = seen[:, 2][path[:, 2] == state]
        if name == "numbers":
            assert_mean(here, MEAN[state])
            assert_mean((here - MEAN[state]) ** 2, SD[state] ** 2)
        else:
            possible = SYMBOLS[state] > 0
            assert_mean(here[:, None] == np.flatnonzero(possible), SYMBOLS[state][possible])
            assert not np.isin(here, np.flatnonzero(~possible)).any()


def test_gradients_are_those_of_finite_differences_also_where_probabilities_are_zero(float64):
    _, observed = CASES["numbers with gaps"]

    def log_likelihood(initial, mean, sd):
        chain = eqx.tree_at(
            lambda c: (c.initial_probs, c.emission.mean, c.emission.sd),
            _chain(pm.GaussianEmission(MEAN, SD)),
            (initial, mean, sd),
        )
        return chain.log_likelihood(observed)

    check_grads(log_likelihood, (INITIAL, MEAN, SD), order=1, modes=["rev"], rtol=1e-5)
    gradient = jax.grad(lambda chain: chain.log_likelihood(observed))(_chain(pm.GaussianEmission(MEAN, SD)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_what_cannot_happen_has_likelihood_zero_and_no_nan():
    # Symbol 2 is impossible in state 0, which this chain never leaves.
    chain = pm.HiddenMarkovChain([1.0, 0.0], np.eye(2), pm.CategoricalEmission([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    observed = np.array([0, 2, 1])
    assert chain.log_likelihood(observed) == -np.inf
    assert np.all(np.isfinite(chain.filter(observed).probs))
    assert np.all(np.isfinite(chain.smooth(observed).probs))
    gradient = jax.grad(lambda probs: eqx.tree_at(lambda c: c.emission.probs, chain, probs).log_likelihood(observed))
    assert np.all(np.isfinite(gradient(chain.emission.probs)))


def test_nan_in_the_parameters_is_not_taken_for_impossible():
    chain = eqx.tree_at(lambda c: c.emission.mean, _chain(pm.GaussianEmission(MEAN, SD)), jnp.full(3, jnp.nan))
    assert np.isnan(chain.log_likelihood(np.array([0.0, 1.0])))


def test_a_symbol_past_the_last_gives_nan():
    assert np.isnan(_chain(pm.CategoricalEmission(SYMBOLS)).log_likelihood(np.array([0, 4])))


def test_long_series_neither_underflow_nor_lose_digits_in_float32():
    chain = _chain(pm.GaussianEmission(MEAN, SD))
    _, observed = chain.simulate(num_steps=3_000, key=jr.key(2))
    observed = np.asarray(observed).astype(np.float64)
    observed[1500] = 60.0  # e^-6000 in every state
    single = chain.log_likelihood(observed)
    with jax.enable_x64(True):
        double = _chain(pm.GaussianEmission(MEAN, SD)).log_likelihood(observed)
    np.testing.assert_allclose(single, double, rtol=1e-5)
    probs = np.asarray(chain.smooth(observed).probs)
    np.testing.assert_allclose(probs.sum(1), 1.0, atol=1e-3)


def test_wrong_arguments_are_refused_by_name():
    emission = pm.CategoricalEmission(SYMBOLS)
    with pytest.raises(ValueError, match="`transition_matrix` must be non-negative with a sum of 1"):
        pm.HiddenMarkovChain(INITIAL, TRANSITION.T, emission)
    with pytest.raises(ValueError, match=r"`transition_matrix` must have shape \(3, 3\)"):
        pm.HiddenMarkovChain(INITIAL, np.eye(2), emission)
    with pytest.raises(ValueError, match="`emission` must have the 2 states of `initial_probs`; got 3"):
        pm.HiddenMarkovChain([0.5, 0.5], np.eye(2), emission)
    with pytest.raises(ValueError, match=r"`sd` must be positive"):
        pm.GaussianEmission(MEAN, -SD)
    with pytest.raises(ValueError, match=r"`observed` must have shape \(time,\)"):
        _chain(emission).filter(np.zeros((3, 2), int))
