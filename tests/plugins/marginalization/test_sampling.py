"""Draws against exact laws."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax_marginalization import ConditionalLaw, Dense, Lattice, Marginals, Sequence, complete, refreshed
from posterax_marginalization._sampling import log_prob_by_orders

NUM = 20_000


def test_draws_in_random_orders_have_the_law_of_the_conditionals(law):
    """Chi-square, false alarm 1e-4; a uniform draw of one variable in a hundred is found as often as not."""
    zeros = jnp.zeros((NUM, 3), jnp.int32)
    x, logs = jax.jit(lambda key: complete(law.model, zeros, zeros.astype(bool), key=key))(jr.key(0))
    assert law.chi_square(x) < law.bound
    np.testing.assert_allclose(logs, np.log(law.probs)[law.place(x)], atol=1e-5)


def test_draws_keep_what_is_given_and_have_the_conditional_law(law):
    given = jnp.tile(jnp.array([[0, 2, 0]], jnp.int32), (NUM, 1))
    observed = jnp.tile(jnp.array([[False, True, False]]), (NUM, 1))
    x, logs = jax.jit(lambda key: complete(law.model, given, observed, key=key))(jr.key(0))
    assert (np.asarray(x)[:, 1] == 2).all()
    probs = law.probs.reshape(law.values)[:, 2]
    probs = probs / probs.sum()
    counts = np.bincount(2 * np.asarray(x)[:, 0] + np.asarray(x)[:, 2], minlength=4)
    assert np.sum((counts - NUM * probs.ravel()) ** 2 / (NUM * probs.ravel())) < 21.1  # 3 degrees, 1e-4
    np.testing.assert_allclose(logs, np.log(probs)[np.asarray(x)[:, 0], np.asarray(x)[:, 2]], atol=1e-5)


def test_rows_may_lack_different_variables(law):
    x = law.draw(6).astype(jnp.int32)
    observed = jnp.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool)
    full, logs = complete(law.model, x, observed, key=jr.key(0))
    assert (np.asarray(full)[np.asarray(observed)] == np.asarray(x)[np.asarray(observed)]).all()
    expected = np.log(law.probs)[law.place(full)] - np.asarray(law.exact(full, observed))
    np.testing.assert_allclose(logs, expected, atol=1e-5)


def test_log_probabilities_are_those_of_enumeration_in_every_order(law):
    x = law.draw(50).astype(jnp.int32)
    target = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 3)) < 0.6)
    given = jnp.asarray(np.random.default_rng(1).uniform(size=(50, 3)) < 0.3) & ~target
    found = log_prob_by_orders(law.model, x, target, given, 5, key=jr.key(0))
    expected = np.asarray(law.exact(x, target | given)) - np.asarray(law.exact(x, given))
    np.testing.assert_allclose(found, np.broadcast_to(expected, (5, 50)), atol=1e-5)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_metropolis_block_leaves_the_law_as_it_is_whatever_the_conditionals(law, num):
    """From exact draws, conditionals of an untrained network. Chi-square, false alarm 1e-4; without the step, more than
    1,000."""
    model = Marginals.init(law.values, Dense(8, 1), key=jr.key(0))
    rows = lambda x: jax.vmap(law.log_weight)(x)  # noqa: E731
    start = law.draw(NUM).astype(jnp.int32)
    x, accepted = jax.jit(lambda key: refreshed(model, start, num, key=key, log_weight=rows))(jr.key(1))
    assert law.chi_square(x) < law.bound
    assert 0.2 < float(accepted.mean()) < 0.95
    x, _ = jax.jit(lambda key: refreshed(model, start, num, key=key))(jr.key(1))
    assert law.chi_square(x) > 1000


def test_blocks_of_the_right_conditionals_leave_their_law_as_it_is_and_are_always_accepted(law):
    start = law.draw(NUM).astype(jnp.int32)
    x, _ = jax.jit(lambda key: refreshed(law.model, start, 2, key=key))(jr.key(1))
    assert law.chi_square(x) < law.bound
    assert (np.asarray(x) != np.asarray(start)).any(-1).mean() > 0.3
    rows = lambda x: jax.vmap(law.log_weight)(x)  # noqa: E731
    assert float(refreshed(law.model, start[:500], 2, key=jr.key(2), log_weight=rows)[1].mean()) == 1.0


def test_a_conditional_law_draws_and_weighs_alike(law):
    x, there = jnp.array([1, 0, 0], jnp.int32), jnp.array([True, False, False])
    given = ConditionalLaw(law.model, x, there, jnp.array([2, 0, 1]))
    draws = given.sample(jr.key(0), (4, 5))
    assert draws.shape == (4, 5, 3)
    assert given.event_shape == (3,)
    expected = np.log(law.probs)[law.place(np.asarray(draws).reshape(-1, 3))] - float(law.exact(x, there))
    np.testing.assert_allclose(np.asarray(given.log_prob(draws)).ravel(), expected, atol=1e-5)
    assert np.isneginf(given.log_prob(jnp.array([0, 0, 0])))
    every = law.states[law.states[:, 0] == 1]
    assert float(jax.nn.logsumexp(given.log_prob(every))) == pytest.approx(0.0, abs=1e-5)


# Networks

MIXED = (2, 4, 1, 3, 2, 2)
KINDS = {
    "dense": (Dense(16, 2), MIXED),
    "lattice": (Lattice(2, 3, width=8), MIXED),
    "torus": (Lattice(2, 3, periodic=True, width=8), (3,) * 6),
    "sequence": (Sequence(16, 2, 2), MIXED),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_observed_do_not_enter_and_those_observed_do(kind):
    architecture, values = KINDS[kind]
    model = Marginals.init(values, architecture, key=jr.key(0))
    rng = np.random.default_rng(0)
    x, other = (np.array([rng.integers(0, k) for k in values]) for _ in range(2))
    observed = np.array([True, False, True, False, True, False])
    mixed = np.where(observed, x, other)
    for answer in (model.log_probs, model.log_marginal):
        np.testing.assert_array_equal(answer(x, observed), answer(mixed, observed))
    changed = np.where(np.arange(6) == 0, (x + 1) % values[0], x)
    assert np.abs(np.asarray(model.log_probs(changed, observed) - model.log_probs(x, observed))).max() > 1e-4
    assert abs(float(model.log_marginal(changed, observed) - model.log_marginal(x, observed))) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_the_values_a_variable_has(kind):
    architecture, values = KINDS[kind]
    model = Marginals.init(values, architecture, key=jr.key(0))
    probs = np.exp(model.log_probs(np.zeros(6, int), np.arange(6) < 2))
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
    there = np.arange(max(values)) < np.array(values)[:, None]
    assert (probs[there] > 0).all()
    assert (probs[~there] == 0).all()
    assert float(model.log_marginal(np.zeros(6, int), np.zeros(6, bool))) == 0.0


def test_a_torus_sees_no_corners_and_carries_over_to_a_larger_one():
    model = Marginals.init((2,) * 12, Lattice(3, 4, periodic=True, width=8), key=jr.key(0))
    rng = np.random.default_rng(0)
    x, observed = rng.integers(0, 2, (3, 4)), rng.uniform(size=(3, 4)) < 0.5
    moved = [np.roll(a, (1, 2), (0, 1)).ravel() for a in (x, observed)]
    here = np.asarray(model.log_probs(x.ravel(), observed.ravel())).reshape(3, 4, 2)
    there = np.asarray(model.log_probs(*moved)).reshape(3, 4, 2)
    np.testing.assert_allclose(np.roll(here, (1, 2), (0, 1)), there, atol=1e-5)
    once = float(model.log_marginal(x.ravel(), observed.ravel()))
    assert float(model.log_marginal(*moved)) == pytest.approx(once, abs=1e-4)
    twice = [np.tile(a, (2, 1)).ravel() for a in (x, observed)]
    larger = model.on(6, 4, log_partition=3.0)
    assert float(larger.log_marginal(*twice)) - 3.0 == pytest.approx(2 * once, abs=1e-3)
    with pytest.raises(TypeError, match="periodic"):
        Marginals.init((2,) * 12, Lattice(3, 4), key=jr.key(0)).on(6, 4)


def test_dropout_needs_a_key_and_changes_what_is_told():
    model = Marginals.init((2,) * 6, Dense(32, 1, dropout=0.5), key=jr.key(0))
    x, observed = np.ones(6, int), np.ones(6, bool)
    plain = model.log_probs(x, observed)
    np.testing.assert_array_equal(plain, model.log_probs(x, observed))
    assert np.abs(np.asarray(model.log_probs(x, observed, jr.key(1)) - plain)).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dense(0), "`width`"),
        (lambda: Dense(dropout=1.0), "`dropout`"),
        (lambda: Sequence(10, 4), "multiple of `heads`"),
        (lambda: Marginals.init((2,) * 5, Lattice(2, 3), key=jr.key(0)), "6 sites"),
    ],
)
def test_settings_out_of_place_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
