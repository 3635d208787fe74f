import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumpyroNUTS
from numpyro.infer.hmc import hmc
from posterax import Draws, Move, Pipeline, Plan, PosteraxWarning, SamplingError, Target, _chains, sample, warm_up
from posterax._arviz import mcse
from posterax_models import ConjugateNormal, NealsFunnel, eight_schools
from posterax_models._eight_schools import eight_schools_model
from posterax_numpyro import HMC, NUTS, _nuts
from scipy.stats import chi2, kstest, norm

KEY = jr.key(20261121)
SAMPLER = NUTS(num_warmup=200, dense_mass=True)
RUN = {"num_draws": 200, "num_chains": 200}

# z-tests over 200 chains: chains are independent, whatever the autocorrelation within. A figure of a correct program is
# more than 5 standard errors away once in 800,000 keys (Student's t), and the keys are fixed. A fault is caught with
# 99 % when it is 7.4 standard errors large: with 200 nearly independent draws a chain, 3.7 % of an sd in a mean, 5.2 %
# in a variance.


@pytest.fixture(scope="module")
def draws(correlated):
    return sample(SAMPLER, correlated.target, key=KEY, **RUN)


# Exactness


def assert_correlated(draws, correlated, z):
    position = correlated.position(draws.values)
    products, cov = correlated.second(position)
    assert np.abs(z(position.mean(1), correlated.mean)).max() < 5
    assert np.abs(z(products.mean(1), cov)).max() < 5


def test_nuts_with_a_dense_mass_matrix_has_the_moments_of_a_correlated_gaussian(draws, correlated, z):
    assert_correlated(draws, correlated, z)


@pytest.mark.slow
def test_hmc_with_a_dense_mass_matrix_has_the_moments_of_a_correlated_gaussian(correlated, z):
    sampler = HMC(num_warmup=200, dense_mass=True, trajectory_length=2.0)
    assert_correlated(sample(sampler, correlated.target, key=KEY, **RUN), correlated, z)


@pytest.mark.parametrize("kind", [pytest.param(NUTS, marks=pytest.mark.slow), HMC])
def test_a_conjugate_posterior_has_its_mean_and_variance(kind, z):
    problem = ConjugateNormal(np.array([1.2, 0.3, 2.2, 0.8]), noise_sd=1.0, prior_mean=0.0, prior_sd=2.0)
    # A quarter of a period: after half of one, harmonic motion only changes the sign of what is left.
    settings = {"trajectory_length": np.pi / 2} if kind is HMC else {}
    draws = sample(kind(num_warmup=200, **settings), problem.target, key=KEY, **RUN)
    mean, sd = float(problem.mean["mu"]), float(problem.sd["mu"])
    assert abs(z(draws["mu"].mean(1), mean)) < 5
    assert abs(z(((draws["mu"] - mean) ** 2).mean(1), sd**2)) < 5


FOR_FUNNELS = NUTS(num_warmup=100, target_accept=0.9, max_tree_depth=6)


# A trajectory that diverges is cut short, and the transition still keeps the target: only speed is lost.
@pytest.mark.filterwarnings("ignore:.*transitions diverged:posterax.PosteraxWarning")
def test_a_gentle_funnel_has_its_marginals(z):
    problem = NealsFunnel(3, v_sd=1.0)
    draws = sample(FOR_FUNNELS, problem.target, key=KEY, **RUN)
    # Probability integral transforms are uniform: mean 1/2 and mean square 1/3.
    for transformed in (problem.v_cdf(draws["v"]), problem.x_cdf(draws["x"])):
        assert np.abs(z(transformed.mean(1), 1 / 2)).max() < 5
        assert np.abs(z((transformed**2).mean(1), 1 / 3)).max() < 5


# Invariance: from exact draws, nothing may change

NUM_EXACT = 20_000
# A poor mass matrix and long steps, so that the acceptance rule has work to do.
MATRIX = jnp.array([[1.0, 0.3, -0.2], [0.3, 0.7, 0.1], [-0.2, 0.1, 0.6]])
FROZEN = {
    "nuts": NUTS(num_warmup=0, step_size=0.35, dense_mass=True, inverse_mass_matrix=MATRIX),
    "hmc": HMC(num_warmup=0, step_size=0.35, dense_mass=True, inverse_mass_matrix=MATRIX, trajectory_length=2.0),
}


def moved(sampler, correlated, target):
    """Exact draws of `correlated`, moved three steps by a sampler of `target`."""
    exact = {name: value[None] for name, value in correlated.exact(NUM_EXACT, seed=3).items()}
    return exact, Pipeline((Move(sampler, target, steps=3),)).run(Draws(exact, {}), key=KEY)


def largest_score(draws, correlated, z):
    """The largest of 3 + 6 z-scores of means and second moments."""
    position = correlated.position(draws.values)[0]
    products, cov = correlated.second(position)
    return max(np.abs(z(position, correlated.mean)).max(), np.abs(z(products, cov)).max())


def least_p_value(draws, correlated):
    """Kolmogorov and Smirnov's smallest p-value over three coordinates and the squared radius."""
    standard = np.linalg.solve(
        np.linalg.cholesky(correlated.cov), (correlated.position(draws.values)[0] - correlated.mean).T
    )
    p_values = [kstest(coordinate, norm.cdf).pvalue for coordinate in standard]
    return min(*p_values, kstest((standard**2).sum(0), chi2(3).cdf).pvalue)


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_sampler_keeps_the_target_exactly(name, correlated, make_correlated, z):
    # 20,000 independent draws: 9 z-scores at 5 and 4 p-values at 1e-6, false alarms 1e-5 in all. Caught with 99 %:
    # means 0.05 sd off, variances 7 % off, a distribution function 0.03 off.
    exact, draws = moved(FROZEN[name], correlated, correlated.target)
    rate = draws.stats["acceptance_rate"].mean()
    assert 0.5 < rate < 0.95, rate
    if name == "hmc":
        assert np.all(draws.stats["n_steps"] == 6), "2.0 / 0.35, rounded up"
    assert np.mean(draws["scale"] != exact["scale"]) > 0.9, "draws must have moved for the test to mean anything"
    assert largest_score(draws, correlated, z) < 5
    assert least_p_value(draws, correlated) > 1e-6
    # The same test must fail for a target that is slightly wrong: tempered by 0.9, variances are 11 % larger.
    _, wrong = moved(FROZEN[name], correlated, make_correlated(temperature=0.9).target)
    assert largest_score(wrong, correlated, z) > 5
    assert least_p_value(wrong, correlated) < 1e-6


# Warm-up, freezing, keys


def test_the_step_size_is_fixed_after_warm_up_and_each_chain_has_its_own(draws):
    step_size = draws.stats["step_size"]
    assert np.all(step_size == step_size[:, :1])
    assert len(np.unique(step_size[:, 0])) > 150
    # Dual averaging aims at a mean acceptance of 0.8; short warm-ups miss it by a little.
    assert 0.75 < draws.stats["acceptance_rate"].mean() < 0.92


@pytest.fixture(scope="module")
def states(correlated):
    """States of all chains after the warm-up that `draws` had."""
    return _chains.warm(
        SAMPLER, correlated.target, num_chains=RUN["num_chains"], key=KEY, init=None, plan=Plan(), progress=False
    )


def test_states_hold_no_key(states):
    assert states.rng_key is None
    assert states.adapt_state.rng_key is None
    assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(states))
    # Nor one in disguise: NumPyro's other fields are floats and counters.
    assert not any(leaf.dtype == jnp.uint32 for leaf in jax.tree.leaves(states))


def test_freezing_pools_step_sizes_and_mass_matrices(draws, states, correlated):
    kernel = warm_up(SAMPLER, correlated.target, num_chains=RUN["num_chains"], key=KEY)
    assert kernel.num_warmup == 0
    assert (kernel.dense_mass, kernel.target_accept) == (True, 0.8)
    np.testing.assert_allclose(kernel.step_size, np.exp(np.log(draws.stats["step_size"][:, 0]).mean()), rtol=1e-5)
    np.testing.assert_allclose(kernel.inverse_mass_matrix, states.adapt_state.inverse_mass_matrix.mean(0), rtol=1e-5)
    # Each chain's estimate is from some 50 correlated draws, shrunk by 5 more; the mean of 200 such is still near.
    np.testing.assert_allclose(kernel.inverse_mass_matrix, correlated.cov, rtol=0.25, atol=0.05)
    assert kernel.frozen(states) is kernel


def test_the_same_key_gives_the_same_bits_and_another_key_other_draws(draws, correlated):
    again = sample(SAMPLER, correlated.target, key=KEY, **RUN)
    for name in ("scale", "x"):
        assert np.array_equal(draws[name], again[name])
    for name, stat in draws.stats.items():
        assert np.array_equal(stat, again.stats[name]), name
    other = sample(SAMPLER, correlated.target, key=jr.key(0), **RUN)
    assert not np.any(np.all(other["x"] == draws["x"], axis=-1))


def test_new_data_compile_nothing(make_correlated, compilations, z):
    # Compiled here, not in a fixture: JAX forgets the oldest of the small programs that other tests have crowded out.
    sample(SAMPLER, make_correlated(mean=(1.0, 0.0, 2.0)).target, key=jr.key(4), **RUN)
    compilations.clear()
    moved = make_correlated(mean=(0.0, 3.0, -1.0))
    fresh = sample(SAMPLER, moved.target, key=jr.key(5), **RUN)
    assert compilations == []
    assert_correlated(fresh, moved, z)
    jax.jit(lambda x: x + 1)(jnp.zeros(7))
    assert compilations, "the counter counts"


# Against NumPyro


@pytest.mark.parametrize("algo", [pytest.param("NUTS", marks=pytest.mark.slow), "HMC"])
def test_a_chain_is_numpyros_own_given_the_same_keys(algo, correlated):
    target, num_warmup, keys = correlated.target, 60, jr.split(KEY, 80)
    start = {"scale": jnp.array(0.3), "x": jnp.array([-0.5, 1.0])}
    sampler = {"NUTS": NUTS, "HMC": HMC}[algo](num_warmup=num_warmup, dense_mass=True)

    @eqx.filter_jit
    def ours(target, start):
        def body(state, key):
            state, info = sampler.step(target, state, key=key)
            statistics = (info.step_size, info.n_steps, info.energy, info.lp, info.acceptance_rate, info.diverging)
            return state, (sampler.position(state), statistics)

        return jax.lax.scan(body, sampler.init(target, start, key=keys[0]), keys)[1]

    @eqx.filter_jit
    def theirs(target, start):
        init, kernel = hmc(potential_fn=lambda u: -target.log_density(u), algo=algo)
        first = init(start, num_warmup=num_warmup, dense_mass=True, rng_key=keys[0])

        def body(state, key):
            state = kernel(state._replace(rng_key=key))
            statistics = (state.adapt_state.step_size, state.num_steps, state.energy, -state.potential_energy)
            return state, (state.z, (*statistics, state.accept_prob, state.diverging))

        return jax.lax.scan(body, first, keys)[1]

    # Two programs round differently, and trajectories amplify it: bits need not agree, numbers do.
    for a, b in zip(jax.tree.leaves(ours(target, start)), jax.tree.leaves(theirs(target, start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_eight_schools_agree_with_numpyros_mcmc():
    problem = eight_schools()
    draws = sample(NUTS(num_warmup=500, target_accept=0.95), problem.target, num_draws=2000, num_chains=8, key=KEY)
    mcmc = MCMC(
        NumpyroNUTS(eight_schools_model, target_accept_prob=0.95), num_warmup=500, num_samples=2000, num_chains=8,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(KEY, problem.observed.astype(np.float32), problem.sigma.astype(np.float32))
    theirs = Draws({name: np.asarray(x) for name, x in mcmc.get_samples(group_by_chain=True).items()}, {})
    # 18 entries, two figures each, at 4.5 combined standard errors: false alarms 2.4e-4.
    for figure, ours, other in (("mean", draws.mean(), theirs.mean()), ("sd", draws.sd(), theirs.sd())):
        errors, other_errors = mcse(draws)[figure], mcse(theirs)[figure]
        for name in ("mu", "tau", "eta", "theta"):
            assert np.all(np.abs(ours[name] - other[name]) < 4.5 * np.hypot(errors[name], other_errors[name])), name


# Statistics


def test_statistics_have_the_names_that_arviz_knows(draws):
    names = {"lp", "energy", "acceptance_rate", "diverging", "n_steps", "tree_depth", "step_size"}
    assert set(draws.stats) == names
    assert set(draws.to_datatree()["sample_stats"].data_vars) == names
    assert all(stat.shape == (200, 200) for stat in draws.stats.values())
    assert draws.stats["diverging"].dtype == bool


def test_lp_is_the_targets_log_density_at_the_draws(draws, correlated):
    target = correlated.target
    values = {name: jnp.asarray(draws[name]) for name in ("scale", "x")}
    exact = jax.vmap(jax.vmap(lambda v: target.log_density(target.unconstrain(v))))(values)
    np.testing.assert_allclose(draws.stats["lp"], exact, rtol=1e-4, atol=1e-4)
    # The log density of the values themselves is without the Jacobian of the logarithm.
    np.testing.assert_allclose(draws.log_density, draws.stats["lp"] - np.log(draws["scale"]), rtol=1e-4, atol=1e-4)
    # And both are right: in unconstrained space the target is a Gaussian.
    centred = correlated.position(draws.values) - correlated.mean
    squared = np.einsum("cdi,ij,cdj->cd", centred, correlated.precision, centred)
    np.testing.assert_allclose(draws.stats["lp"], -0.5 * squared, rtol=1e-3, atol=1e-3)


def test_energy_is_lp_and_a_kinetic_energy(draws, z):
    kinetic = draws.stats["energy"] + draws.stats["lp"]
    assert kinetic.min() > -1e-4
    # Half a chi-square variable of three degrees of freedom: mean 3/2.
    assert abs(z(kinetic.mean(1), 1.5)) < 5


def test_tree_depth_counts_the_doublings(draws):
    n_steps, depth = draws.stats["n_steps"], draws.stats["tree_depth"]
    assert len(np.unique(depth)) >= 2
    assert np.all((2 ** (depth - 1) <= n_steps) & (n_steps < 2**depth))
    many = jnp.arange(1, 2**20 + 2)
    assert np.array_equal(jax.jit(_nuts._bit_length)(many), [int(n).bit_length() for n in many.tolist()])


# Warnings and errors


@pytest.mark.filterwarnings("ignore:.*transitions diverged:posterax.PosteraxWarning")
def test_divergences_are_warned_of_in_words():
    with pytest.warns(PosteraxWarning, match=r"\d+ of 40000 transitions diverged: .* Reparametrise .*`target_accept`"):
        draws = sample(FOR_FUNNELS, NealsFunnel(3, v_sd=3.0).target, key=KEY, **RUN)
    assert draws.stats["diverging"].any()
    assert draws.stats["tree_depth"].max() == FOR_FUNNELS.max_tree_depth


def cut_normal(x, limit, beyond):
    return jnp.where(x["x"] > limit, beyond, -0.5 * x["x"] ** 2)


def cut_target(beyond):
    return Target(cut_normal, 1.5, np.array(beyond), like={"x": 0.0})


def test_a_density_that_is_nan_beyond_a_point_is_told_in_words_and_the_draws_are_kept():
    with pytest.raises(SamplingError, match=r"The log density is NaN at x=\d.*NUTS stops short of such points") as e:
        sample(NUTS(num_warmup=100), cut_target(np.nan), key=KEY, **RUN)
    assert e.value.draws.shape == (200, 200)
    assert e.value.draws["x"].max() <= 1.5


def test_a_density_that_is_zero_beyond_a_point_is_sampled_exactly(z):
    # A trajectory that meets the wall counts as divergent, which is said; the draws are right all the same.
    with pytest.warns(PosteraxWarning, match="transitions diverged"):
        draws = sample(NUTS(num_warmup=100), cut_target(-np.inf), key=KEY, **RUN)
    assert draws["x"].max() <= 1.5
    transformed = norm.cdf(draws["x"]) / norm.cdf(1.5)
    assert abs(z(transformed.mean(1), 1 / 2)) < 5
    assert abs(z((transformed**2).mean(1), 1 / 3)) < 5


@pytest.mark.parametrize("kind", [NUTS, HMC])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_warmup": -1}, "`num_warmup` must be an integer, 0 or more; got -1"),
        ({"num_warmup": 10.0}, "`num_warmup` must be an integer, 0 or more; got 10.0"),
        ({"target_accept": 0.0}, "`target_accept` must lie between 0 and 1; got 0.0"),
        ({"target_accept": 1.0}, "`target_accept` must lie between 0 and 1; got 1.0"),
        ({"step_size": 0.0}, "`step_size` must be positive and finite; got 0.0"),
        ({"step_size": -1}, "`step_size` must be positive and finite; got -1"),
        ({"step_size": jnp.array(-0.1)}, "`step_size` must be positive and finite"),
        ({"step_size": float("nan")}, "`step_size` must be positive and finite; got nan"),
        ({"inverse_mass_matrix": jnp.eye(3)}, r"must hold variances \(dim,\) as dense_mass=False; got 2 dimensions"),
        ({"inverse_mass_matrix": jnp.array([1.0, -1.0, 1.0])}, "must hold positive and finite variances"),
        ({"inverse_mass_matrix": jnp.ones(3), "dense_mass": True}, r"must hold a covariance \(dim, dim\).*got 1 dim"),
        ({"inverse_mass_matrix": -jnp.eye(3), "dense_mass": True}, "must hold a symmetric positive definite matrix"),
        (
            {"inverse_mass_matrix": jnp.ones((3, 3)).at[0, 1].set(0), "dense_mass": True},
            "must hold a symmetric positive",
        ),
        ({"inverse_mass_matrix": jnp.ones((2, 3)), "dense_mass": True}, "must hold a symmetric positive definite"),
        ({"inverse_mass_matrix": jnp.array([1.0, jnp.nan, 1.0])}, "must hold positive and finite variances"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**settings)


@pytest.mark.parametrize("depth", [0, 21, 2.0])
def test_tree_depths_out_of_range_are_refused(depth):
    with pytest.raises(ValueError, match=f"`max_tree_depth` must be an integer from 1 to 20; got {depth}"):
        NUTS(max_tree_depth=depth)


@pytest.mark.parametrize("length", [0.0, -1.0, np.inf])
def test_trajectory_lengths_out_of_range_are_refused(length):
    with pytest.raises(ValueError, match=f"`trajectory_length` must be positive and finite; got {length}"):
        HMC(trajectory_length=length)


@pytest.mark.parametrize("kind", [NUTS, HMC])
@pytest.mark.parametrize("dense", [False, True])
def test_a_mass_matrix_of_the_wrong_length_is_refused_with_both_shapes(kind, dense, correlated):
    matrix, wanted, came = (jnp.eye(4), r"\(3, 3\)", r"\(4, 4\)") if dense else (jnp.ones(2), r"\(3,\)", r"\(2,\)")
    sampler = kind(inverse_mass_matrix=matrix, dense_mass=dense)
    with pytest.raises(ValueError, match=f"`inverse_mass_matrix` must have shape {wanted} for this target; got {came}"):
        sample(sampler, correlated.target, num_draws=2, key=KEY)


# Precision


def test_float64_runs_keep_their_digits(correlated):
    double, run = Plan(precision=64), {"num_draws": 50, "num_chains": 4}
    sampler = HMC(num_warmup=50, trajectory_length=2.0)
    draws = sample(sampler, correlated.target, plan=double, key=KEY, **run)
    assert draws["x"].dtype == draws.stats["lp"].dtype == draws.stats["step_size"].dtype == np.float64
    centred = correlated.position(draws.values) - correlated.mean
    exact = -0.5 * np.einsum("cdi,ij,cdj->cd", centred, correlated.precision, centred)
    np.testing.assert_allclose(draws.stats["lp"], exact, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NUTS, HMC])
def test_a_kernel_warmed_in_one_precision_serves_in_the_other(kind, correlated):
    run = {"num_draws": 50, "num_chains": 4}
    kernels = {b: warm_up(kind(num_warmup=100), correlated.target, plan=Plan(precision=b), key=KEY) for b in (32, 64)}
    for made, kernel in kernels.items():
        assert kernel.inverse_mass_matrix.dtype == kernel.step_size.dtype == np.dtype(f"float{made}")
        for used in (32, 64):
            draws = sample(kernel, correlated.target, plan=Plan(precision=used), key=KEY, **run)
            assert draws["x"].dtype == draws.stats["step_size"].dtype == np.dtype(f"float{used}")
            assert draws.stats["acceptance_rate"].mean() > 0.6
