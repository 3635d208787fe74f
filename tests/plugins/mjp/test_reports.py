"""Hidden paths against enumeration, expected counts against simulation, and draws of what follows from rates."""

import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import posterax
import pytest
import scipy.linalg
from posterax import Draw, Infer
from posterax._labels import Labels
from posterax_mjp import (
    Answer,
    FlippedLabels,
    MJPLikelihood,
    PanelData,
    Process,
    answers,
    chapman_kolmogorov,
    entropy_production,
    generators,
    likeliest_paths,
    pearson,
    pretrained,
    prevalence,
    read_panel,
    state_probs,
)
from posterax_models import FlashingRatchet

RATES = np.array([[0.0, 0.7, 0.2], [0.4, 0.0, 0.9], [0.1, 0.5, 0.0]])
LAW = (0.5, 0.3, 0.2)
TIMES = np.array([0.0, 0.3, 0.5, 1.4, 1.5])


def simulated(rates, num, times, seed, law=LAW):
    process = Process(jnp.asarray(rates, float), jnp.asarray(law, float))
    return PanelData.from_paths(np.asarray(process.sample(times, num, key=jr.key(seed))), times, num_states=len(rates))


@pytest.fixture(scope="module")
def noisy():
    """A fit with wrong labels, and paths of unequal lengths."""
    states = simulated(RATES, 40, TIMES, 0).padded
    labels = states(simulated(RATES, 40, TIMES, 0).state, -1).copy()
    labels[::3, -1] = -1
    panel = PanelData.from_paths(labels, TIMES)
    model = MJPLikelihood(method="map", emission=FlippedLabels(0.2), initial=LAW)
    return model.fit(panel, key=jr.key(0)), panel


def test_hidden_paths_are_those_of_enumeration(noisy):
    fitted, panel = noisy
    paths, probs = likeliest_paths(fitted, panel), state_probs(fitted, panel)
    for who in (0, 1, 7):
        rows = np.flatnonzero(panel.subject == who)
        steps = [scipy.linalg.expm(fitted.generator * gap) for gap in np.diff(panel.time[rows])]
        weights = {}
        for path in itertools.product(range(3), repeat=len(rows)):
            p = LAW[path[0]]
            for n, state in enumerate(path):
                p *= 0.8 if state == panel.state[rows[n]] else 0.1
                p *= steps[n - 1][path[n - 1], state] if n else 1.0
            weights[path] = p
        assert tuple(paths[rows]) == max(weights, key=lambda path: weights[path])
        total = sum(weights.values())
        exact = [
            [sum(w for path, w in weights.items() if path[n] == k) / total for k in range(3)] for n in range(len(rows))
        ]
        np.testing.assert_allclose(probs[rows], exact, rtol=1e-9)


def test_paths_that_are_seen_are_likeliest():
    panel = simulated(RATES, 10, TIMES, 1)
    fitted = MJPLikelihood(method="map").fit(panel, key=jr.key(0))
    np.testing.assert_array_equal(likeliest_paths(fitted, panel), panel.state)
    np.testing.assert_allclose(state_probs(fitted, panel), np.eye(3)[panel.state], atol=1e-12)


GRID = np.linspace(0.0, 3.0, 13)


# Standard scores of the true model: with 27 of them, one beyond 5 comes once in 60,000 runs.
def test_expected_counts_are_right_for_the_truth_and_wrong_for_another_process():
    panel = simulated(RATES, 3000, GRID, 2)
    fitted = MJPLikelihood().fit(panel, key=jr.key(0))
    table = chapman_kolmogorov(fitted, panel)
    assert table.z.abs().max() < 5
    observed, expected = (table[name].to_numpy().reshape(3, 9).sum(1) for name in ("observed", "expected"))
    np.testing.assert_array_equal(observed, [36_000, 18_000, 9_000])
    np.testing.assert_allclose(expected, observed, rtol=1e-9)
    assert pearson(table.query("steps == 2"))[2] > 1e-5
    mixed = simulated([[0, 1.0, 1.0], [5.0, 0, 0], [0.1, 0, 0]], 3000, GRID, 6)  # short and long stays in two states
    merged = PanelData.from_paths(np.minimum(mixed.padded(mixed.state, 0), 1), GRID)  # that look alike
    lumped = MJPLikelihood().fit(merged, key=jr.key(0))
    wrong = chapman_kolmogorov(lumped, merged)
    assert pearson(wrong.query("steps == 4"))[2] < 1e-6


def test_prevalence():
    panel = simulated(RATES, 4000, GRID, 3)
    fitted = MJPLikelihood().fit(panel, key=jr.key(0))
    table = prevalence(fitted, panel, [0.0, 1.5, 3.0])
    assert (table.at_risk == 4000).all()
    np.testing.assert_array_equal(table.observed[:3], np.bincount(panel.padded(panel.state, 0)[:, 0]))
    np.testing.assert_array_equal(table.observed[6:], np.bincount(panel.padded(panel.state, 0)[:, -1]))
    share = table.expected / 4000
    error = np.sqrt(share * (1 - share) / 4000)
    assert (np.abs(table.observed / 4000 - share) < 5 * error + 1e-9).all()


def test_the_dead_stay_at_risk():
    rates = np.array([[0.0, 0.5], [0.0, 0.0]])
    frame = pd.DataFrame({"who": [0, 0, 1, 1], "t": [0, 1.0, 0, 4.0], "s": ["alive", "dead", "alive", "alive"]})
    panel = read_panel(frame, time="t", state="s", subject="who", entered=["dead"])
    fitted = MJPLikelihood(edges=rates > 0).fit(panel, key=jr.key(0))
    table = prevalence(fitted, panel, [2.0, 5.0])
    assert table.at_risk.tolist() == [2, 2, 1, 1]
    assert table.observed.tolist() == [1, 1, 0, 1]
    assert prevalence(fitted, panel, [2.0], until=[1.5, 4.0]).observed.tolist() == [1, 0]
    alive = np.exp(-fitted.rates[0, 1] * 2)
    np.testing.assert_allclose(table.expected[:2], [2 * alive, 2 * (1 - alive)])
    with pytest.raises(ValueError, match="Exact times depend"):
        chapman_kolmogorov(fitted, panel)


def test_answers_of_draws():
    panel = simulated(FlashingRatchet().rates, 400, np.linspace(0, 2.5, 51), 4, np.full(6, 1 / 6))
    fitted = MJPLikelihood(method="map", num_draws=200).fit(panel, key=jr.key(0))
    draws = fitted.infer(key=jr.key(1))
    found = answers(fitted, draws, times=[0.5, 1.0], start=[0], end=[5])
    one = generators(fitted, draws)[0, 3]
    assert found["entropy_production"][0, 3] == pytest.approx(entropy_production(one))
    np.testing.assert_allclose(found["transition_probs"][0, 3, 1], scipy.linalg.expm(one), rtol=1e-8)
    assert found["committors"][0, 3, 5] == 1
    low, high = (found.quantile(q)["entropy_production"] for q in (1e-3, 1 - 1e-3))
    assert low < FlashingRatchet().entropy_production < high
    tree = found.to_datatree()
    assert tree["posterior"]["first_passage_times"].dims[2:] == ("from", "to")
    assert list(tree["posterior"].coords["from"].values) == list("012345")


def test_labels_tell_which_rates_draws_hold_and_a_pipeline_goes_from_snapshots_to_answers(tmp_path):
    rates = np.array([[0.0, 0.5, 0.5], [0.8, 0, 0.3], [0, 0.4, 0]])
    panel = simulated(rates, 80, np.linspace(0, 3, 13), 6, (0.4, 0.3, 0.3))
    fitted = MJPLikelihood(method="laplace", edges=rates > 0, num_draws=200).fit(panel, key=jr.key(0))
    pipeline = Infer(fitted) >> Answer(times=(0.5, 1.0), start=("0",), end=("2",))
    draws = pipeline.run(key=jr.key(1))
    told = answers(fitted, draws, times=[0.5, 1.0], start=[0], end=[2])
    assert set(told.values) == set(draws.values)
    for name, value in told.values.items():
        np.testing.assert_array_equal(draws[name], value)
    assert draws.labels.dims["first_passage_times"] == ["from", "to"]
    assert draws.history[-1]["step"] == "answer"
    assert "first_passage_times" in draws.history[-1]["added"]
    posterax.save(tmp_path / "pipeline.posterax", pipeline)
    assert posterax.load(tmp_path / "pipeline.posterax").stages[-1] == pipeline.stages[-1]
    assert (Infer(pretrained(), panel) >> Draw(20) >> Answer()).run(key=jr.key(2)).num_draws == 20
    with pytest.raises(ValueError, match="Give what was `fitted` too"):
        answers(None, draws.replace(labels=Labels()))


def test_reducible_chains_have_no_stationary_answers():
    rates = np.array([[0.0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]])
    panel = simulated(rates, 50, [0.0, 1.0, 2.0], 5, (1.0, 0, 0))
    fitted = MJPLikelihood(edges=rates > 0, num_draws=20).fit(panel, key=jr.key(0))
    found = answers(fitted, fitted.infer(key=jr.key(0)))
    assert "stationary_law" not in found.values
    assert np.isinf(found["first_passage_times"][0, 0, 0, 1])


def test_questions_that_do_not_fit(noisy):
    fitted, _ = noisy
    with pytest.raises(ValueError, match="must have the states"):
        likeliest_paths(fitted, PanelData.from_paths(np.array([[0, 1]]), [0.0, 1.0]))
    with pytest.raises(ValueError, match="no state 'x'"):
        answers(fitted, fitted.infer(key=jr.key(0)), start=["x"], end=[1])
    frame = pd.DataFrame({"t": [0.0, 1.0, 2.0], "s": ["0", None, "1"]})
    hidden = read_panel(frame, time="t", state="s", states=["0", "1", "2"])
    with pytest.raises(ValueError, match="known at all rows"):
        prevalence(fitted, hidden, [1.0])
