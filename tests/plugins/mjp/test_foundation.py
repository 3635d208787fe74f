"""The network's parts: summaries against the exact fit, expectations against enumeration, laws against quadrature."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from posterax_mjp import LabelFlips, LogNormalRates, MJPLikelihood, PanelData, Process, ProcessPrior
from posterax_mjp._denoise import Paths, expected_transitions
from posterax_mjp._encoder import PairEncoder
from posterax_mjp._panel_summaries import summaries_of_panel
from posterax_mjp._rate_law import RateLaw
from posterax_mjp._summaries import summarise
from posterax_mjp._training_data import examples, summaries_of
from posterax_models import FlashingRatchet

RATES = np.array([[0.0, 0.7, 0.2], [0.4, 0.0, 0.9], [0.1, 0.5, 0.0]])
OFF = ~np.eye(3, dtype=bool)
TIMES = np.linspace(0.0, 4.0, 17)


def panel_of(rates=RATES, num=60, times=TIMES, seed=0, noise=0.0):
    law = jnp.full(len(rates), 1 / len(rates))
    states = Process(jnp.asarray(rates, float), law).sample(times, num, key=jr.key(seed))
    labels = LabelFlips.flipped(states, len(rates), jnp.asarray(noise), key=jr.key(seed + 1))
    return PanelData.from_paths(np.asarray(labels), times, num_states=len(rates))


@pytest.mark.parametrize("irregular", [False, True])
def test_summaries_are_the_exact_fit_under_a_wide_law(irregular):
    times = np.sort(np.random.default_rng(0).uniform(0, 4, 12)) if irregular else TIMES
    panel = panel_of(times=times)
    told = summaries_of_panel(panel, 0.0)
    exact = MJPLikelihood(method="map", prior=LogNormalRates(1.0, 2.5)).fit(panel, key=jr.key(0))
    logs = np.log(exact.rates[OFF] * panel.horizon)
    np.testing.assert_allclose(np.asarray(told.log_rates)[OFF], logs, atol=2e-3)
    sds = np.sqrt(np.diag(exact.fitted().covariance))
    np.testing.assert_allclose(np.asarray(told.sds)[OFF], sds, rtol=0.2)  # expected information for observed
    assert float(told.dwells.sum()) == pytest.approx(panel.num_subjects * np.ptp(times) / panel.horizon, rel=1e-3)


def test_expected_transitions_are_those_of_enumeration():
    # One round of EM at known rates: three rows, labels wrong with probability 0.2.
    labels, size = np.array([0, 2, 1]), 3
    gaps = jnp.asarray([0.1, 0.3])
    paths = Paths(jnp.asarray([[0], [0], [1]]), jnp.ones((3, 1), bool), jnp.asarray(labels)[:, None])
    rough = jnp.zeros((2, 3, 3)).at[0, 0, 2].set(1.0).at[1, 2, 1].set(1.0)
    found = expected_transitions(paths, gaps, rough, jnp.asarray(0.2), False)
    # The fixed point that it comes near to: expectations at rates give these rates again, so compare consistency only
    # through sums that do not depend on them.
    assert float(found.counts[0].sum()) == pytest.approx(1, abs=1e-4)
    assert float(found.counts[1].sum()) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found.counts[0].sum(0), found.counts[1].sum(1), atol=1e-4)  # the middle row's state
    np.testing.assert_allclose(found.firsts, found.counts[0].sum(1), atol=1e-4)
    assert size == len(found.firsts)


def test_the_derivatives_that_expectations_are():
    from posterax_mjp._denoise import _log_likelihood

    labels = np.array([0, 2, 1])
    q = RATES - np.diag(RATES.sum(1))
    steps = np.stack([scipy.linalg.expm(q * gap) for gap in (0.1, 0.3)])
    law, emission = np.array([0.5, 0.3, 0.2]), np.where(OFF, 0.1, 0.8)
    weights = {}
    for path in itertools.product(range(3), repeat=3):
        weights[path] = (
            law[path[0]] * steps[0][path[0], path[1]] * steps[1][path[1], path[2]]
            * np.prod([emission[path[n], labels[n]] for n in range(3)])
        )  # fmt: skip
    total = sum(weights.values())
    paths = Paths(jnp.asarray([[0], [0], [1]]), jnp.ones((3, 1), bool), jnp.asarray(labels)[:, None])
    terms = tuple(jnp.log(jnp.asarray(part, jnp.float32)) for part in (steps, law, emission))
    value, (counts, firsts, _) = jax.value_and_grad(_log_likelihood)(terms, paths)
    assert float(value) == pytest.approx(np.log(total), rel=1e-5)
    for i, j in np.ndindex(3, 3):
        exact = sum(w for path, w in weights.items() if path[:2] == (i, j)) / total
        assert float(counts[0, i, j]) == pytest.approx(exact, rel=1e-4)
    first = [sum(w for path, w in weights.items() if path[0] == i) / total for i in range(3)]
    np.testing.assert_allclose(firsts, first, rtol=1e-4)


def test_noise_is_taken_out_and_estimated():
    panel = panel_of(num=300, noise=0.1, seed=3)
    clean, naive = summaries_of_panel(panel, None), summaries_of_panel(panel, 0.0)
    assert float(clean.noise) == pytest.approx(0.1, abs=0.03)
    truth = np.log(RATES[OFF] * panel.horizon)
    off = [np.abs(np.asarray(told.log_rates)[OFF] - truth).mean() for told in (clean, naive)]
    assert off[0] < 0.3 < off[1]


def test_training_and_use_see_the_same():
    prior = ProcessPrior(noise=LabelFlips((0.0,)))
    process = prior.sample(3, key=jr.key(1))
    seen = prior.observe(process, 40, key=jr.key(2))
    trained = summaries_of(seen, 3)
    labels = np.where(np.asarray(seen.seen), np.asarray(seen.labels), -1)
    used = summaries_of_panel(PanelData.from_paths(labels, np.linspace(0, 1, 100), num_states=3), 0.0)
    scale = np.log(float(np.ptp(np.flatnonzero(np.asarray(seen.seen).any(0)))) / 99)  # a horizon may end early
    np.testing.assert_allclose(np.asarray(used.log_rates)[OFF] - scale, np.asarray(trained.log_rates)[OFF], atol=0.02)
    np.testing.assert_array_equal(used.counts, trained.counts)


def law_of(size=3, seed=0):
    encoder = PairEncoder.init(16, 2, key=jr.key(seed))
    return encoder, encoder(summaries_of_panel(panel_of(), 0.0))


def test_permuting_labels_permutes_the_law():
    rates = np.asarray(FlashingRatchet().rates)
    encoder, order = PairEncoder.init(16, 2, key=jr.key(0)), np.array([3, 0, 5, 1, 4, 2])
    panel = panel_of(rates, 50)
    other = PanelData.from_paths(order[panel.padded(panel.state, 0)], TIMES, num_states=6)
    one, two = (encoder(summaries_of_panel(p, 0.0)) for p in (panel, other))
    np.testing.assert_allclose(two.mean[np.ix_(order, order)], one.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(two.initial[order], one.initial, atol=1e-5)


def test_laws_integrate_to_one_and_have_their_moments():
    law = RateLaw(
        jnp.full((2, 2), 0.4), jnp.full((2, 2, 2), jnp.log(jnp.asarray([1.0, 3.0]))), jnp.ones((2, 2, 2)),
        jnp.zeros((2, 2, 2)), jnp.zeros(2), 2.0,
    )  # fmt: skip
    grid = np.linspace(1e-4, 30, 60_001)
    density = np.exp(jax.vmap(lambda x: law.present_log_prob(jnp.full((2, 2), x))[0, 1])(jnp.asarray(grid)))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)
    mean = np.trapezoid(density * grid, grid)
    assert float(law.present_mean()[0, 1]) == pytest.approx(mean, rel=1e-3)
    assert float(law.present_variance()[0, 1]) == pytest.approx(
        np.trapezoid(density * grid**2, grid) - mean**2, rel=1e-3
    )
    cdf = float(law.present_cdf(jnp.full((2, 2), 1.0))[0, 1])
    assert cdf == pytest.approx(np.trapezoid(density[grid <= 1], grid[grid <= 1]), abs=1e-3)
    draws = np.asarray(law.sample(jr.key(0), (40_000,))["rates"])
    assert (draws[:, 0, 0] == 0).all()
    share = float(jax.nn.sigmoid(0.4))
    assert np.mean(draws[:, 0, 1] > 0) == pytest.approx(share, abs=0.0125)  # five standard errors
    assert draws[:, 0, 1].mean() == pytest.approx(float(law.mean[0, 1]), rel=0.03)
    assert draws[:, 0, 1].var() == pytest.approx(float(law.variance[0, 1]), rel=0.1)
    value = jnp.asarray([[0.0, 0.7], [0.0, 0.0]])
    exact = np.log(share) + float(law.present_log_prob(jnp.full((2, 2), 0.7))[0, 1]) + np.log(1 - share)
    assert float(law.log_prob({"rates": value})) == pytest.approx(exact, rel=1e-5)


def test_examples_are_finite_and_of_the_prior():
    made = examples(ProcessPrior(), 3, 24, most_paths=20, key=jr.key(0), piece=8)
    assert len(made.rates) == 24
    assert made.told.sds.shape == (24, 3, 3)
    assert np.isin(made.told.noise, np.float32([0.0, 0.01, 0.1])).all()


def test_summaries_of_nothing_but_one_gap():
    told = summarise(jnp.zeros((1, 2, 2)), jnp.asarray([0.1]), jnp.zeros(2), jnp.zeros(()))
    assert np.isfinite(np.asarray(told.log_rates)).all()
    assert np.asarray(told.sds)[0, 1] == pytest.approx(2.5)  # the wide law itself
