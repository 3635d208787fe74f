"""The exact likelihood against sums over all paths, closed forms, published values and maxima."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from posterax_mjp import (
    ConfusedLabels,
    FlippedLabels,
    GaussianSignal,
    MJPLikelihood,
    PanelData,
    Process,
    TrueLabels,
    read_dwell_times,
    read_panel,
)
from posterax_mjp._likelihood import Likelihood
from posterax_mjp._rate_model import RateModel
from scipy import stats

RATES = np.array([[0.0, 0.7, 0.2], [0.4, 0.0, 0.9], [0.1, 0.5, 0.0]])
Q = RATES - np.diag(RATES.sum(1))
LAW = np.array([0.5, 0.3, 0.2])
ALL = ~np.eye(3, dtype=bool)

pytestmark = pytest.mark.usefixtures("float64")


def likelihood(panel, emission=None, initial=None, rates=RATES, **more):
    initial = LAW if initial is None else initial
    made = Likelihood.of(panel, RateModel.of(rates > 0, False), emission or TrueLabels(), initial, **more)
    return made, made.start(rates)


def sum_over_paths(rows, weight):
    """Log of the sum over all hidden paths; `weight(n, state)` of what is seen at row n."""
    times, total = [row[0] for row in rows], 0.0
    steps = [scipy.linalg.expm(Q * gap) for gap in np.diff(times)]
    for path in itertools.product(range(3), repeat=len(rows)):
        p = LAW[path[0]] * weight(0, path[0])
        for n, (i, j) in enumerate(itertools.pairwise(path)):
            p *= steps[n][i, j] * weight(n + 1, j)
        total += p
    return np.log(total)


FRAME = pd.DataFrame(
    {
        "who": ["a"] * 5 + ["b"] * 2,
        "t": [0.0, 0.4, 0.9, 2.0, 2.3, 1.0, 1.7],
        "s": ["x", "y", "y", "z", "x", "z", "z"],
    }
)


def read(frame=FRAME, **more):
    return read_panel(frame, **{"time": "t", "state": "s", "subject": "who", "states": ["x", "y", "z"], **more})


def rows_of(frame, who):
    part = frame[frame.who == who]
    return list(zip(part.t, part.s, strict=True))


def test_known_states_are_a_product():
    made, at = likelihood(read())
    exact = 0.0
    for who in "ab":
        rows = rows_of(FRAME, who)
        codes = ["xyz".index(s) for _, s in rows]
        exact += np.log(LAW[codes[0]])
        for n in range(len(rows) - 1):
            exact += np.log(scipy.linalg.expm(Q * (rows[n + 1][0] - rows[n][0]))[codes[n], codes[n + 1]])
    assert float(made.value(at)) == pytest.approx(exact, rel=1e-12)
    again, _ = likelihood(read(), sequenced=True)
    assert float(again.value(at)) == pytest.approx(exact, rel=1e-12)
    given, _ = likelihood(read(), initial="given")
    firsts = np.log(LAW[0]) + np.log(LAW[2])
    assert float(given.value(at)) == pytest.approx(exact - firsts, rel=1e-12)
    assert float(jnp.sum(likelihood(read(), initial="given", sequenced=True)[0].by_subject(at))) == pytest.approx(
        exact - firsts, rel=1e-12
    )


@pytest.mark.parametrize("prob", [0.1, None])
def test_wrong_labels_are_summed_over_all_paths(prob):
    made, at = likelihood(read(), FlippedLabels(prob))
    chance = 0.1 if prob else float(jax.nn.sigmoid(at["log_odds_noise"]))
    for number, who in enumerate("ab"):
        rows = rows_of(FRAME, who)
        weight = lambda n, state, rows=rows: 1 - chance if "xyz"[state] == rows[n][1] else chance / 2  # noqa: E731
        assert float(made.by_subject(at)[number]) == pytest.approx(sum_over_paths(rows, weight), rel=1e-10)
    assert float(made.value(at)) == pytest.approx(float(made.by_subject(at).sum()), rel=1e-12)


def test_missing_and_censored_states_are_summed_over():
    frame = FRAME.assign(s=["x", None, "y or z", "z", "x", "z", "z"])
    made, at = likelihood(read(frame, censored={"y or z": ["y", "z"]}))
    allowed = [[0], [0, 1, 2], [1, 2], [2], [0]]
    exact = sum_over_paths(rows_of(frame, "a"), lambda n, state: float(state in allowed[n]))
    assert float(made.by_subject(at)[0]) == pytest.approx(exact, rel=1e-10)


def test_labels_by_a_matrix_and_a_state_that_is_never_mistaken():
    matrix = [[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]]
    made, at = likelihood(read(), ConfusedLabels(matrix))
    rows = rows_of(FRAME, "a")
    exact = sum_over_paths(rows, lambda n, state: matrix[state]["xyz".index(rows[n][1])])
    assert float(made.by_subject(at)[0]) == pytest.approx(exact, rel=1e-10)
    symmetric = [[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]
    values = [
        float(likelihood(read(), emission)[0].value(at))
        for emission in (ConfusedLabels(symmetric), FlippedLabels(0.2, exempt=(2,)))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_signal_is_summed_over_all_paths():
    frame = FRAME.assign(y=[0.1, 1.2, np.nan, 2.2, -0.3, 1.9, 2.5])
    panel = read_panel(frame, time="t", signal="y", subject="who")
    made, at = likelihood(panel, GaussianSignal(shared_sd=False))
    at |= {"levels": jnp.asarray([0.0, 1.0, 2.0]), "log_sds": jnp.log(jnp.asarray([0.3, 0.4, 0.5]))}
    y = frame.y.to_numpy()

    def weight(n, state):
        return 1.0 if np.isnan(y[n]) else stats.norm.pdf(y[n], state, [0.3, 0.4, 0.5][state])

    assert float(made.by_subject(at)[0]) == pytest.approx(sum_over_paths(rows_of(frame, "a"), weight), rel=1e-10)


def test_exact_jumps_have_the_density_of_their_paths():
    panel = read(exact=True)
    made, at = likelihood(panel, initial="given")
    exact = 0.0
    for who in "ab":
        rows = rows_of(FRAME, who)
        for (t, s), (u, r) in itertools.pairwise(rows):
            i, j = "xyz".index(s), "xyz".index(r)
            exact += Q[i, i] * (u - t) + (np.log(RATES[i, j]) if i != j else 0.0)
    assert float(made.value(at)) == pytest.approx(exact, rel=1e-12)


def test_an_exact_entry_is_the_derivative_of_a_snapshot():
    rates = RATES.copy()
    rates[2] = 0.0  # z is death
    frame = pd.DataFrame({"who": ["a", "a"], "t": [0.0, 0.8], "s": ["x", "z"]})
    made, at = likelihood(read(frame, entered=["z"]), initial="given", rates=rates)
    step = 1e-6
    dead = [scipy.linalg.expm((rates - np.diag(rates.sum(1))) * t)[0, 2] for t in (0.8 - step, 0.8 + step)]
    assert float(made.value(at)) == pytest.approx(np.log((dead[1] - dead[0]) / (2 * step)), rel=1e-8)


def test_covariates_multiply_rates_from_their_row_on():
    frame = FRAME.assign(z=[0.0, 1.0, 1.0, 0.0, 2.0, 0.5, 0.5])
    panel = read(frame, covariates=["z"])
    model = RateModel.of(ALL, False, panel.covariates.mean(0))
    made = Likelihood.of(panel, model, TrueLabels(), "given")
    effects = np.linspace(-0.5, 0.5, 6)[:, None]
    at = {**made.start(RATES), "effects": jnp.asarray(effects)}
    exact = 0.0
    for n in (0, 1, 2, 3, 5):
        factor = np.zeros((3, 3))
        factor[ALL] = np.exp(effects[:, 0] * (frame.z[n] - frame.z.mean()))
        rates = RATES * factor
        p = scipy.linalg.expm((rates - np.diag(rates.sum(1))) * (frame.t[n + 1] - frame.t[n]))
        exact += np.log(p["xyz".index(frame.s[n]), "xyz".index(frame.s[n + 1])])
    assert float(made.value(at)) == pytest.approx(exact, rel=1e-12)


def test_reversible_rates_come_back():
    law = np.array([0.2, 0.5, 0.3])
    symmetric = np.array([[0, 0.4, 0.9], [0.4, 0, 0.3], [0.9, 0.3, 0]])
    rates = symmetric * np.sqrt(law / law[:, None])
    model = RateModel.of(ALL, True)
    found = model.matrix(model.rates_of(model.start(rates)))
    np.testing.assert_allclose(found, rates, rtol=1e-9)
    assert model.start(rates)["log_law"].shape == (2,)


def test_dwell_times_are_exact_jumps_with_a_closed_maximum():
    process = Process(jnp.asarray(RATES), jnp.asarray(LAW))
    jumps = process.sample_jumps(400.0, 1, max_jumps=1000, key=jr.key(0))
    times = np.asarray(jumps.times[0])
    count = int(np.isfinite(times).sum())
    states = np.concatenate([np.asarray(jumps.start), np.asarray(jumps.states[0, :count])])
    lengths = np.diff(np.concatenate([[0.0], times[:count], [400.0]]))
    frame = pd.DataFrame({"length": lengths, "state": states})
    split = frame.loc[frame.index.repeat(2)].assign(length=lambda f: f.length / 2)  # equal neighbours are one sojourn
    spent = np.array([lengths[states == i].sum() for i in range(3)])
    number = np.zeros((3, 3))
    np.add.at(number, (states[:-1], states[1:]), 1)
    for data in (frame, split):
        fitted = MJPLikelihood().fit(read_dwell_times(data, duration="length", state="state"), key=jr.key(0))
        np.testing.assert_allclose(fitted.rates, number / spent[:, None], rtol=1e-6)
    table = fitted.table()  # a count of n has standard error sqrt(n), on the scale of logs 1 / sqrt(n)
    width = np.log(table.upper / table.lower) / 2 / stats.norm.ppf(0.975)
    np.testing.assert_allclose(width, 1 / np.sqrt(number[ALL]), rtol=1e-4)


def test_estimated_initial_law_is_the_frequencies_of_first_states():
    rng = np.random.default_rng(0)
    states = np.stack([rng.choice(3, 200, p=LAW), rng.choice(3, 200)], 1)
    fitted = MJPLikelihood(initial="estimated").fit(PanelData.from_paths(states, [0.0, 1.0]), key=jr.key(0))
    first = np.bincount(states[:, 0], minlength=3) / 200
    np.testing.assert_allclose(fitted.table().loc["initial_law"].estimate, first, atol=1e-5)


CAV = np.array([[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
FIXED = np.where(CAV, np.array([0.25, 0.166, 0.25, 0])[:, None], 0.0)


# Published in the test suite of the R package msm, and maxima recomputed from the likelihood.
@pytest.mark.parametrize(("entered", "fixed", "least"), [((4,), 4908.816768, 3968.7979), ((), 4833.006406, 3986.0871)])
def test_heart_transplants(data_folder, entered, fixed, least):
    panel = read_panel(
        data_folder / "mjp" / "msm_cav.csv", time="years", state="state", subject="PTNUM", entered=entered
    )
    np.testing.assert_array_equal(panel.counts()[:3], [[1367, 204, 44, 148], [46, 134, 54, 48], [4, 13, 107, 55]])
    made = Likelihood.of(panel, RateModel.of(CAV, False), TrueLabels(), "given")
    value = eqx.filter_jit(made.value)(made.start(FIXED))
    assert -2 * float(value) == pytest.approx(fixed, abs=1e-5)
    fitted = MJPLikelihood(edges=CAV).fit(panel, key=jr.key(0))
    assert fitted.report is not None
    assert -2 * fitted.report["log_likelihood"] == pytest.approx(least, abs=1e-4)
    if entered:
        published = [0.1279, 0.0425, 0.2251, 0.3426, 0.0403, 0.1306, 0.3065]
        np.testing.assert_allclose(fitted.rates[CAV], published, atol=1e-4)
    np.testing.assert_allclose(fitted.log_likelihood(panel).sum(), -least / 2, atol=1e-4)
