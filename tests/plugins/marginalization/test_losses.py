"""Losses against models that are right by construction, and faults put in by hand."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax_marginalization import (
    Dense,
    DetailedBalance,
    Energy,
    KullbackLeibler,
    Marginals,
    OrderAgnostic,
    Rows,
    SelfConsistency,
)
from posterax_marginalization._energy_objectives import Chains, split_r_hat
from posterax_marginalization._objectives import path_loss, penalised
from posterax_marginalization._orders import Path, random_ranks, random_starts, random_subsets


def complete(x):
    return Rows(x, jnp.ones(x.shape, bool))


FORMS = [
    SelfConsistency("path"),
    SelfConsistency("path", span=2),
    SelfConsistency("one-step"),
    SelfConsistency("sum"),
    SelfConsistency("path", penalty="huber"),
    SelfConsistency("path", penalty="linex"),
]


@pytest.mark.parametrize("objective", FORMS, ids=lambda o: f"{o.form}-{o.span}-{o.penalty}")
def test_a_model_that_knows_the_law_has_no_residual_and_one_that_does_not_has(law, objective):
    batch = complete(law.draw(64))
    loss = jax.jit(lambda model: objective.loss(model, batch, None, key=jr.key(1))[0])
    assert loss(law.model) < 1e-10
    off = eqx.tree_at(lambda m: m.marginal.entries, law.model, law.model.marginal.entries.at[0].add(0.1))
    assert loss(off) > 1e-5  # the state of the first values of all variables


def test_the_loss_of_one_wrong_marginal_is_what_paper_and_pencil_give(law):
    """Everything is observed in `wrong`, 0.3 too high: one step of three leads there, whatever the order."""
    place = int(np.ravel_multi_index((0, 0, 0), (3, 4, 3)))
    off = eqx.tree_at(lambda m: m.marginal.entries, law.model, law.model.marginal.entries.at[place].add(0.3))
    batch = complete(jnp.zeros((16, 3), int))
    one = SelfConsistency("path", decay=1.0).loss(off, batch, None, key=jr.key(0))[0]
    assert one == pytest.approx(3 * 3 * 0.09 / 6, rel=1e-4)  # three of six pairs of states end there, times D
    geometric = SelfConsistency("path", decay=0.5).loss(off, batch, None, key=jr.key(0))[0]
    assert geometric == pytest.approx(3 * 0.09 * (1 + 0.5 + 0.25) / (3 + 2 * 0.5 + 0.25), rel=1e-4)


def test_detailed_balance_of_the_right_model_is_zero_and_tells_a_wrong_log_partition(tabular):
    law = tabular(log_partition=7.0)
    objective = DetailedBalance(Energy(law.log_weight, law.values), num_chains=16, refresh=2)
    loss = jax.jit(lambda model: objective.loss(model, None, objective.init(model, key=jr.key(0)), key=jr.key(1))[0])
    assert loss(law.model) < 1e-9
    off = eqx.tree_at(lambda m: m.scaled_log_partition, law.model, (7.0 + 0.3) / 25)
    # heights of partial states go with log Z: each pair that ends with everything is 0.3 off
    assert loss(off) == pytest.approx(3 * 0.09 * (1 + 0.9 + 0.81) / (3 + 2 * 0.9 + 0.81), rel=1e-3)


def test_order_agnostic_is_the_entropy_on_average(law):
    """20,000 rows, within 4.5 standard errors (false alarm 7e-6): one is 0.008 nats, a factor D - t left out is 1.5."""
    x = law.draw(20_000)
    each = jax.jit(jax.vmap(lambda row, key: OrderAgnostic().loss(law.model, complete(row[None]), None, key=key)[0]))
    losses = np.asarray(each(x, jr.split(jr.key(0), len(x))))
    entropy = -np.sum(law.probs * np.log(law.probs))
    assert abs(losses.mean() - entropy) < 4.5 * losses.std() / np.sqrt(len(losses))


def test_order_agnostic_of_rows_with_a_missing_value_is_the_entropy_of_the_others(law):
    """As above; the middle variable is missing."""
    x = law.draw(20_000)
    present = jnp.array([[True, False, True]])
    each = jax.jit(
        jax.vmap(lambda row, key: OrderAgnostic().loss(law.model, Rows(row[None], present), None, key=key)[0])
    )
    losses = np.asarray(each(x, jr.split(jr.key(0), len(x))))
    joint = law.probs.reshape(law.values).sum(1)
    entropy = -np.sum(joint * np.log(joint))
    assert abs(losses.mean() - entropy) < 4.5 * losses.std() / np.sqrt(len(losses))


def test_what_stands_in_a_missing_cell_does_not_matter(law):
    x, present = law.draw(32), jnp.array([True, False, True]) | jnp.zeros((32, 1), bool)
    losses = [
        float(OrderAgnostic().loss(law.model, Rows(x.at[:, 1].set(value), present), None, key=jr.key(3))[0])
        for value in (0, 2)
    ]
    assert losses[0] == losses[1]


def test_linex_has_its_minimum_at_the_log_of_the_mean_and_the_square_at_the_mean_of_logs():
    chained = jnp.asarray(np.random.default_rng(0).normal(0, 0.7, 2000))
    heights = jnp.linspace(-1, 1, 2001)
    best = {
        kind: float(heights[jnp.argmin(jax.vmap(lambda m: penalised(chained - m, kind).mean())(heights))])  # noqa: B023
        for kind in ("linex", "squared")
    }
    assert best["linex"] == pytest.approx(float(jnp.log(jnp.mean(jnp.exp(chained)))), abs=0.02)
    assert best["squared"] == pytest.approx(float(chained.mean()), abs=0.002)


def test_the_linex_penalty_has_the_sign_that_the_loss_gives_it(law):
    """Chains that scatter about their marginals: the least loss of a shift is where the mean of probabilities is."""
    logs = jnp.asarray(np.random.default_rng(1).normal(-1, 0.8, (4000, 1)), jnp.float32)

    def at(height):
        heights = jnp.concatenate([jnp.zeros((4000, 1)), jnp.full((4000, 1), height)], 1)
        return path_loss(heights, logs, 1.0, "linex")[0]

    shifts = jnp.linspace(-1.5, 0, 301)
    best = float(shifts[jnp.argmin(jax.vmap(at)(shifts))])
    assert best == pytest.approx(float(jnp.log(jnp.mean(jnp.exp(logs)))), abs=0.02)


def test_the_published_gradient_is_that_of_the_divergence(tabular):
    """40,000 chains at the model's law: the gradient in the log marginals of all 12 assignments is p (a - E a), a the
    log ratio; within 5 standard errors (false alarm 7e-6 for all). The smallest of them is 2 % of the largest."""
    law, other = tabular(log_partition=float(np.log(tabular.values).sum())), tabular(seed=5)
    energy = Energy(other.log_weight, law.values)
    objective = KullbackLeibler(energy, num_chains=40_000, refresh=1, weight=0.0)
    state = objective.init(law.model, key=jr.key(0))
    state = Chains(law.draw(40_000).astype(state.x.dtype), state.watched, state.step)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: objective.loss(m, None, state, key=jr.key(1))[0]))(law.model)
    places = np.ravel_multi_index(law.states.T, (3, 4, 3))
    found = np.asarray(gradient.marginal.entries)[places]
    ratio = np.log(law.probs) - other.log_weights.ravel()
    centred = ratio - law.probs @ ratio
    expected = law.probs * centred
    sd = np.sqrt(law.probs * (1 - law.probs)) * np.abs(centred) + law.probs * np.sqrt(law.probs @ centred**2)
    assert (np.abs(found - expected) < 5 * sd / np.sqrt(40_000)).all()


def test_chains_are_renewed_where_they_do_not_mix():
    """Two modes, far apart: chains by single variables stay where they are, until R-hat has them all proposed anew."""
    energy = Energy(lambda x: 8.0 * jnp.abs(jnp.sum(x) - 2.0), (2,) * 4)
    model = Marginals.init((2,) * 4, Dense(4, 1), key=jr.key(0))
    stuck = jnp.concatenate([jnp.zeros((32, 4), int), jnp.ones((32, 4), int)])

    def run(threshold):
        objective = DetailedBalance(energy, num_chains=64, refresh=1, rejuvenate=threshold)
        state = objective.init(model, key=jr.key(0))
        state = Chains(stuck.astype(state.x.dtype), state.watched, state.step)

        @jax.jit
        def steps(state):
            def one(state, key):
                _, (state, metrics) = objective.loss(model, None, state, key=key)
                return state, (state.x, metrics["r_hat"])

            return jax.lax.scan(one, state, jr.split(jr.key(2), 129))[1]

        return steps(state)

    x, r_hat = run(1.1)
    assert np.isfinite(np.asarray(r_hat)).sum() == 2
    assert np.nanmax(r_hat) > 1.1
    before, after = np.asarray(x[63]).mean(-1), np.asarray(x[64]).mean(-1)
    assert (np.abs(after - before) > 0.9).any()  # a chain went from one mode to the other at once
    x, _ = run(1e9)
    assert (np.asarray(x[-1]).mean(-1).round() == np.asarray(stuck).mean(-1)).all()


def test_split_r_hat_is_arvizs():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(64, 6)) + np.array([0, 0, 0.5, 0, 0, 1])
    import arviz

    expected = float(arviz.rhat(draws.T, method="split"))
    assert float(split_r_hat(jnp.asarray(draws)[:, :, None])) == pytest.approx(expected, rel=1e-5)


# Orders


def test_subsets_have_sizes_that_are_uniform_and_members_that_are():
    """30,000 subsets of 5: chi-square of 5 degrees, false alarm 1e-4 (bound 25.7); without the full set 6,000."""
    seen = np.asarray(random_subsets((30_000, 5), key=jr.key(0)))
    counts = np.bincount(seen.sum(-1), minlength=6)
    assert np.sum((counts - 5000) ** 2 / 5000) < 25.7
    assert np.abs(seen.mean(0) - 0.5).max() < 4.5 * np.sqrt(0.35 / 30_000)


def test_all_orders_are_as_likely_and_some_variables_may_come_last():
    """12,000 orders of 3: chi-square of 5 degrees, false alarm 1e-4."""
    ranks = np.asarray(random_ranks((12_000, 3), key=jr.key(0)))
    counts = np.unique(ranks, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.sum((counts - 2000) ** 2 / 2000) < 25.7
    last = jnp.zeros((100, 4), bool).at[:, 1].set(True)
    assert (np.asarray(random_ranks((100, 4), key=jr.key(1), last=last))[:, 1] == 3).all()


def test_windows_begin_where_they_can_and_hold_the_ends_more_often():
    starts = np.asarray(random_starts(20_000, 10, 4, key=jr.key(0)))
    counts = np.bincount(starts, minlength=7) / 20_000
    assert len(counts) == 7
    expected = np.array([4, 1, 1, 1, 1, 1, 4]) / 13
    assert np.abs(counts - expected).max() < 5 * np.sqrt(0.25 / 20_000)


def test_a_path_adds_one_variable_at_a_time():
    ranks = jnp.array([[2, 0, 1]])
    path = Path(jnp.array([[1, 2, 0]]), ranks, jnp.array([0]), 3)
    assert path.steps.tolist() == [[1, 2, 0]]
    assert path.states[0].tolist() == [
        [False] * 3,
        [False, True, False],
        [False, True, True],
        [True] * 3,
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SelfConsistency("two-step"), "`form`"),
        (lambda: SelfConsistency(penalty="cubed"), "`penalty`"),
        (lambda: SelfConsistency(span=0), "`span`"),
        (lambda: SelfConsistency(decay=1.5), "`decay`"),
        (lambda: DetailedBalance(None), "`energy`"),
        (lambda: DetailedBalance(Energy(jnp.sum, (2,)), num_chains=1), "`num_chains`"),
        (lambda: DetailedBalance(Energy(jnp.sum, (2,)), exploring=2.0), "`exploring`"),
        (lambda: KullbackLeibler(Energy(jnp.sum, (2,)), refresh=0), "`refresh`"),
    ],
)
def test_settings_out_of_place_are_named(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_conditionals_stay_as_they_are_in_the_second_stage(law):
    batch = complete(law.draw(8))
    off = dataclasses.replace(
        law.model,
        conditional=eqx.tree_at(
            lambda t: t.entries, law.model.conditional, replace_fn=lambda e: e + 0.1 * jnp.arange(3.0)
        ),
    )
    for freeze, moves in ((True, False), (False, True)):
        objective = SelfConsistency(freeze=freeze)
        gradient = eqx.filter_grad(lambda m: objective.loss(m, batch, None, key=jr.key(0))[0])(off)  # noqa: B023
        assert bool(np.abs(gradient.conditional.entries).max() > 0) is moves
