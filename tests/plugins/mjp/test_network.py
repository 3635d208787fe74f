"""The shipped network and what polishes it: symmetries, exact posteriors, errors, flags, cards."""

import dataclasses
import hashlib
import os

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
import pytest
import scipy.stats
from posterax._precision import precision
from posterax_mjp import (
    BetaRates,
    CompleteEdges,
    LabelFlips,
    LogUniformRates,
    MixedRates,
    MJPFoundation,
    MJPLikelihood,
    PanelData,
    PooledRates,
    Process,
    ProcessPrior,
    answers,
    card,
    over_edge_sets,
    pretrained,
    score,
    wide_prior,
)
from posterax_mjp._path_encoder import PathEncoder
from posterax_mjp._pretrained import PRETRAINED
from posterax_models import FlashingRatchet
from posterax_models._weights import weights_folder

TIMES = np.linspace(0.0, 2.5, 50)
RATCHET = FlashingRatchet()
OFF = ~np.eye(6, dtype=bool)


def ratchet_states(num=300, seed=0):
    process = Process(RATCHET.rates, RATCHET.stationary_law)
    return np.asarray(process.sample(TIMES, num, key=jr.key(seed)))


def three_states(num=30, seed=5, noise=0.0):
    process = wide_prior().sample(3, key=jr.key(seed))
    times = np.linspace(0, 1, 50)
    states = process.sample(times, num, key=jr.key(seed + 1))
    labels = LabelFlips.flipped(states, 3, jnp.asarray(noise), key=jr.key(seed + 2))
    return PanelData.from_paths(np.asarray(labels), times, num_states=3), process


@pytest.fixture(scope="module")
def panel():
    return PanelData.from_paths(ratchet_states(), TIMES, num_states=6)


# The network


def test_it_knows_a_process_that_it_has_never_seen(panel):
    law = pretrained().law(panel)
    assert np.sqrt(np.mean((np.asarray(law.mean) - RATCHET.rates)[OFF] ** 2)) < 0.2  # 0.1 at twice as many points
    assert np.asarray(law.edge_probs)[RATCHET.rates > 0].min() > 0.5
    assert np.asarray(law.initial).sum() == pytest.approx(1, abs=1e-5)
    assert pretrained().flags(panel) == []
    assert pretrained().infer(panel).mean.shape == (6, 6)


def test_permuting_labels_permutes_the_answer_and_rescaling_time_rescales_it(panel):
    law, order = pretrained().law(panel), np.array([3, 0, 5, 1, 4, 2])
    other = pretrained().law(PanelData.from_paths(order[ratchet_states()], TIMES, num_states=6))
    np.testing.assert_allclose(np.asarray(other.mean)[np.ix_(order, order)], law.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.asarray(other.initial)[order], law.initial, atol=1e-5)
    slow = pretrained().law(PanelData.from_paths(ratchet_states(), 7.3 * TIMES, num_states=6))
    np.testing.assert_allclose(7.3 * slow.mean, law.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(7.3**2 * slow.variance, law.variance, rtol=1e-4, atol=1e-5)


def test_the_polished_answer_is_the_likelihoods_sooner(panel):
    warm = pretrained(polish="map").polished(panel, key=jr.key(0))
    cold = MJPLikelihood(method="map", prior=wide_prior().rates).fit(panel, key=jr.key(0))
    assert warm.report["num_evaluations"] < 0.7 * cold.report["num_evaluations"]
    there = RATCHET.rates > 0
    errors = [np.sqrt(np.mean((fitted.rates - RATCHET.rates)[there] ** 2)) for fitted in (warm, cold)]
    assert errors[0] < 1.2 * errors[1]
    draws = pretrained(polish="map").infer(panel, key=jr.key(1))
    assert draws["rates"].shape[-1] == len(warm.known.model.edges)


def test_labels_that_are_wrong_are_read_as_such():
    states = ratchet_states()
    wrong = np.asarray(LabelFlips.flipped(jnp.asarray(states), 6, jnp.asarray(0.1), key=jr.key(3)))
    noisy = PanelData.from_paths(wrong, TIMES, num_states=6)
    for noise in (0.1, None):
        found = np.asarray(pretrained(noise=noise).law(noisy).mean)
        assert np.sqrt(np.mean((found - RATCHET.rates)[OFF] ** 2)) < 0.35
    naive = np.asarray(pretrained().law(noisy).mean)
    assert np.sqrt(np.mean((naive - RATCHET.rates)[OFF] ** 2)) > 1


# Exact posteriors


@pytest.mark.slow
def test_the_sum_over_edge_sets_is_the_quadrature_of_two_states():
    """Two rates: evidence, means and standard deviations on a grid."""
    process = wide_prior().sample(2, key=jr.key(1))
    times = np.linspace(0, 1, 20)
    panel = PanelData.from_paths(np.asarray(process.sample(times, 8, key=jr.key(2))), times, num_states=2)
    found = over_edge_sets(panel, wide_prior(), num_draws=4000, key=jr.key(3))
    logs = np.linspace(np.log(1e-3), np.log(100), 301)
    rate = np.exp(logs)
    a, b = rate[:, None], rate[None, :]
    total = a + b
    decay = np.exp(-total / 19)
    stay = {(0, 1): a / total * (1 - decay), (1, 0): b / total * (1 - decay)}
    stay |= {(0, 0): 1 - stay[0, 1], (1, 1): 1 - stay[1, 0]}
    counts = panel.counts()
    log_density = sum(counts[i, j] * np.log(stay[i, j]) for i in range(2) for j in range(2))
    grid = jnp.zeros((301, 301, 2, 2)).at[..., 0, 1].set(a).at[..., 1, 0].set(b)
    prior = jax.vmap(jax.vmap(wide_prior().log_prob))(grid)
    weight = np.exp(log_density - log_density.max() + np.asarray(prior, float)) * a * b * (logs[1] - logs[0]) ** 2
    assert float(found.log_evidence[0]) == pytest.approx(np.log(weight.sum()) + log_density.max(), abs=0.1)
    mean = (weight * a).sum() / weight.sum(), (weight * b).sum() / weight.sum()
    sd = np.sqrt((weight * a**2).sum() / weight.sum() - mean[0] ** 2)
    error = sd / np.sqrt(found.effective_sample_size())  # five of these: one false alarm in a million
    assert abs(found.mean()["rates"][0, 1] - mean[0]) < 5 * error + 0.01 * sd
    assert found.sd()["rates"][0, 1] == pytest.approx(sd, rel=0.1)


def test_weights_bring_the_network_to_the_exact_posterior():
    """Three states, 15 edge sets; six rates within 5 standard errors, and the evidence."""
    panel, _ = three_states()
    exact = over_edge_sets(panel, wide_prior(), num_draws=400, key=jr.key(0))
    draws = pretrained().draws(panel, 4000, key=jr.key(1))
    off = ~np.eye(3, dtype=bool)
    sd = exact.sd()["rates"][off]
    error = sd * np.sqrt(1 / exact.effective_sample_size() + 1 / draws.effective_sample_size())
    assert (np.abs(draws.mean()["rates"] - exact.mean()["rates"])[off] < 5 * error).all()
    assert float(draws.log_evidence[0]) == pytest.approx(float(exact.log_evidence[0]), abs=0.3)
    assert draws.effective_sample_size() > 400
    plain = pretrained().draws(panel, 4000, corrected=False, key=jr.key(1))
    assert plain.log_weights is None
    np.testing.assert_allclose(plain.mean()["rates"], pretrained().law(panel).mean, atol=0.3)
    told = answers(None, plain, times=[0.5], start=["0"], end=["2"])
    assert told["transition_probs"].shape[-3:] == (1, 3, 3)
    np.testing.assert_allclose(told["transition_probs"].sum(-1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="no state"):
        answers(None, plain, start=["7"], end=["2"])


def test_edge_sets_of_many_states_are_refused(panel):
    with pytest.raises(ValueError, match="at most 4 states"):
        over_edge_sets(panel, wide_prior(), key=jr.key(0))


# Priors


def test_pooled_rates_have_the_multivariate_t_law():
    prior = PooledRates(median=2.0, spread=3.0, shape=2.5, scale=0.7)
    edges = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], bool)
    rates = np.array([[0, 0.5, 3.0], [0, 0, 1.7], [0, 0, 0]])
    logs = np.log(rates[edges])
    shape = prior.scale / prior.shape * (np.eye(3) + prior.spread)
    exact = scipy.stats.multivariate_t(np.full(3, np.log(2.0)), shape, df=2 * prior.shape).logpdf(logs) - logs.sum()
    assert float(prior.log_prob(jnp.asarray(rates), jnp.asarray(edges))) == pytest.approx(exact, rel=1e-5)
    keys = jr.split(jr.key(0), 4000)
    drawn = np.log(np.asarray(jax.vmap(lambda k: prior.sample(jnp.asarray(edges), key=k))(keys))[:, edges])
    assert np.median(drawn) == pytest.approx(np.log(2.0), abs=0.1)  # t of 5 degrees, scale 1.06: 5 standard errors
    law = scipy.stats.t(2 * prior.shape, np.log(2.0), np.sqrt(shape[0, 0]))
    assert scipy.stats.kstest(drawn[:, 0], law.cdf).pvalue > 1e-4
    bounded = PooledRates(median=2.0, spread=3.0, shape=2.5, scale=0.7, largest=4.0)
    kept = (drawn < np.log(4.0)).all(1).mean()
    off = float(
        prior.log_prob(jnp.asarray(rates), jnp.asarray(edges))
        - bounded.log_prob(jnp.asarray(rates), jnp.asarray(edges))
    )
    assert np.exp(off) == pytest.approx(kept, abs=5 * np.sqrt(kept * (1 - kept) / 4000))
    held = np.asarray(jax.vmap(lambda k: bounded.sample(jnp.asarray(edges), key=k))(keys))[:, edges]
    assert held.max() <= 4
    assert scipy.stats.ks_2samp(held[:, 0], np.exp(drawn[(drawn < np.log(4.0)).all(1), 0])).pvalue > 1e-4
    assert float(bounded.log_prob(jnp.asarray(10 * rates), jnp.asarray(edges))) == -np.inf
    with pytest.raises(ValueError, match="`spread`"):
        PooledRates(spread=0.0)


@pytest.mark.parametrize("prior", [BetaRates(), LogUniformRates(), wide_prior().rates, MixedRates()])
def test_searches_begin_where_the_prior_allows(prior):
    rates = np.array([[0.0, 1e-4, 5e3], [0.3, 0.0, 30.0], [0.05, 8.0, 0.0]])
    inside = prior.inside(rates)
    edges = ~np.eye(3, dtype=bool)
    assert np.isfinite(float(prior.log_prob(jnp.asarray(inside), jnp.asarray(edges))))


def test_a_reversible_chain_has_a_proper_prior():
    """Two states: conductance and one log odds; the density integrates to one."""
    panel = PanelData.from_paths(np.array([[0, 1, 0, 1, 1]]), np.arange(5.0), num_states=2)
    fitted = MJPLikelihood(method="map", reversible=True, prior=PooledRates(shape=3.0)).fit(panel, key=jr.key(0))
    posterior = fitted.known.posterior
    with precision(64):
        logs, law = np.linspace(-25, 25, 1201), np.linspace(-60, 60, 241)
        log_prior = jax.vmap(
            lambda s, v: posterior.log_prior({"log_conductances": s[None], "log_law": v[None]}),
        )(*(jnp.asarray(side.ravel()) for side in np.meshgrid(logs, law)))
        mass = np.exp(np.asarray(log_prior)).sum() * (logs[1] - logs[0]) * (law[1] - law[0])
    assert mass == pytest.approx(1, abs=5e-3)


# The paper's network


def small_paths():
    prior = ProcessPrior(edges=CompleteEdges(), noise=LabelFlips((0.01,)))
    return MJPFoundation(
        encoder="bilstm", num_states=(2, 3), width=8, most_paths=6, num_steps=4, batch_size=2, prior=prior, noise=0.01
    )


@pytest.mark.slow
def test_the_papers_network_is_trained():
    fitted = small_paths().fit(small_paths().prior, key=jr.key(0), progress=False)
    assert fitted.report["num_examples"] == 4 * 2 * 2
    assert fitted.report["losses"].shape == (4,)
    assert np.isfinite(np.asarray(fitted.law(three_states(6)[0]).mean)).all()


def test_the_papers_network_is_saved_and_read(tmp_path):
    fitted = dataclasses.replace(small_paths(), network=small_paths().untrained(key=jr.key(0)))
    panel, _ = three_states(6)
    law = fitted.law(panel)
    posterax.save(tmp_path / "it.posterax", fitted)
    np.testing.assert_array_equal(posterax.load(tmp_path / "it.posterax").law(panel).mean, law.mean)
    order = np.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_allclose(fitted.law(panel.of(order)).mean, law.mean, rtol=1e-4)  # paths have no order
    assert np.abs(np.asarray(fitted.law(panel.of(order[:3])).mean) - law.mean).max() > 1e-3
    with pytest.raises(ValueError, match="at most 6 states"):
        fitted.law(PanelData.from_paths(np.arange(8)[None] * np.ones((3, 1), int), np.arange(8.0)))


def test_its_summary_of_a_path_is_at_the_last_row():
    network = PathEncoder.init(8, key=jr.key(0))
    states = np.array([[0, 1, 2, 0], [2, 1, -1, -1]])
    whole = network(PathEncoder.read(PanelData.from_paths(states, np.arange(4.0)), 0.0))
    cut = network(PathEncoder.read(PanelData.from_paths(states[:, :2], np.arange(4.0)[:2], num_states=3), 0.0))
    assert whole.mean.shape == (3, 3)
    assert np.abs(np.asarray(whole.mean) - cut.mean).max() > 1e-4


# Words


def test_what_is_unlike_the_training_is_flagged():
    fast = Process(jnp.asarray([[0.0, 300.0], [400.0, 0.0]]), jnp.asarray([0.5, 0.5]))
    times = np.linspace(0, 1, 400)
    panel = PanelData.from_paths(np.asarray(fast.sample(times, 40, key=jr.key(0))), times, num_states=2)
    assert any("per horizon" in flag for flag in pretrained().flags(panel))
    with pytest.warns(posterax.PosteraxWarning, match="per horizon"):
        pretrained().infer(panel)
    short = PanelData.from_paths(np.array([[0, 1, 0], [1, 1, 0]]), np.arange(3.0), num_states=4)
    flags = " ".join(pretrained().flags(short))
    assert "never seen: 2, 3" in flags
    assert "3 rows" in flags
    still = PanelData.from_paths(np.zeros((5, 20), int), np.arange(20.0), num_states=2)
    law = pretrained().law(still)
    assert np.isfinite(np.asarray(law.mean)).all()
    assert float(law.mean[0, 1]) * 19 < 2  # never left in five horizons


def test_many_states_and_one_path_have_answers():
    size = 10
    rates = jnp.full((size, size), 0.5)
    times = np.linspace(0, 4, 60)
    panel = PanelData.from_paths(
        np.asarray(Process(rates, jnp.full(size, 0.1)).sample(times, 60, key=jr.key(0))), times, num_states=size
    )
    assert any("10 states" in flag for flag in pretrained().flags(panel))
    one = PanelData.from_paths(ratchet_states(1), TIMES, num_states=6)
    assert np.isfinite(np.asarray(pretrained().law(one).mean)).all()


def test_data_that_a_network_cannot_read_are_refused(panel):
    with pytest.raises(ValueError, match="twice"):
        pretrained().law(PanelData.from_paths(np.zeros((5, 1), int), np.zeros(1), num_states=2))
    with pytest.raises(ValueError, match="signal"):
        pretrained().law(dataclasses.replace(panel, signal=np.zeros(len(panel.time))))
    with pytest.raises(ValueError, match=r"Row 7.*exact time"):
        pretrained().law(dataclasses.replace(panel, kind=np.where(np.arange(len(panel.time)) == 7, 1, 0)))
    state = np.where(np.arange(len(panel.time)) == 7, 6, panel.state)
    with pytest.raises(ValueError, match=r"Row 7.*censored"):
        pretrained().law(dataclasses.replace(panel, state=state, censored=np.ones((1, 6), bool)))
    with pytest.raises(TypeError, match="PanelData"):
        pretrained().infer(np.zeros((3, 4)))
    with pytest.raises(TypeError, match="`data` must be a ProcessPrior"):
        MJPFoundation().fit(panel, key=jr.key(0))
    with pytest.raises(ValueError, match="has not been fitted"):
        MJPFoundation().infer(panel)
    with pytest.raises(ValueError, match="`prior`"):
        pretrained().infer(panel, prior=wide_prior())
    with pytest.raises(ValueError, match="`noise`"):
        pretrained(noise=None).draws(panel, key=jr.key(0))


def test_missing_cells_are_passed_over(panel):
    states = ratchet_states()
    keep = np.random.default_rng(0).uniform(size=states.shape) < 0.8
    law = pretrained().law(PanelData.from_paths(np.where(keep, states, -1), TIMES, num_states=6))
    assert np.sqrt(np.mean((np.asarray(law.mean) - RATCHET.rates)[OFF] ** 2)) < 0.25
    gone = dataclasses.replace(panel, state=np.where(keep.ravel(), panel.state, -1))
    np.testing.assert_allclose(pretrained().law(gone).mean, law.mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"polish": "best"}, "`polish`"), ({"noise": 1.0}, "`noise`"), ({"num_states": (1, 2)}, "`num_states`"),
        ({"encoder": "bilstm", "num_states": (8,)}, "`num_states`"), ({"encoder": "gru"}, "`encoder`"),
        ({"edge_threshold": 2.0}, "`edge_threshold`"), ({"width": 0}, "`width`"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        MJPFoundation(**settings)


# Cards


@pytest.mark.parametrize("name", PRETRAINED)
def test_files_are_those_of_their_cards(name):
    facts, file = card(name), weights_folder("posterax_mjp") / f"{name}.posterax"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == facts["sha256"]
    assert file.stat().st_size < 1e6
    assert {"data", "seed", "num_steps", "versions", "trained_on", "processor_seconds", "scores"} <= set(facts)


def test_another_name_or_setting_is_refused():
    with pytest.raises(ValueError, match="`name`"):
        pretrained("triples")
    with pytest.raises(ValueError, match="`width` belongs to the training"):
        pretrained(width=3)


def test_the_score_of_a_card_is_found_again():
    """64 fresh processes; five standard errors of their mean, a false alarm in a million."""
    found = score(pretrained().network, wide_prior(), 2, 64, most_paths=40, key=jr.key(5))
    facts = card()["scores"]["2"]
    assert -found.log_density.mean() > facts["nll"] - 5 * found.log_density.std() / 8  # fewer paths tell less
    assert -found.log_density.mean() < facts["nll"] + 1
    assert abs(np.mean(np.abs(found.place - 0.5) < 0.4) - 0.8) < 5 * 0.05
    assert set(found.summary()) == set(facts)


@pytest.mark.slow
@pytest.mark.parametrize("num_states", [2, 3, 4, 5, 6, 8] if os.environ.get("FULL") == "1" else [2, 3])
def test_the_scores_of_a_card_are_the_same_numbers_again(num_states):
    """512 processes as the card's script draws them: minutes for eight states."""
    found = score(pretrained().network, wide_prior(), num_states, 512, key=jr.key(100)).summary()
    for name, value in card()["scores"][str(num_states)].items():
        assert found[name] == pytest.approx(value, rel=5e-3, abs=5e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("num_states", [5, 8])
def test_the_scores_of_more_states_are_found_again(num_states):
    """64 fresh processes each; five standard errors of their mean, a false alarm in a million: half a nat is caught."""
    found = score(pretrained().network, wide_prior(), num_states, 64, key=jr.key(5))
    off = -found.log_density.mean() - card()["scores"][str(num_states)]["nll"]
    assert abs(off) < 5 * found.log_density.std() / 8
    assert abs(np.mean(np.abs(found.place - 0.5) < 0.4) - 0.8) < 5 * 0.05


@pytest.mark.slow
def test_the_score_of_the_papers_network_is_found_again():
    fitted, facts = pretrained("bilstm"), card("bilstm")
    found = score(fitted.network, fitted.prior, 3, 512, most_paths=32, key=jr.key(100)).summary()
    for name, value in facts["scores"]["3"].items():
        assert found[name] == pytest.approx(value, rel=5e-3, abs=5e-3), name
