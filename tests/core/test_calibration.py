"""Calibration diagnostics, tried on a Gaussian model whose posterior is known: right where it is right, and not else.

All runs have fixed keys. Faults are so large that they are found with near certainty: their p-values are below 1e-6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from posterax import Draws, Estimator, PosteraxWarning, SamplingError, get
from posterax.testing import SBC, Coverage, JointModel, coverage, sbc
from posterax.testing._answers import place
from posterax.testing._problems import _MATRIX, Gaussian
from posterax.testing._statistics import are_uniform
from scipy import stats

JOINT = Gaussian()
COVARIANCE = np.linalg.inv(np.eye(2) + _MATRIX.T @ _MATRIX / 0.36)
SD = np.sqrt(np.diag(COVARIANCE))
ONLY_SIMULATED = JointModel(JOINT.prior, JOINT.simulator)


RUN = {"num_simulations": 400, "num_draws": 99}  # the same everywhere: compilation is what takes time here


class Exact(Estimator):
    """The posterior, or something near it."""

    scale: Array = eqx.field(default=1.0, converter=jnp.asarray)
    shift: Array = eqx.field(default=0.0, converter=jnp.asarray)
    sign: Array = eqx.field(default=1.0, converter=jnp.asarray)

    def fit(self, data, *, key):
        return self

    def infer(self, observed=None, *, prior=None, key=None):
        mean = self.sign * observed @ _MATRIX @ COVARIANCE / 0.36 + self.shift * SD
        return dist.MultivariateNormal(mean, self.scale**2 * COVARIANCE)


def prior_alone(observed, key):
    return dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))


def misfit(parameter, observed):
    return {"misfit": jnp.sum((observed - _MATRIX @ parameter["theta"]) ** 2)}


# With a correct method each p-value is below 0.01 in at most 1 run of 100; these keys were not chosen.
def test_the_exact_posterior_passes_both():
    ranks, regions = sbc(Exact(), JOINT, **RUN, key=jr.key(0)), coverage(Exact(), JOINT, **RUN, key=jr.key(0))
    assert isinstance(ranks, SBC)
    assert isinstance(regions, Coverage)
    assert ranks.p_value > 0.01
    assert regions.p_value > 0.01
    assert list(ranks.ranks) == ["log-likelihood", "theta[0]", "theta[1]"]
    for name, rank in ranks.ranks.items():
        assert rank.shape == (400,)
        assert rank.min() >= 0
        assert rank.max() <= ranks.num_draws == 99
        assert np.array_equal(rank, np.floor(ranks.u[name] * 100))
    assert (ranks.summary()["finding"] == "nothing found").all()
    assert "Nothing found in 400 simulations" in ranks.words
    assert "Nothing found in 400 simulations" in regions.words
    table = regions.summary()
    assert table.index.tolist() == [0.5, 0.8, 0.9, 0.95]
    assert (np.abs(table["hpd"] - table.index) < 4 * table["standard_error"]).all()
    assert regions.hpd is not None
    assert np.isclose(regions.hpd[49], table.loc[0.5, "hpd"])


FAULTS = {
    "narrow": (Exact(scale=0.7), "theta[0]", "posterior too narrow", "hold the truth too seldom"),
    "wide": (Exact(scale=1.4), "theta[1]", "posterior too wide", "hold the truth too often"),
    "high": (Exact(shift=0.4), "theta[0]", "draws lie too high", None),
    "low": (Exact(shift=-0.4), "theta[1]", "draws lie too low", None),
    "sign": (Exact(sign=-1.0), "theta[0]", "posterior too narrow", "hold the truth too seldom"),
    "prior": (prior_alone, "log-likelihood", "draws lie too low", "draws too far from the points"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_and_named(fault):
    method, quantity, words, regions = FAULTS[fault]
    found = sbc(method, JOINT, **RUN, key=jr.key(1))
    assert found.p_value < 1e-6
    assert words in found.summary().loc[quantity, "finding"]
    assert "p = " in found.words
    if regions is not None:
        covered = coverage(method, JOINT, **RUN, key=jr.key(1))
        assert covered.p_value < 1e-6
        assert regions in covered.words


def test_the_prior_passes_on_its_parameters_alone():
    found = sbc(prior_alone, ONLY_SIMULATED, **RUN, key=jr.key(2))
    assert list(found.u) == ["theta[0]", "theta[1]"]
    assert found.p_value > 0.01
    seen = sbc(prior_alone, ONLY_SIMULATED, quantities=misfit, **RUN, key=jr.key(2))
    assert seen.summary().index[0] == "misfit"
    assert seen.p_value < 1e-6


def test_p_values_keep_their_level():
    # 2,000 independent repetitions of 20 simulations. Each single test must have p < 0.01 in 1 of 100: its count is
    # outside its binomial limits once in 500,000, all fifteen once in 30,000. Bonferroni's count may only be lower.
    repetitions, n = 2_000, 20
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], repetitions, 0.01)
    for run in (sbc, coverage):
        u = run(Exact(), JOINT, num_simulations=repetitions * n, num_draws=9, key=jr.key(3)).u
        columns = np.stack(list(u.values()), axis=1).reshape(repetitions, n, -1)
        k = columns.shape[-1]
        tests = are_uniform([""] * (repetitions * k), columns.transpose(1, 0, 2).reshape(n, -1))
        p_values = tests.p_values.reshape(3, repetitions, k)
        alone = np.sum(p_values < 0.01, axis=1)
        assert (alone >= low).all()
        assert (alone <= high).all()
        assert np.sum(p_values.min(axis=(0, 2)) * 3 * k < 0.01) <= high


def test_ties_are_broken_at_random():
    # Ranks of a constant among constants are uniform: Kolmogorov and Smirnov's p is below 1e-3 in 1 of 1,000.
    found = sbc(Exact(), JOINT, quantities=lambda p, y: {"constant": jnp.ones(())}, **RUN, key=jr.key(4))
    assert stats.kstest(found.u["constant"], "uniform").pvalue > 1e-3


def test_the_place_of_the_truth_is_its_rank_or_its_weight():
    less = np.array([[[1.0], [1.0], [0.0], [0.0]]])
    zero = np.zeros_like(less)
    assert np.isclose(place(less, zero, None, np.array([[0.5]])).item(), 2.5 / 5)
    assert np.isclose(place(zero, less, None, np.array([[0.5]])).item(), 1.5 / 5)
    log_weights = np.log([[0.5, 0.25, 0.125, 0.125]]) + 7
    ghost = 0.25 + 0.0625 + 2 / 64
    assert np.isclose(place(less, zero, log_weights, np.array([[0.5]])).item(), (0.75 + 0.5 * ghost) / (1 + ghost))


@eqx.filter_jit
def propose(exact, observed, key):
    posterior = exact.infer(observed)
    proposal = dist.MultivariateNormal(posterior.loc + 0.5 * SD, 2 * COVARIANCE)
    theta = proposal.sample(key, (1, 400))
    return theta, posterior.log_prob(theta) - proposal.log_prob(theta)


def importance(weighted, scale=1.0, power=1.0):
    def method(observed, key):
        theta, log_weights = (np.asarray(x) for x in propose(Exact(scale=scale), observed, key))
        return Draws({"theta": theta}, {}, log_weights=power * log_weights if weighted else None)

    return method


def test_weighted_draws_are_ranked_by_their_weights():
    right = sbc(importance(True), JOINT, num_simulations=200, key=jr.key(5))
    assert right.p_value > 0.01
    assert sbc(importance(True, scale=0.7), JOINT, num_simulations=200, key=jr.key(5)).p_value < 1e-6
    assert sbc(importance(False), JOINT, num_simulations=200, key=jr.key(5)).p_value < 1e-6
    regions = coverage(importance(True), JOINT, num_simulations=200, key=jr.key(5))
    assert regions.p_value > 0.01
    assert regions.hpd is None
    assert "no density" in regions.no_hpd


def test_few_weights_are_warned_of():
    with pytest.warns(PosteraxWarning, match=r"runs of sbc the draws are worth too few independent ones"):
        sbc(importance(True, power=100.0), JOINT, num_simulations=20, key=jr.key(6))


def test_a_sampler_is_run_on_each_data_set():
    found = sbc(get("nuts")(num_warmup=100), JOINT, num_simulations=64, num_draws=49, key=jr.key(7))
    assert found.p_value > 0.01
    assert found.num_draws == 49
    assert all(u.shape == (64,) for u in found.u.values())


def test_chains_that_stand_still_are_warned_of_and_fail():
    def stuck(observed, key):
        start = dist.Normal(0, 1).expand((2,)).to_event(1).sample(key)
        return Draws({"theta": np.broadcast_to(np.asarray(start), (4, 50, 2)).copy()}, {})

    with pytest.warns(PosteraxWarning, match="worth too few"):
        found = sbc(stuck, JOINT, num_simulations=200, num_draws=99, key=jr.key(8))
    assert found.p_value < 1e-6


def test_what_python_has_a_hand_in_is_run_one_by_one_with_the_same_numbers():
    calls = []

    def traced(observed, key):
        calls.append(1)
        return Exact().infer(observed)

    def untraced(observed, key):
        calls.append(1)
        return Exact().infer(jnp.asarray(np.asarray(observed)))

    together = sbc(traced, JOINT, num_simulations=50, key=jr.key(9))
    assert len(calls) == 2  # once as it is, once traced
    calls.clear()
    alone = sbc(untraced, JOINT, num_simulations=50, key=jr.key(9))
    assert len(calls) == 51  # once more where it failed in vmap
    for name, u in together.u.items():
        assert np.allclose(u, alone.u[name], atol=0.03)


def test_random_numbers_of_numpys_are_not_frozen():
    rng = np.random.default_rng(0)

    def impure(observed, key):
        noise = rng.multivariate_normal(np.zeros(2), COVARIANCE, 99)
        return {"theta": Exact().infer(observed).loc + jnp.asarray(noise)}

    assert sbc(impure, JOINT, num_simulations=200, key=jr.key(9)).p_value > 0.01


def test_a_simulation_does_not_depend_on_how_many_there_are():
    few, many = (sbc(Exact(), JOINT, num_simulations=n, key=jr.key(10)) for n in (7, 400))
    for name, rank in few.ranks.items():
        assert np.array_equal(rank, many.ranks[name][:7])


def test_flattened_draws_and_draws_by_name_are_the_same():
    def prior(key):
        return {"b": jr.normal(key, (2,)), "a": 3.0 + 0.0 * jr.normal(key)}

    joint = JointModel(prior, lambda p, key: p["b"] + p["a"])

    def flat(observed, key):
        return dist.Normal(jnp.array([3.0, 0.0, 0.0]), jnp.array([1e-3, 1.0, 1.0])).to_event(1)

    found = sbc(flat, joint, num_simulations=100, key=jr.key(11))
    assert list(found.u) == ["a", "b[0]", "b[1]"]
    assert stats.kstest(found.u["b[0]"], "uniform").pvalue > 1e-3
    assert abs(found.u["a"].mean() - 0.5) < 0.1


def test_what_does_not_fit_is_refused_in_words():
    run = {"num_simulations": 4, "key": jr.key(0)}
    with pytest.raises(TypeError, match=r"`method` must be a Sampler.*got int"):
        sbc(3, JOINT, **run)
    with pytest.raises(TypeError, match="the class Exact itself"):
        sbc(Exact, JOINT, **run)
    with pytest.raises(TypeError, match="`joint` must be a JointModel; got Target"):
        sbc(Exact(), JOINT.target(jnp.zeros(3)), **run)
    with pytest.raises(ValueError, match="`joint` has no `posterior`, and NUTS needs a density"):
        coverage(get("nuts")(), ONLY_SIMULATED, **run)
    with pytest.raises(ValueError, match="`num_draws` must be an integer of at least 1; got 0"):
        sbc(Exact(), JOINT, num_draws=0, **run)
    with pytest.raises(ValueError, match=r"do not match the parameter, \{'theta': \(2,\)\}.*'beta': \(99, 2\)"):
        sbc(lambda y, key: {"beta": jnp.zeros((99, 2))}, JOINT, **run)
    with pytest.raises(ValueError, match=r"got an array of shape \(99, 3\)"):
        sbc(lambda y, key: jnp.zeros((99, 3)), JOINT, **run)
    with pytest.raises(ValueError, match="returned 50 draws; `num_draws` asks for 99"):
        sbc(lambda y, key: {"theta": jnp.zeros((50, 2))}, JOINT, **run)
    with pytest.raises(ValueError, match=r"`log_prob`.*got \(99, 2\).*to_event"):
        sbc(lambda y, key: dist.Normal(jnp.zeros(2), 1.0), JOINT, **run)
    with pytest.raises(TypeError, match=r"must return a distribution.*got str"):
        sbc(lambda y, key: "posterior", JOINT, **run)
    with pytest.raises(TypeError, match="`key` of sbc must be a JAX random key"):
        sbc(Exact(), JOINT, key=0)


def test_draws_that_are_not_finite_name_their_simulation():
    def broken(observed, key):
        far = jnp.where(observed[0] > 1.0, jnp.nan, 0.0)
        return {"theta": Exact().infer(observed).sample(key, (99,)) + far}

    _, observed = jax.vmap(lambda key: JOINT.simulate(key=key))(jr.split(jr.key(12), 100))
    assert (observed[:, 0] > 1.0).any()
    with pytest.raises(
        SamplingError, match=r"Simulation \d+: the method's draws of the parameter 'theta' are not finite"
    ):
        sbc(broken, JOINT, num_simulations=100, key=jr.key(12))
    with pytest.raises(SamplingError, match="`quantities` gave NaN for \\['odd'\\]"):
        sbc(Exact(), JOINT, num_simulations=9, quantities=lambda p, y: {"odd": jnp.log(p["theta"][0])}, key=jr.key(0))


def test_plots_and_trees(tmp_path):
    found = sbc(Exact(scale=0.7), JOINT, **RUN, key=jr.key(13))
    tree = found.to_datatree()
    assert tree["prior_sbc"].sizes["draw"] == 400
    assert np.array_equal(tree["prior_sbc"]["theta[0]"].values[0], found.u["theta[0]"])
    found.plot(tmp_path / "sbc.png")
    with pytest.raises(ValueError, match=r"`names` has \['mu'\]"):
        found.plot(tmp_path / "no.png", names=["mu"])
    regions = coverage(Exact(scale=0.7), JOINT, **RUN, key=jr.key(13))
    regions.plot(tmp_path / "coverage.png")
    for name in ("sbc", "coverage"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    assert not (tmp_path / "no.png").exists()


def test_the_band_holds_the_whole_curve_as_often_as_it_says():
    # 1,000 curves; a correct 95 % band holds between 920 and 975 of them but for 1 run in 10,000.
    empty = np.zeros(99)
    result = Coverage(
        np.arange(1, 100) / 100, None, empty, {"tarp": np.zeros(300)}, "", are_uniform([], np.zeros((1, 0)))
    )
    lower, upper = result.band()
    u = np.random.default_rng(1).uniform(size=(1_000, 300))
    curves = (u[:, :, None] <= result.levels).mean(axis=1)
    inside = ((curves >= lower - 1e-9) & (curves <= upper + 1e-9)).all(axis=1).sum()
    assert 920 <= inside <= 975
