"""Quantities of rate matrices against the ratchet's table, simulation-free closed forms and each other."""

import numpy as np
import pytest
import scipy.linalg
from posterax_mjp import (
    committors,
    entropy_production,
    first_passage_times,
    relaxation_times,
    sojourn_times,
    stationary_law,
)
from posterax_models import FlashingRatchet

TWO = np.array([[-0.5, 0.5], [2.0, -2.0]])
CHAIN = np.array([[-1.0, 1.0, 0, 0], [1, -3, 2, 0], [0, 1, -2, 1], [0, 0, 4, -4]])  # birth and death


def test_two_states():
    np.testing.assert_allclose(stationary_law(TWO), [0.8, 0.2])
    np.testing.assert_allclose(first_passage_times(TWO), [[0, 2], [0.5, 0]])
    np.testing.assert_allclose(relaxation_times(TWO), [0.4])
    np.testing.assert_allclose(sojourn_times(TWO), [2, 0.5])
    assert entropy_production(TWO) == pytest.approx(0, abs=1e-14)


def test_the_ratchet():
    q = FlashingRatchet(1.0).generator
    published = [0, 2.0535, 2.9653, 1.3308, 2.3832, 2.7267]
    np.testing.assert_allclose(first_passage_times(q)[0], published, atol=6e-5)
    for potential, rate in {0.0: 0, 0.5: 0.04854, 1.0: 0.17919, 2.0: 0.56565, 3.0: 0.99274, 4.0: 1.41251}.items():
        assert entropy_production(FlashingRatchet(potential).generator) == pytest.approx(rate, abs=6e-6)
    np.testing.assert_allclose(relaxation_times(q), [0.5, 0.3496, 0.2806, 0.2050, 0.1589], atol=6e-5)


def test_birth_and_death_is_in_detailed_balance():
    law = np.array([1.0, 1, 2, 0.5]) / 4.5
    np.testing.assert_allclose(stationary_law(CHAIN), law, rtol=1e-12)
    assert entropy_production(CHAIN) == pytest.approx(0, abs=1e-12)
    assert entropy_production(CHAIN, [0.25] * 4) > 0


def test_committors_are_harmonic_and_a_closed_form():
    found = committors(CHAIN, [0], [3])
    # Resistances between neighbours are 1 / (p_i q_ij): 1, 1/2, 1/2 up to a constant.
    np.testing.assert_allclose(found, [0, 0.5, 0.75, 1], rtol=1e-12)
    np.testing.assert_allclose((CHAIN @ found)[1:3], 0, atol=1e-12)
    np.testing.assert_allclose(committors(TWO, [0], [1]), [0, 1])


def test_passage_times_are_integrals_of_survival():
    times = np.linspace(0, 60, 60_001)
    inner = CHAIN[:3, :3]
    step = scipy.linalg.expm(inner * (times[1] - times[0]))
    alive, survival = np.eye(3)[0], []
    for _ in times:
        survival.append(alive.sum())
        alive = alive @ step
    assert first_passage_times(CHAIN)[0, 3] == pytest.approx(np.trapezoid(survival, times), rel=1e-5)


def test_states_that_are_not_left():
    q = np.array([[-1.0, 1.0, 0], [1, -3, 2], [0, 0, 0]])
    np.testing.assert_allclose(stationary_law(q), [0, 0, 1], atol=1e-14)
    found = first_passage_times(q)
    assert np.isinf(found[2, :2]).all()
    assert found[0, 1] == pytest.approx(1)  # from 0 the only way is to 1
    assert np.isinf(found[1, 0])  # from 1 it may be lost to 2
    assert found[0, 2] == pytest.approx(2.0)
    assert np.isinf(sojourn_times(q)[2])
    assert np.isinf(entropy_production(np.array([[-1.0, 1, 0], [0, -1, 1], [1, 0, -1]])))


def test_many_at_once():
    draws = np.stack([FlashingRatchet(v).generator for v in (0.5, 1.0, 2.0)])[None]
    for function in (stationary_law, first_passage_times, relaxation_times, sojourn_times, entropy_production):
        np.testing.assert_allclose(function(draws)[0, 1], function(draws[0, 1]), rtol=1e-10)
    np.testing.assert_allclose(committors(draws, [0], [5])[0, 1], committors(draws[0, 1], [0], [5]))


APART = np.array([[-1.0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stationary_law(APART), r"several stationary laws: states \[1, 2\]"),
        (lambda: stationary_law(np.stack([FlashingRatchet().generator[:3, :3] * 0 + APART] * 2)), "several"),
        (lambda: stationary_law([[0.0, 1.0], [1.0, -1.0]]), "sum to 0"),
        (lambda: entropy_production([[-1.0, np.nan], [1.0, -1.0]]), "finite"),
        (lambda: sojourn_times(np.zeros((2, 3))), r"\(2, 3\)"),
        (lambda: committors(TWO, [0], [0]), "different states"),
        (lambda: committors(np.diag([0.0, 0, 0]), [0], [1]), "neither"),
    ],
)
def test_questions_without_an_answer(call, words):
    with pytest.raises(ValueError, match=words):
        call()
