"""Transition probabilities against SciPy's exponential, closed forms, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from posterax_mjp import generator, limit_law, transition_probs
from posterax_mjp._generators import check_generator
from posterax_models import FlashingRatchet

pytestmark = pytest.mark.usefixtures("float64")


def random_generator(size, seed=0, scale=1.0):
    rates = scale * np.random.default_rng(seed).exponential(size=(size, size))
    np.fill_diagonal(rates, 0.0)
    return rates - np.diag(rates.sum(1))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_they_are_the_matrix_exponential(size):
    q, gaps = random_generator(size), np.array([0.0, 1e-6, 0.01, 0.3, 2.0, 17.0, 400.0])
    found = np.asarray(transition_probs(jnp.asarray(q), jnp.asarray(gaps)))
    exact = np.stack([scipy.linalg.expm(q * gap) for gap in gaps])
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-14)
    assert (found >= 0).all()


def test_small_probabilities_keep_their_digits():
    # Over a small gap d, going from the first to the last of four states in a row is d^3 / 6 to first order.
    q = np.diag([1.0, 1.0, 1.0], 1)
    q -= np.diag(q.sum(1))
    found = np.asarray(transition_probs(jnp.asarray(q), jnp.asarray([1e-5])))[0, 0, 3]
    assert found == pytest.approx(1e-15 / 6, rel=1e-4)


def test_stiff_chains_come_to_rest():
    q = generator(jnp.asarray([[0.0, 1e6], [1.0, 0.0]]))
    found = np.asarray(transition_probs(q, jnp.asarray([1e-6, 5.0])))
    rest = 1 / (1 + 1e6)
    assert found[0, 0, 0] == pytest.approx(rest + (1 - rest) * np.exp(-1.000001), rel=1e-9)
    np.testing.assert_allclose(found[1], [[rest, 1 - rest]] * 2, rtol=1e-7)


def test_a_state_that_is_never_left():
    q = jnp.asarray([[-0.5, 0.5], [0.0, 0.0]])
    found = np.asarray(transition_probs(q, jnp.asarray([3.0])))[0]
    np.testing.assert_allclose(found, [[np.exp(-1.5), 1 - np.exp(-1.5)], [0, 1]], rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(transition_probs(jnp.zeros((2, 2)), jnp.asarray([3.0])))[0], np.eye(2))


def test_first_and_second_derivatives_are_those_of_differences():
    rates = jnp.asarray(np.exp(0.3 * np.random.default_rng(1).normal(size=(3, 3))))
    gaps = jnp.asarray([0.2, 4.0])

    @jax.jit
    def value(logs):
        return jnp.sum(jnp.log(transition_probs(generator(jnp.exp(logs)), gaps)) ** 2)

    at, gradient, hessian = jnp.log(rates), jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    for i, j in [(0, 1), (2, 0)]:
        step = 1e-5 * jnp.zeros((3, 3)).at[i, j].set(1.0)
        assert gradient(at)[i, j] == pytest.approx(float((value(at + step) - value(at - step)) / 2e-5), rel=1e-6)
        second = (gradient(at + step) - gradient(at - step)) / 2e-5
        np.testing.assert_allclose(hessian(at)[i, j], second, rtol=1e-5, atol=1e-6)


def test_single_precision_is_as_good_as_its_digits():
    q = random_generator(4, 3)
    found = transition_probs(jnp.asarray(q, jnp.float32), jnp.asarray([0.5, 30.0, 1e5], jnp.float32))
    exact = np.stack([scipy.linalg.expm(q * gap) for gap in (0.5, 30.0, 1e5)])
    np.testing.assert_allclose(found, exact, atol=2e-5)


def test_the_limit_is_the_stationary_law_or_what_is_reached():
    ratchet = FlashingRatchet(1.0)
    np.testing.assert_allclose(limit_law(jnp.asarray(ratchet.generator)), ratchet.stationary_law, rtol=1e-9)
    # Competing risks: from state 0 to 1 or 2, which keep what they have.
    q = jnp.asarray([[-4.0, 3.0, 1.0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(limit_law(q), [0, 1 / 3 + 0.25, 1 / 3 + 1 / 12], atol=1e-12)
    np.testing.assert_allclose(limit_law(q, jnp.asarray([1.0, 0, 0])), [0, 0.75, 0.25], atol=1e-12)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((2, 3)), "square matrix"),
        ([[-1.0, 1.0], [-0.5, 0.5]], r"entry \[1, 0\] is -0.5"),
        ([[-1.0, np.nan], [0.5, -0.5]], r"entry \[0, 1\] is nan"),
        ([[0.0, 1.0], [0.5, -0.5]], "row 0 sums to 1"),
    ],
)
def test_what_is_no_rate_matrix_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        check_generator(value)


# The ratchet's table: stationary law, entropy production and relaxation times, r = b = 1.
RATCHET = {
    0.5: ([0.23564, 0.15816, 0.10620, 0.18391, 0.16454, 0.15155], 0.04854, [0.5, 0.350, 0.306, 0.205, 0.186]),
    1.0: ([0.30119, 0.13654, 0.06227, 0.20030, 0.15914, 0.14057], 0.17919, [0.5, 0.3496, 0.2806, 0.2050, 0.1589]),
    4.0: ([0.47302, 0.02479, 0.00218, 0.24326, 0.13120, 0.12555], 1.41251, [0.5, 0.2636, 0.2511, 0.1130, 0.0159]),
}


@pytest.mark.parametrize("potential", RATCHET)
def test_the_flashing_ratchet(potential):
    ratchet, (law, entropy, times) = FlashingRatchet(potential), RATCHET[potential]
    np.testing.assert_allclose(ratchet.stationary_law, law, atol=6e-6)
    assert ratchet.entropy_production == pytest.approx(entropy, abs=6e-6)
    modes = np.sort(-np.linalg.eigvals(ratchet.generator).real)[1:]
    np.testing.assert_allclose(1 / modes, times, atol=6e-4)
    found = FlashingRatchet.settings_of(ratchet.rates)
    np.testing.assert_allclose(found, (potential, 1, 1), rtol=1e-12)


def test_the_flashing_ratchet_is_that_of_the_published_data(data_folder):
    with np.load(data_folder / "mjp" / "dfr_V1.npz") as published:
        np.testing.assert_allclose(FlashingRatchet(1.0).generator, published["rate_matrix"], atol=1e-6)
        np.testing.assert_allclose(FlashingRatchet(1.0).stationary_law, published["initial"], atol=1e-6)
