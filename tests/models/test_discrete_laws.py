"""Discrete laws with exact marginals, against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from posterax import Batches, train
from posterax_models import (
    Checkerboard,
    CircuitLikelihood,
    IsingLattice,
    MarkovChainLaw,
    SubsetMarginals,
    TreeCircuit,
    assignments,
)


def table_of(law, num_values):
    return np.asarray(law.log_weight(assignments(num_values)), float).reshape(num_values)


def subsets(size):
    return [np.array(mask, bool) for mask in itertools.product([False, True], repeat=size)]


# All marginals of a table


@pytest.mark.parametrize("spread", [1.0, 400.0], ids=["by sums", "by logarithms"])
def test_every_marginal_is_the_sum_over_what_is_not_observed(spread):
    num_values = (2, 3, 2)
    table = spread * np.random.default_rng(0).normal(size=num_values)
    table[1, 2, 0] = -np.inf
    found, states = SubsetMarginals.of(table), assignments(num_values)
    flat = table.ravel()
    total = np.logaddexp.reduce(flat)
    np.testing.assert_allclose(found.log_partition, total, rtol=1e-12)
    for mask in subsets(3):
        for x in states:
            agrees = (states == x)[:, mask].all(-1)
            expected = np.logaddexp.reduce(flat[agrees]) - total
            np.testing.assert_allclose(found(x, mask), expected, rtol=1e-5, atol=1e-6)


def test_tables_that_cannot_be_listed_are_refused():
    with pytest.raises(ValueError, match=r"at most 6\.7e\+07 are listed"):
        SubsetMarginals.of(np.zeros((2,) * 17))
    for bad in (np.full((2, 2), -np.inf), np.array([0.0, np.nan]), np.array([0.0, np.inf])):
        with pytest.raises(ValueError, match="must be finite or -inf, and not all -inf"):
            SubsetMarginals.of(bad)


# Ising


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4), (3, 2)])
def test_the_transfer_matrix_agrees_with_enumeration(rows, columns):
    law = IsingLattice(rows, columns, 0.3, -0.1)
    states = assignments((2,) * law.num_sites)
    log_f = np.asarray(law.log_weight(states), float)
    log_z = np.logaddexp.reduce(log_f)
    probs = np.exp(log_f - log_z)
    np.testing.assert_allclose(law.log_partition(), log_z, atol=1e-5)
    np.testing.assert_allclose(law.entropy(), log_z - probs @ log_f, atol=1e-5)
    bits = 2 ** np.arange(rows)[::-1]
    column = states.reshape(-1, rows, columns).transpose(0, 2, 1) @ bits
    np.testing.assert_allclose(law.column_probs(), np.bincount(column[:, 0], probs, 2**rows), atol=1e-6)
    for apart in range(1, columns):
        pair = np.zeros((2**rows, 2**rows))
        np.add.at(pair, (column[:, 0], column[:, apart]), probs)
        np.testing.assert_allclose(law.pair_probs(apart), pair, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_known_sites_are_summed_over_no_more(share):
    law, rng = IsingLattice(3, 4, 0.5, -0.2), np.random.default_rng(1)
    known = np.where(rng.uniform(size=12) < share, rng.integers(0, 2, 12), -1)
    states = assignments((2,) * 12)
    agrees = ((known < 0) | (states == known)).all(1)
    log_f = np.where(agrees, np.asarray(law.log_weight(states), float), -np.inf)
    log_sum, probs = law.given(known)
    np.testing.assert_allclose(log_sum, np.logaddexp.reduce(log_f), rtol=1e-6)
    np.testing.assert_allclose(probs, np.exp(log_f - np.logaddexp.reduce(log_f)) @ states, atol=1e-6)


def test_the_weight_counts_each_edge_of_the_torus_once():
    law = IsingLattice(3, 4, 0.5, 0.25)
    assert law.log_weight(jnp.ones(12, int)) == 0.5 * 24 + 0.25 * 12
    one_down = jnp.ones(12, int).at[5].set(0)
    assert law.log_weight(one_down) == 0.5 * (24 - 8) + 0.25 * 10


@pytest.mark.parametrize(
    ("coupling", "field", "log_z", "bits"),
    [(0.2, 0.2, 78.6881, 0.7833), (0.1, 0.2, 73.3881, 0.9216), (0.2, 0.0, 73.4531, 0.9361),
     (0.4407, 0.0, 93.6123, 0.4119), (0.4, 0.2, 103.5766, 0.2646)],
)  # fmt: skip
def test_the_ten_by_ten_lattice_has_the_values_of_another_computation(coupling, field, log_z, bits):
    """The specification's, given to four digits."""
    law = IsingLattice(10, 10, coupling, field)
    assert abs(law.log_partition() - log_z) < 6e-5
    assert abs(law.entropy() / (100 * np.log(2)) - bits) < 6e-5


def test_exact_draws_have_the_law_of_the_lattice():
    """4,000 draws: mean energy within 5 standard errors (columns that do not know of each other are 51 off); the law of
    a pair by chi-square, false alarm 3e-4 (neighbours for columns two apart give 140, the bound is 87)."""
    law = IsingLattice(4, 5, 0.4407, 0.05)
    x = np.asarray(law.sample(4000, key=jr.key(0)))
    energy = np.asarray(law.log_weight(x), float)
    assert abs(energy.mean() - (law.log_partition() - law.entropy())) < 5 * energy.std() / np.sqrt(len(energy))
    column = x.reshape(-1, 4, 5).transpose(0, 2, 1) @ 2 ** np.arange(4)[::-1]
    expected = 4000 * law.pair_probs(2)
    counts = np.zeros_like(expected)
    np.add.at(counts, (column[:, 3], column[:, 0]), 1)  # two apart around the torus
    often = expected > 5
    chi2, cells = np.sum((counts - expected)[often] ** 2 / expected[often]), often.sum()
    assert chi2 < cells + 4 * np.sqrt(2 * cells)


def test_lattices_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`rows` must be 2 or more; got 1"):
        IsingLattice(1, 4)
    with pytest.raises(ValueError, match="at most 12 for exact answers; got 13"):
        IsingLattice(13, 4).log_partition()
    with pytest.raises(ValueError, match="`apart` must be between 1 and 3; got 4"):
        IsingLattice(4, 4).pair_probs(4)


# Checkerboard


def test_the_checkerboard_is_uniform_on_its_black_squares():
    law = Checkerboard()
    states = assignments((2,) * 12)
    points = np.asarray(law.points(states))
    assert len(np.unique(points, axis=0)) == 4096
    np.testing.assert_array_equal(law.assignments(points), states)
    black = (points // 16).sum(-1) % 2 == 0
    assert black.sum() == 2048
    np.testing.assert_array_equal(np.asarray(law.log_weight(states)), np.where(black, 0.0, -np.inf))
    side = np.asarray(law.assignments(np.stack([np.arange(64), np.zeros(64, int)], -1)))
    assert (np.abs(np.diff(side, axis=0)).sum(-1) == 1).all(), "neighbours in Gray code differ in one bit"
    draws = law.sample(500, key=jr.key(0))
    assert np.isfinite(np.asarray(law.log_weight(draws))).all()
    assert len(np.unique(np.asarray(law.points(draws)) // 16, axis=0)) == 8
    np.testing.assert_allclose(Checkerboard(white=0.5).log_weight(states[~black]), np.log(0.5), rtol=1e-6)


# Markov chain


def test_a_chain_has_the_marginals_of_enumeration():
    law = MarkovChainLaw.random(3, 4, seed=0, concentration=0.5)
    exact, states = SubsetMarginals.of(table_of(law, (3,) * 4)), assignments((3,) * 4)
    assert abs(exact.log_partition) < 1e-6
    found = jax.jit(jax.vmap(law.log_marginal, (0, None)))
    for mask in subsets(4):
        np.testing.assert_allclose(found(states, mask), exact(states, mask), atol=1e-5)


def test_draws_of_a_chain_follow_its_moves():
    """Counts of 3 x 3 moves in 20,000 draws, chi-square of 6 degrees: false alarm 1e-5; rows as columns give 78,000."""
    law = MarkovChainLaw.random(3, 3, seed=1)
    x = np.asarray(law.sample(20_000, key=jr.key(0)))
    counts = np.zeros((3, 3))
    np.add.at(counts, (x[:, 1], x[:, 2]), 1)
    expected = counts.sum(1, keepdims=True) * np.asarray(law.transition_matrix)
    assert np.sum((counts - expected) ** 2 / expected) < 33


# Circuit


def test_a_circuit_has_the_marginals_of_its_own_enumeration():
    num_values = (2, 3, 2, 4, 2)
    law = TreeCircuit.init(num_values, 3, order=(4, 0, 2, 1, 3), key=jr.key(0))
    states = assignments(num_values)
    found = jax.jit(jax.vmap(law.log_marginal, (0, None)))
    exact = SubsetMarginals.of(np.asarray(found(states, np.ones(5, bool)), float).reshape(num_values))
    assert abs(exact.log_partition) < 1e-5
    for mask in subsets(5):
        np.testing.assert_allclose(found(states, mask), exact(states, mask), atol=1e-5)


def test_a_circuit_learns_a_chain():
    """It must come much nearer to the chain than independent variables, on fresh rows."""
    law = MarkovChainLaw.random(3, 6, seed=0, concentration=0.3)
    x = law.sample(2000, key=jr.key(0))
    rows = {"x": x, "observed": jnp.ones(x.shape, bool)}
    start = TreeCircuit.init((3,) * 6, 6, key=jr.key(1))
    trained = train(
        start, CircuitLikelihood(), Batches(rows, 200), num_steps=300, optimiser=optax.adam(0.05), key=jr.key(2),
        progress=False,
    )  # fmt: skip
    fresh = law.sample(2000, key=jr.key(3))
    exact = law.log_weight(fresh)
    learned = jax.vmap(trained.model.log_marginal, (0, None))(fresh, jnp.ones(6, bool))
    counts = np.stack([np.bincount(column, minlength=3) + 0.5 for column in np.asarray(x).T])
    alone = np.log(counts / counts.sum(1, keepdims=True))[np.arange(6), np.asarray(fresh)].sum(-1)
    gap, bar = float(jnp.mean(exact - learned)), float(np.mean(exact - alone))
    assert gap < 0.1 * bar
    assert gap > -0.02


def test_circuits_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"`order` must hold each of the 3 variables once; got \(0, 0, 1\)"):
        TreeCircuit.init((2, 2, 2), order=(0, 0, 1), key=jr.key(0))
