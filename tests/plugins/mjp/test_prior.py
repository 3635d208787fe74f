"""Laws of processes and of what is seen of them, against exact counts, densities and the published sample."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
import pytest
from posterax_mjp import (
    AbsorbingEdges,
    BetaRates,
    BirthDeathEdges,
    CompleteEdges,
    ConnectedTriangles,
    InitialPrior,
    IrregularGrid,
    LabelFlips,
    LogUniformRates,
    MixedGrid,
    MixedRates,
    Process,
    ProcessPrior,
    RegularGrid,
    ReversibleRates,
    SymmetricEdges,
    generator,
    limit_law,
    transition_probs,
)
from posterax_models import FlashingRatchet
from scipy import stats

NUM = 20_000
# A chi-square statistic beyond its 1 - 1e-5 quantile comes once in 100,000 correct runs.
ALARM = 1e-5


def drawn(sample, num=NUM, seed=0):
    return np.asarray(jax.jit(jax.vmap(lambda key: sample(key=key)))(jr.split(jr.key(seed), num)))


def chi_square(counts, probs):
    expected = counts.sum() * probs
    assert stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), len(probs) - 1) > ALARM


def edge_sets(size):
    places = [(i, j) for i in range(size) for j in range(size) if i != j]
    sets = np.zeros((2 ** len(places), size, size), bool)
    for number, kept in enumerate(itertools.product((False, True), repeat=len(places))):
        for there, place in zip(kept, places, strict=True):
            sets[number][place] = there
    return sets


# 20,000 draws of 64 sets: a probability of 1/24 that is off by 15 % is found in nine runs of ten.
@pytest.mark.parametrize("size", [2, 3])
def test_edge_sets_come_as_often_as_they_say(size):
    prior, sets = ConnectedTriangles(), edge_sets(size)
    probs = np.exp(np.asarray(jax.vmap(prior.log_prob)(jnp.asarray(sets)), float))
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    found = drawn(lambda *, key: prior.sample(size, key=key))
    codes = (found[:, None] == sets).all((2, 3)).argmax(1)
    counts = np.bincount(codes, minlength=len(sets))
    assert not counts[probs == 0].any()
    if (probs > 0).sum() > 1:
        chi_square(counts[probs > 0], probs[probs > 0])


def test_sets_of_edges_of_four_states_are_counted():
    sets = jnp.asarray(edge_sets(4))
    assert float(jnp.sum(jnp.exp(jax.vmap(ConnectedTriangles().log_prob)(sets)))) == pytest.approx(1, abs=1e-4)


def test_other_edge_sets_are_what_they_say():
    sample = lambda prior: drawn(lambda *, key: prior.sample(5, key=key), 500)  # noqa: E731
    diagonal = np.eye(5, dtype=bool)
    assert (sample(CompleteEdges()) == ~diagonal).all()
    assert (sample(BirthDeathEdges())[0] == (np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1) > 0)).all()
    symmetric = sample(SymmetricEdges())
    assert (symmetric == symmetric.swapaxes(1, 2)).all()
    assert len(np.unique(symmetric, axis=0)) > 20
    stuck = (~sample(AbsorbingEdges()).any(-1)).sum(-1)
    assert stuck.min() == 1
    assert 2 <= stuck.max() <= 4


RATES = {"beta": BetaRates(), "log-uniform": LogUniformRates(), "mixed": MixedRates(probs=(0.3, 0.7))}


# A Kolmogorov-Smirnov test of 20,000 draws: a distribution function that is off by 0.02 anywhere is found.
@pytest.mark.parametrize("name", RATES)
def test_rates_have_the_density_that_they_say(name):
    prior, edges = RATES[name], jnp.asarray([[False, True], [False, False]])
    found = drawn(lambda *, key: prior.sample(edges, key=key))[:, 0, 1]
    grid = np.geomspace(1e-4, 120.0, 20_001)
    matrix = jnp.zeros((len(grid), 2, 2)).at[:, 0, 1].set(jnp.asarray(grid))
    density = np.exp(np.asarray(jax.vmap(lambda rates: prior.log_prob(rates, edges))(matrix), float))
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    assert cumulative[-1] == pytest.approx(1, abs=2e-3)
    test = stats.kstest(found, lambda x: np.interp(x, grid, cumulative / cumulative[-1]))
    assert test.pvalue > ALARM


def test_a_mixture_is_chosen_once_for_a_process():
    prior, edges = MixedRates((BetaRates(), LogUniformRates(20.0, 100.0))), ~jnp.eye(3, dtype=bool)
    found = drawn(lambda *, key: prior.sample(edges, key=key), 400)
    fast = (found > 20).sum((1, 2))
    assert set(np.unique(fast)) == {0, 6}


def test_reversible_rates_are_in_detailed_balance():
    edges = SymmetricEdges().sample(5, key=jr.key(0))
    rates = ReversibleRates().sample(edges, key=jr.key(1))
    law = limit_law(generator(rates))
    np.testing.assert_allclose(law[:, None] * rates, (law[:, None] * rates).T, rtol=1e-3, atol=1e-6)
    assert ((rates > 0) == edges).all()


def test_the_published_sample_has_the_same_moments(data_folder):
    with np.load(data_folder / "mjp" / "fim_prior_sample.npz") as published:
        theirs = np.concatenate([published["six_irregular_train_rates"], published["six_irregular_test_rates"]])
        laws = np.concatenate([published["six_irregular_train_initial"], published["six_irregular_test_initial"]])
    off = ~np.eye(6, dtype=bool)
    theirs = np.where(off, theirs, 0.0)
    prior = ProcessPrior()
    keys = jr.split(jr.key(0), 4000)
    ours = jax.jit(jax.vmap(lambda key: prior.sample(6, key=key)))(keys)
    rates, initial = np.asarray(ours.rates) / 10, np.asarray(ours.initial)  # theirs: a horizon of 10
    # Standard errors of both samples together: a difference of 5 comes once in a million.
    for statistic in (
        lambda r, p: (r > 0).sum((1, 2)) == 30,
        lambda r, p: (r > 0).sum((1, 2)),
        lambda r, p: r.sum((1, 2)) / (r > 0).sum((1, 2)),
        lambda r, p: (r**2).sum((1, 2)) / (r > 0).sum((1, 2)),
        lambda r, p: p.max(1),
    ):
        a, b = (np.asarray(statistic(*x), float) for x in ((theirs, laws), (rates, initial)))
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 5 * error


def test_initial_laws_are_stationary_or_nearly_uniform():
    rates = jnp.asarray(FlashingRatchet(2.0).rates)
    found = drawn(lambda *, key: InitialPrior().sample(rates, key=key), 2000)
    stationary = np.abs(found - FlashingRatchet(2.0).stationary_law).max(1) < 1e-4
    assert 0.43 < stationary.mean() < 0.57  # six standard errors
    spread = found[~stationary].std(0)
    np.testing.assert_allclose(spread, np.sqrt(5 / 36 / 301), rtol=0.15)


def test_grids_and_flips():
    regular = drawn(lambda *, key: RegularGrid().sample(3, key=key), 200)
    assert set(regular.sum(-1).ravel()) == {100, 50, 34, 25}
    assert (regular == regular[:, :1]).all()
    share = drawn(lambda *, key: IrregularGrid().sample(40, key=key), 200).mean((1, 2))
    assert (np.minimum(abs(share - 0.25), abs(share - 0.5)) < 0.04).all()
    assert 0.3 < np.mean(share > 0.375) < 0.7
    assert drawn(lambda *, key: MixedGrid().sample(3, key=key), 50).any()
    states = jnp.zeros(50_000, int)
    labels = np.asarray(LabelFlips.flipped(states, 4, jnp.asarray(0.3), key=jr.key(3)))
    chi_square(np.bincount(labels, minlength=4), np.array([0.7, 0.1, 0.1, 0.1]))
    np.testing.assert_allclose(RegularGrid(5).times(10.0), [0, 2.5, 5, 7.5, 10])


def test_grid_and_jumps_follow_the_exact_law():
    process = Process(jnp.asarray(FlashingRatchet(1.0).rates), jnp.asarray([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))
    times = np.array([0.0, 0.3, 1.0])
    jumps = process.sample_jumps(1.0, NUM, max_jumps=40, key=jr.key(0))
    assert jumps.complete
    steps = np.asarray(transition_probs(process.generator, jnp.asarray([0.3, 0.7])), float)
    law = np.asarray(process.initial, float)
    joint = law[:, None, None] * steps[0][:, :, None] * steps[1][None]
    for states in (process.sample(times, NUM, key=jr.key(1)), jumps.at(times)):
        codes = np.ravel_multi_index(np.asarray(states).T, (6, 6, 6))
        counts, probs = np.bincount(codes, minlength=216), joint.ravel()
        rare = probs * NUM < 5
        if rare.any():
            counts = np.append(counts[~rare], counts[rare].sum())
            probs = np.append(probs[~rare], probs[rare].sum())
        chi_square(counts, probs / probs.sum())


def test_paths_that_stay_and_paths_without_room():
    process = Process(jnp.asarray([[0.0, 5.0], [0.0, 0.0]]), jnp.asarray([1.0, 0.0]))
    jumps = process.sample_jumps(10.0, 100, max_jumps=2, key=jr.key(0))
    assert jumps.complete
    assert (np.asarray(jumps.at([10.0])) == 1).all()
    fast = Process(jnp.asarray([[0.0, 50.0], [50.0, 0.0]]), jnp.asarray([1.0, 0.0]))
    assert not fast.sample_jumps(10.0, 3, max_jumps=20, key=jr.key(0)).complete
    with pytest.raises(ValueError, match="increasing"):
        process.sample([1.0, 0.5], 3, key=jr.key(0))


def test_a_prior_makes_what_a_network_is_trained_on(tmp_path):
    prior = ProcessPrior()
    process = prior.sample(3, key=jr.key(0))
    seen = prior.observe(process, 7, key=jr.key(1))
    assert seen.labels.shape == seen.seen.shape == (7, 100)
    assert seen.times[-1] == 1
    assert np.isfinite(prior.log_prob(process.rates))
    posterax.save(tmp_path / "prior.posterax", prior)
    assert posterax.load(tmp_path / "prior.posterax") == prior


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConnectedTriangles(1.5), "complete_probability"),
        (lambda: LogUniformRates(2.0, 1.0), "below `largest`"),
        (lambda: MixedRates(probs=(0.5, 0.6)), "summing to 1"),
        (lambda: MixedGrid(50), "num_points"),
        (lambda: LabelFlips((1.0,)), r"\[0, 1\)"),
        (lambda: ConnectedTriangles().log_prob(~jnp.eye(9, dtype=bool)), "at most 8 states"),
    ],
)
def test_settings_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()
