"""The estimator on tables and energies: answers against exact ones, forms of data, bad input."""

import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from posterax import PosteraxWarning, load, save
from posterax_marginalization import (
    Dense,
    DetailedBalance,
    Energy,
    KullbackLeibler,
    Lattice,
    MarginalizationModel,
    SelfConsistency,
)
from posterax_models import IsingLattice, SubsetMarginals, assignments

LAW = IsingLattice(3, 3, 0.3, 0.1)
ENERGY = Energy(LAW.log_weight, (2,) * 9)
SMALL = MarginalizationModel(Lattice(3, 3, periodic=True, width=8, depth=2), num_steps=450, learning_rate=5e-3)
TABLE = MarginalizationModel(Dense(32, 1), num_steps=300, marginal_steps=300, num_imagined=512, learning_rate=3e-3)


@pytest.fixture(scope="module")
def lattice():
    return SMALL.fit(ENERGY, key=jr.key(0), progress=False)


def cells(num=600, seed=0):
    """Three columns, b mostly a, c alone; probabilities are known."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 3, num)
    b = np.where(rng.random(num) < 0.8, a, rng.integers(0, 3, num))
    c = rng.random(num) < 0.3
    names = np.array(["red", "green", "blue"])
    return pd.DataFrame({"a": names[a], "b": b, "c": c})


def truth(frame):
    a = frame["a"].map({"red": 0, "green": 1, "blue": 2})
    return (
        np.log(1 / 3)
        + np.log(np.where(a == frame["b"], 0.8 + 0.2 / 3, 0.2 / 3))
        + np.log(np.where(frame["c"], 0.3, 0.7))
    )


@pytest.fixture(scope="module")
def table():
    frame = cells()
    holes = np.random.default_rng(1).random(frame.shape) < 0.1
    return TABLE.fit(frame.mask(holes), key=jr.key(0), progress=False)


# An energy, beside enumeration


@pytest.fixture(scope="module")
def exact():
    every = jnp.asarray(assignments((2,) * 9))
    return SubsetMarginals.of(np.asarray(LAW.log_weight(every)).reshape((2,) * 9))


def test_all_marginals_of_a_lattice_are_near_the_exact_ones(lattice, exact):
    """All 19,683; measured mean 0.03 and at most 0.25 nats; a network of a uniform law is 1.0 off on average."""
    states = assignments((3,) * 9)
    observed = states < 2
    told = lattice.log_marginal(np.where(observed, states, -1), check=False)
    off = np.abs(told - np.asarray(exact(states, observed)))
    assert off.mean() < 0.08
    assert off.max() < 0.8
    assert told[~observed.any(-1)] == 0.0
    full = observed.all(-1)
    np.testing.assert_allclose(
        told[full] - told[full][0], (LAW.log_weight(states) - LAW.log_weight(states[full][0]))[full], atol=1e-4
    )


def test_conditionals_are_near_the_exact_ones(lattice, exact):
    x = np.asarray(LAW.sample(300, key=jr.key(1)))
    a, b = np.arange(9) % 3 == 0, np.arange(9) > 6
    told = lattice.log_conditional(x, of=a, given=b)
    expected = np.asarray(exact(x, np.broadcast_to(a | b, x.shape))) - np.asarray(exact(x, np.broadcast_to(b, x.shape)))
    assert np.abs(told - expected).mean() < 0.1
    np.testing.assert_allclose(told, lattice.log_conditional(x, ["x0", "x3", "x6"], ["x7", "x8"]))
    probs = lattice.probs(x[:5], b)
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
    assert (probs[:, 8, :].argmax(-1) == x[:5, 8]).all()


def test_log_partition_three_ways_and_weighted_draws(lattice, exact):
    """Importance within 5 standard errors; the bound below; evidence of a clamped row against enumeration."""
    found = lattice.log_partition(4000, key=jr.key(2))
    log_z = LAW.log_partition()
    assert abs(found.learned - log_z) < 0.05
    assert found.lower_bound < log_z + 3 * found.bound_error
    assert abs(found.importance - log_z) < 5 * found.standard_error + 1e-4
    assert 2000 < found.ess <= 4000
    given = np.where(np.arange(9) < 3, 1, -1)
    draws = lattice.corrected(4000, given=given, key=jr.key(3))
    expected = log_z + float(exact(np.ones(9, int), np.arange(9) < 3))
    ess = draws.effective_sample_size()
    assert abs(draws.log_evidence[0] - expected) < 5 * np.sqrt(max(4000 / ess - 1, 1e-4) / 4000)
    assert (draws["x"][..., :3] == 1).all()
    pair = np.arange(9) < 3
    last = np.exp(float(exact(np.ones(9, int), pair | (np.arange(9) == 8))) - float(exact(np.ones(9, int), pair)))
    assert abs(draws.mean()["x"][8] - last) < 5 * np.sqrt(last * (1 - last) / ess)


def test_chains_have_the_law_of_the_energy_and_go_to_arviz(lattice):
    """8 chains of 192: the mean of log f within 6 standard errors by their effective size."""
    draws = lattice.chains(192, num_chains=8, key=jr.key(4))
    assert draws["x"].shape == (8, 192, 9)
    assert draws.stats["accepted"].mean() > 0.8
    assert draws.history[0]["step"] == "chains"
    x = np.asarray(LAW.sample(20_000, key=jr.key(5)))
    exact_mean = float(np.mean(np.asarray(LAW.log_weight(x), float)))
    import arviz

    ess = float(arviz.ess(np.asarray(draws.log_density)))
    sd = np.std(draws.log_density)
    assert abs(draws.log_density.mean() - exact_mean) < 6 * sd * np.sqrt(1 / ess + 1 / 20_000)
    tree = draws.to_datatree()
    assert tree["posterior"]["x"].coords["variable"].values.tolist() == [f"x{d}" for d in range(9)]


def test_the_error_report_sees_its_errors(lattice, exact):
    x = np.asarray(LAW.sample(100, key=jr.key(6)))
    observed = np.random.default_rng(0).random(x.shape) < 0.5
    report = lattice.error_report(x, observed, num_orders=4, key=jr.key(7))
    true = np.asarray(exact(x, observed))
    np.testing.assert_allclose(report.log_marginal, lattice.log_marginal(x, observed, check=False))
    assert np.abs(report.by_orders - true).mean() < 0.1
    assert (report.frame()["num_observed"] == observed.sum(-1)).all()
    assert 0 < np.median(report.residual) < 0.2
    assert 0 < np.median(report.swap) < 0.2
    assert "100 queries" in report.words
    sizes = [row["num_observed"] for row in lattice.report["consistency"]]
    assert sizes == list(range(10))
    shifted = SMALL_SHIFTED(lattice)
    assert np.median(shifted.error_report(x, observed, num_orders=4, key=jr.key(7)).residual) > 0.25


def SMALL_SHIFTED(fitted):
    """Marginals 0.4 off for each spin observed."""
    import dataclasses

    import equinox as eqx

    network = eqx.tree_at(lambda n: n.skip, fitted.model.marginal, replace_fn=lambda w: w.at[1:3].add(0.4))
    return dataclasses.replace(fitted, model=eqx.tree_at(lambda m: m.marginal, fitted.model, network))


def test_the_published_loss_learns_too_and_does_not_claim_log_z():
    """Detailed balance of one step and the published loss move towards the lattice; 0.5 is half of an untrained one."""
    import dataclasses

    model = dataclasses.replace(SMALL, objective=KullbackLeibler(ENERGY, num_chains=64), num_steps=300)
    fitted = model.fit(ENERGY, key=jr.key(0), progress=False)
    found = fitted.log_partition(2000, key=jr.key(1))
    assert np.isnan(found.learned)
    assert 0 < LAW.log_partition() - found.lower_bound < 0.5


# Tables


def test_a_table_with_holes_is_learned(table):
    """All 18 rows beside their probabilities: total variation; columns that are independent are 0.5 off."""
    every = pd.DataFrame(
        [(a, b, c) for a in ("red", "green", "blue") for b in range(3) for c in (False, True)], columns=list("abc")
    )
    probs = np.exp(table.log_marginal_by_orders(every, num_orders=6, key=jr.key(0))).mean(0)
    assert 0.5 * np.abs(probs - np.exp(truth(every))).sum() < 0.15
    told = table.log_marginal(every, check=False)
    assert np.abs(np.exp(told) - probs).sum() < 0.3
    assert abs(float(table.log_marginal({"a": "red"})) - np.log(1 / 3)) < 0.2
    likely = table.log_conditional(pd.DataFrame({"a": ["red", "red"], "b": [0, 1]}), of="b", given="a")
    assert abs(np.exp(likely[0]) - 0.867) < 0.1
    assert np.exp(likely[1]) < 0.2


def test_draws_and_imputations_are_frames_like_the_data(table):
    draws = table.sample(300, key=jr.key(1))
    assert list(draws.columns) == ["a", "b", "c"]
    assert set(draws["a"]) <= {"red", "green", "blue"}
    assert (draws["a"].map({"red": 0, "green": 1, "blue": 2}).astype(int) == draws["b"]).mean() > 0.7
    given = table.sample(50, given={"a": "blue"}, order=["b", "c", "a"], key=jr.key(2))
    assert (given["a"] == "blue").all()
    frame = cells(40, seed=3).astype({"b": float}).set_index(pd.Index(range(100, 140)))
    frame.loc[frame.index % 2 == 0, "b"] = np.nan
    full = table.impute(frame, key=jr.key(3))
    assert (full.index == frame.index).all()
    assert full.notna().all().all()
    odd = frame.index % 2 == 1
    assert (full.loc[odd, "b"] == frame.loc[odd, "b"]).all()
    assert (full["a"] == frame["a"]).all()


def test_a_saved_model_answers_alike(table, lattice, tmp_path):
    save(tmp_path / "table.posterax", table)
    again = load(tmp_path / "table.posterax")
    assert again.log_marginal({"a": "red", "c": True}) == table.log_marginal({"a": "red", "c": True})
    pd.testing.assert_frame_equal(again.sample(5, key=jr.key(0)), table.sample(5, key=jr.key(0)))
    save(tmp_path / "lattice.posterax", lattice)
    again = load(tmp_path / "lattice.posterax", like=lattice)
    x = np.ones(9, int)
    assert again.log_marginal(x) == lattice.log_marginal(x)


def test_missing_values_and_booleans_say_the_same(table):
    x = pd.DataFrame({"a": ["red", "blue"], "b": [0, 2], "c": [True, False]})
    one = table.log_marginal(x, ["a", "c"])
    np.testing.assert_array_equal(one, table.log_marginal(x[["c", "a"]]))
    np.testing.assert_array_equal(one, table.log_marginal(x, np.array([True, False, True])))
    assert table.log_marginal({}) == 0.0


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.log_marginal({"a": "pink"}), "'pink' in column 'a'"),
        (lambda m: m.log_marginal({"d": 1}), r"\['d'\]"),
        (lambda m: m.log_marginal({"a": "red"}, ["b"]), "missing in `x`"),
        (lambda m: m.log_marginal({"a": "red"}, ["e"]), "names"),
        (lambda m: m.log_marginal(np.array([[0, 3, 0]])), "column 'b', which has 3 values"),
        (lambda m: m.log_marginal(np.array([[0, 0]])), "3 columns"),
        (lambda m: m.log_marginal(np.array([[0.5, 0, 0]])), "whole numbers"),
        (lambda m: m.log_conditional({"a": "red"}, of="b", given="a"), r"no value for \['b'\]"),
        (lambda m: m.sample(3, given=pd.DataFrame({"a": ["red", "red"]}), key=jr.key(0)), "one row"),
        (lambda m: m.sample(3, order=["a", "b"], key=jr.key(0)), "`order`"),
        (lambda m: m.log_partition(key=jr.key(0)), "learned from data"),
        (lambda m: m.infer({"a": "red"}, prior=1), "`prior`"),
        (lambda m: m.impute(cells(2), key=3), "JAX random key"),
        (lambda m: TABLE.log_marginal({"a": 1}), "not been fitted"),
    ],
)
def test_questions_that_make_no_sense_are_answered_in_words(table, ask, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ask(table)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pd.DataFrame({"a": [None, None]}, dtype=object), "no value at all"),
        (pd.DataFrame({"a": np.arange(2000)}), "2000 different values"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01", "2021-01-01"])}), "Timestamp"),
        (pd.DataFrame({"a": [1, "x"]}), "mixes types"),
        (np.zeros((0, 3), int), "not empty"),
        (np.array([[0, -1], [1, -1]]), "without any value"),
        (np.array([[0.5, 1.0]]), "whole numbers"),
        ("data", "frame"),
    ],
)
def test_data_that_cannot_be_learned_are_refused_in_words(data, words):
    with pytest.raises((ValueError, TypeError), match=words):
        TABLE.fit(data, key=jr.key(0))


def test_one_variable_constant_columns_and_values_that_never_came():
    import dataclasses

    tiny = dataclasses.replace(TABLE, num_steps=200, marginal_steps=200, num_imagined=64)
    x = np.array([[0], [1], [1], [1]] * 20)
    fitted = tiny.fit(x, key=jr.key(0), progress=False)
    assert abs(np.exp(fitted.log_marginal_by_orders([[1]], key=jr.key(1))[0, 0]) - 0.75) < 0.1
    both = np.hstack([x, np.zeros_like(x)])
    fitted = tiny.fit(both, num_values=(3, 1), key=jr.key(0), progress=False)
    assert (fitted.sample(50, key=jr.key(1))[:, 1] == 0).all()
    np.testing.assert_allclose(fitted.probs([-1, -1])[1], [1.0, 0.0, 0.0], atol=1e-6)
    with pytest.warns(PosteraxWarning, match="less likely than anything"):
        fitted.log_marginal([[2, -1]])
    assert fitted.is_outside([[2, -1], [1, -1]]).tolist() == [True, False]


def test_both_at_once_learns_and_wants_complete_rows():
    import dataclasses

    joint = dataclasses.replace(TABLE, joint=True)
    frame = cells()
    fitted = joint.fit(frame, key=jr.key(0), progress=False)
    assert abs(float(fitted.log_marginal({"c": True})) - np.log(0.3)) < 0.2
    assert set(fitted.report["loss"]) == {"joint"}
    with pytest.raises(ValueError, match="`joint`"):
        joint.fit(frame.mask(np.eye(len(frame), 3, dtype=bool)), key=jr.key(0))


def test_a_training_goes_on_from_its_checkpoints(tmp_path):
    import dataclasses

    tiny = dataclasses.replace(TABLE, num_steps=30, marginal_steps=20, num_imagined=64)
    frame = cells(200)
    first = tiny.fit(frame, key=jr.key(0), checkpoint=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "conditional" / "state.posterax").exists()
    assert (tmp_path / "run" / "marginal" / "state.posterax").exists()
    again = tiny.fit(frame, key=jr.key(0), checkpoint=tmp_path / "run", progress=False)
    for a, b in zip(jax.tree.leaves(first.model), jax.tree.leaves(again.model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 0}, "`num_steps`"),
        ({"architecture": "dense"}, "`architecture`"),
        ({"objective": "tb"}, "`objective`"),
        ({"learning_rate": 0.0}, "`learning_rate`"),
        ({"weight_decay": -1.0}, "`weight_decay`"),
    ],
)
def test_settings_out_of_place_are_named(change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        MarginalizationModel(**change)


def test_objectives_for_the_other_kind_of_data_are_refused():
    with pytest.raises(ValueError, match="for data"):
        MarginalizationModel(objective=DetailedBalance(ENERGY)).fit(cells(), key=jr.key(0))
    with pytest.raises(ValueError, match="for an Energy"):
        MarginalizationModel(objective=SelfConsistency()).fit(ENERGY, key=jr.key(0))
    with pytest.raises(ValueError, match="freeze"):
        MarginalizationModel(objective=SelfConsistency(freeze=False)).fit(cells(), key=jr.key(0))


# Energies


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x: jnp.where(x[0] == 1, jnp.nan, 0.0), ValueError, "is nan at"),
        (lambda x: jnp.where(x[0] == 1, jnp.inf, 0.0), ValueError, "is inf at"),
        (lambda x: jnp.full((), -jnp.inf), ValueError, "-inf at all"),
        (lambda x: float(x[0]), TypeError, "cannot be traced"),
        (lambda x: 1.0 if x[0] else 0.0, TypeError, "cannot be traced"),
        (lambda x: x * 1.0, TypeError, "one number"),
    ],
)
def test_energies_that_cannot_be_learned_are_refused_in_words(function, error, words):
    with pytest.raises(error, match=words):
        SMALL.fit(Energy(function, (2,) * 9), key=jr.key(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Energy(3.0, (2,)), "`log_weight`"),
        (lambda: Energy(jnp.sum, ()), "`num_values`"),
        (lambda: Energy(jnp.sum, (2, 0)), "`num_values`"),
        (lambda: Energy(jnp.sum, (2, 2), names=("a",)), "`names`"),
        (lambda: Energy(jnp.sum, (2,), impossible=1.0), "`impossible`"),
    ],
)
def test_energies_out_of_place_are_named(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def mixture(y=None):
    with numpyro.plate("row", 3):
        which = numpyro.sample("which", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        flip = numpyro.sample("flip", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(which - 2.0 * flip, 1.0), obs=y)
    numpyro.sample("count", dist.Binomial(2, 0.4))


def test_the_discrete_sites_of_a_numpyro_model_are_an_energy():
    y = jnp.array([0.3, 2.0, -1.0])
    energy = Energy.from_numpyro(mixture, y)
    assert dict(zip(energy.names, energy.num_values, strict=True)) == {
        **{f"which[{i}]": 3 for i in range(3)}, **{f"flip[{i}]": 2 for i in range(3)}, "count": 3,
    }  # fmt: skip
    x = np.array([0, 1, 2, 1, 0, 1, 2])
    by_hand = np.log([0.2, 0.5, 0.3])[x[:3]].sum() + np.log([0.7, 0.3])[x[3:6]].sum() + 2 * np.log(0.4)
    by_hand += float(dist.Normal(x[:3] - 2.0 * x[3:6], 1.0).log_prob(y).sum())
    assert float(energy(x[None])[0]) == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(ValueError, match="'rate' is continuous"):
        Energy.from_numpyro(lambda: numpyro.sample("rate", dist.Gamma(1.0)))
    with pytest.raises(ValueError, match="without a largest value"):
        Energy.from_numpyro(lambda: numpyro.sample("count", dist.Poisson(1.0)))
    with pytest.raises(ValueError, match="no discrete site"):
        Energy.from_numpyro(lambda y: numpyro.sample("y", dist.Normal(0, 1), obs=y), 1.0)


def test_evidence_that_cannot_be_has_no_conditionals_and_the_possible_is_learned():
    """Two variables must agree; evidence against that is refused, and queries of it are flagged. Independent ones would
    be 0.69 off."""
    import dataclasses

    energy = Energy(lambda x: jnp.where(x[0] == x[1], 0.0, -jnp.inf), (2, 2, 2), impossible=-40.0)
    fitted = dataclasses.replace(SMALL, architecture=Dense(32, 1), num_steps=600).fit(
        energy, key=jr.key(0), progress=False
    )
    with pytest.raises(ValueError, match="probability zero"):
        fitted.log_conditional([[0, 1, 1]], of=[False, False, True], given=[True, True, False])
    assert fitted.is_outside([[0, 1, -1], [0, 0, -1]]).tolist() == [True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(fitted.log_conditional([[0, 0, 1]], of="x1", given="x0")[0]) == pytest.approx(0.0, abs=0.25)
    assert np.isneginf(fitted.log_marginal([[0, 1, 1]], check=False))[0]
