import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.infer.autoguide import (
    AutoBNAFNormal,
    AutoDAIS,
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)
from posterax import Draw, Infer, Plan, Reweight, Target, TargetError, TrainingError, load, save
from posterax_models import ConjugateNormal, nile
from posterax_numpyro import NUTS, SVI
from scipy.stats import norm

KEY = jr.key(20261122)


@pytest.fixture(scope="module")
def fitted(correlated):
    return SVI(num_steps=2000).fit(correlated.target, key=KEY)


# Exactness: on Gaussian targets, Gaussian guides have known ends


def test_a_full_gaussian_guide_becomes_the_gaussian_target(fitted, correlated):
    base = fitted.infer().base
    sd = np.sqrt(np.diag(correlated.cov))
    # What is left as the learning rate falls to zero is the noise of 8 draws a step. Ten other keys are a slow test.
    np.testing.assert_array_less(np.abs(base.mean - correlated.mean) / sd, 0.05)
    np.testing.assert_array_less(np.abs(base.covariance_matrix - correlated.cov) / np.outer(sd, sd), 0.08)


def test_the_final_loss_is_minus_the_log_evidence(fitted, correlated):
    # KL(q || p) is zero at the end, so the bound is tight, and its estimates hardly vary.
    losses = fitted.report.losses
    assert losses.shape == (2000,)
    assert abs(losses[-100:].mean() + correlated.log_evidence) < 0.01
    assert losses[-100:].std() < 0.05
    assert losses[0] > losses[-1] + 1


def test_a_diagonal_gaussian_guide_has_the_precisions_of_the_target(correlated, z):
    fitted = SVI(AutoDiagonalNormal, num_steps=2000).fit(correlated.target, key=KEY)
    values = fitted.infer().sample(jr.key(1), (20_000,))
    position = correlated.position(values)
    # Mean-field theory: variance 1 / precision_ii, far below the marginal one. 20,000 draws know a variance to 1 %.
    variances = 1 / np.diag(correlated.precision)
    assert np.all(variances < 0.6 * np.diag(correlated.cov))
    np.testing.assert_allclose(position.var(axis=0), variances, rtol=0.1)
    np.testing.assert_allclose(position.mean(axis=0), correlated.mean, atol=0.1)
    assert np.abs(np.corrcoef(position.T) - np.eye(3)).max() < 0.03
    # One density of all values together, with the Jacobian of the logarithm.
    by_coordinate = norm.logpdf(position, fitted.infer().base.mean, np.sqrt(fitted.infer().base.variance))
    np.testing.assert_allclose(fitted.infer().log_prob(values), by_coordinate.sum(axis=-1) - position[:, 0], atol=1e-3)
    # Its bound is short by KL = (sum log precision_ii - log det precision) / 2.
    # The last 500 losses are nearly independent estimates of it at nearly the same parameters: 5 standard errors.
    gap = 0.5 * (np.log(np.diag(correlated.precision)).sum() - np.linalg.slogdet(correlated.precision)[1])
    losses = fitted.report.losses[-500:]
    assert abs(z(losses, gap - correlated.log_evidence)) < 5
    # Each is a mean over 8 draws u of u (precision - its diagonal) u / 2, whose variance is half the trace of a square.
    off_diagonal = correlated.precision * variances - np.eye(3)
    np.testing.assert_allclose(losses.std(), np.sqrt(0.5 * np.trace(off_diagonal @ off_diagonal) / 8), rtol=0.2)


@pytest.mark.parametrize(
    ("guide", "steps"),
    [
        (AutoLaplaceApproximation, 1000),
        pytest.param(AutoLowRankMultivariateNormal, 2000, marks=pytest.mark.slow),
        (AutoIAFNormal, 1000),
    ],
)
def test_guides_of_other_families_are_normalised_and_reweight_to_the_truth(guide, steps, correlated):
    target = correlated.target
    joint = SVI(guide, num_steps=steps).fit(target, key=KEY).infer()
    values = joint.sample(KEY, (8_000,))
    position = correlated.position(values)
    centred = position - correlated.mean
    log_p = -0.5 * np.einsum("di,ij,dj->d", centred, correlated.precision, centred) - position[:, 0]
    ratio = np.exp(log_p - np.asarray(joint.log_prob(values), float) - correlated.log_evidence)
    # E_q[p / q] = Z only if log_prob is the density that `sample` draws from, normalised, Jacobian included. 8,000
    # draws, 5 standard errors, each less than 2 %. Laplace's ratio is constant but for rounding.
    error = ratio.std() / np.sqrt(8_000)
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 5 * error + 1e-3
    weights = ratio / ratio.sum()
    assert 1 / np.sum(weights**2) > 1_000
    np.testing.assert_allclose(weights @ position, correlated.mean, atol=0.15)


def test_a_reweighted_guide_gives_the_exact_evidence_of_a_conjugate_posterior():
    problem = ConjugateNormal(np.array([1.2, 0.3, 2.2, 0.8]), noise_sd=1.0, prior_mean=0.0, prior_sd=2.0)
    fitted = SVI(num_steps=1000).fit(problem.target, key=KEY)
    draws = (Infer(fitted) >> Draw(8_000) >> Reweight(problem.target)).run(key=KEY)
    assert draws.pareto_k() < 0.5
    # The standard error of a log of a mean is the relative one of the mean; 5 of them, and the digits of float32.
    error = np.sqrt(1 / draws.effective_sample_size() - 1 / draws.num_draws)
    assert abs(draws.log_evidence[0] - float(problem.log_evidence)) < 5 * error + 1e-5
    assert error < 0.01
    assert abs(draws.mean()["mu"] - float(problem.mean["mu"])) < 5 * float(problem.sd["mu"]) / np.sqrt(8_000)


def test_the_default_optimiser_reaches_the_evidence_of_the_nile():
    # Random starts are thousands of nats away, where gradients are huge: Adam with its usual memory ended 300 short.
    problem = nile()
    fitted = SVI().fit(problem.target, key=KEY)
    bound = -fitted.report.losses[-300:].mean()
    assert -0.2 < bound - problem.log_evidence < 0.05
    assert fitted.report.losses[0] > fitted.report.losses[-1] + 100


# Runs


def test_new_data_compile_nothing(make_correlated, compilations):
    # Compiled here, not in a fixture: JAX forgets the oldest of the small programs that other tests have crowded out.
    SVI(num_steps=2000).fit(make_correlated(mean=(2.0, 0.0, -1.0)).target, key=jr.key(8))
    compilations.clear()
    other = make_correlated(mean=(-1.0, 0.0, 1.0))
    again = SVI(num_steps=2000).fit(other.target, key=jr.key(9))
    assert compilations == []
    np.testing.assert_allclose(again.infer().base.mean, other.mean, atol=0.1)
    jax.jit(lambda x: x + 1)(jnp.zeros(7))
    assert compilations, "the counter counts"


def test_the_same_key_gives_the_same_bits(fitted, correlated):
    again = SVI(num_steps=2000).fit(correlated.target, key=KEY)
    assert np.array_equal(again.report.losses, fitted.report.losses)
    assert all(np.array_equal(again.params[name], fitted.params[name]) for name in fitted.params)
    other = SVI(num_steps=2000).fit(correlated.target, key=jr.key(1))
    assert not np.array_equal(other.report.losses, fitted.report.losses)


def test_a_fit_goes_on_from_its_checkpoint(fitted, correlated, tmp_path, monkeypatch):
    from posterax import Checkpoint, _loop

    count, next_size = [], _loop._next_size

    def interrupt(made, seconds):
        count.append(made)
        if len(count) == 3:
            raise KeyboardInterrupt
        return 100

    monkeypatch.setattr(_loop, "_next_size", interrupt)
    checkpoint = Checkpoint(str(tmp_path), every=0.0)
    partial = SVI(num_steps=2000).fit(correlated.target, key=KEY, checkpoint=checkpoint)
    assert partial.report.result_code == "interrupted"
    assert 0 < len(partial.report.losses) < 2000
    monkeypatch.setattr(_loop, "_next_size", next_size)
    resumed = SVI(num_steps=2000).fit(correlated.target, key=KEY, checkpoint=checkpoint)
    assert np.array_equal(resumed.report.losses, fitted.report.losses)
    assert all(np.array_equal(resumed.params[name], fitted.params[name]) for name in fitted.params)


def test_a_fitted_guide_is_saved_and_loaded_with_the_target_alike(fitted, correlated, tmp_path):
    save(tmp_path / "guide.posterax", fitted)
    loaded = load(tmp_path / "guide.posterax", like=SVI(target=correlated.target))
    values = fitted.infer().sample(KEY, (5,))
    assert np.array_equal(loaded.infer().log_prob(values), fitted.infer().log_prob(values))
    assert np.array_equal(loaded.report.losses, fitted.report.losses)
    assert loaded.num_steps == 2000


def test_a_fit_in_float64_works_in_a_float32_program(correlated):
    fitted = SVI(num_steps=300).fit(correlated.target, key=KEY, plan=Plan(precision=64))
    assert fitted.report.losses.dtype == np.float64
    values = fitted.infer().sample(KEY, (5,))
    assert values["x"].dtype == fitted.infer().log_prob(values).dtype == jnp.float32


def test_a_joint_distribution_speaks_of_all_values_with_any_batch_axes(fitted):
    joint = fitted.infer()
    values = joint.sample(KEY, (2, 3))
    assert {name: value.shape for name, value in values.items()} == {"scale": (2, 3), "x": (2, 3, 2)}
    assert np.all(np.asarray(values["scale"]) > 0)
    assert joint.log_prob(values).shape == (2, 3)
    one = {name: value[1, 2] for name, value in values.items()}
    np.testing.assert_allclose(joint.log_prob(one), joint.log_prob(values)[1, 2], rtol=1e-5)


def test_an_own_optimiser_is_used(correlated):
    still = optax.sgd(0.0)
    short, long = (SVI(num_steps=n, optimiser=still).fit(correlated.target, key=KEY) for n in (2, 50))
    assert all(np.array_equal(short.params[name], long.params[name]) for name in short.params)


# Errors in words


def test_inferring_before_fitting_is_refused():
    with pytest.raises(ValueError, match=r"This SVI is not fitted. Call `.fit\(target, key=key\)`"):
        SVI().infer()


@pytest.mark.parametrize("arguments", [{"observed": np.ones(3)}, {"prior": 1.0}])
def test_new_observations_are_refused(fitted, arguments):
    with pytest.raises(TypeError, match="leave `observed` and `prior` out, and fit another target for other data"):
        fitted.infer(**arguments)


def test_data_that_are_no_target_are_refused():
    with pytest.raises(TypeError, match=r"SVI fits a Target; got ndarray. Make one with `Target.from_numpyro"):
        SVI().fit(np.ones(3), key=KEY)


@pytest.mark.parametrize("guide", [AutoDelta, NUTS, "AutoNormal", AutoMultivariateNormal(lambda: None)])
def test_what_is_no_class_of_continuous_guides_is_refused(guide):
    with pytest.raises(
        TypeError, match=r"`guide` must be a class of numpyro\.infer\.autoguide for continuous values; got"
    ):
        SVI(guide)


@pytest.mark.parametrize("guide", [AutoBNAFNormal, AutoDAIS])
def test_guides_without_a_density_are_refused(guide):
    with pytest.raises(TypeError, match=f"`guide` {guide.__name__} has no density.*AutoIAFNormal"):
        SVI(guide)


@pytest.mark.parametrize("name", ["num_steps", "num_particles"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1; got 0"):
        SVI(**{name: 0})


def test_a_target_that_is_nowhere_finite_is_told_before_training():
    target = Target(lambda x: x["x"] * jnp.nan, like={"x": 0.0})
    with pytest.raises(TargetError, match=r"No position with a finite log density was found .* in 100 random ones"):
        SVI().fit(target, key=KEY)


@pytest.mark.slow
def test_a_target_that_becomes_nan_ends_the_training_and_keeps_the_guide():
    target = Target(lambda x: jnp.where(x["x"] > 3, jnp.nan, x["x"]), like={"x": 0.0})  # uphill into the NaN
    with pytest.raises(TrainingError, match="The loss of NegativeELBO or its gradient was not finite in") as e:
        SVI(num_steps=500).fit(target, key=KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(e.value.trained.model))


def test_a_raw_number_is_no_key(correlated):
    with pytest.raises(TypeError, match="key"):
        SVI().fit(correlated.target, key=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_keys_end_near_the_gaussian_target(seed, correlated):
    base = SVI(num_steps=2000).fit(correlated.target, key=jr.key(seed)).infer().base
    sd = np.sqrt(np.diag(correlated.cov))
    np.testing.assert_array_less(np.abs(base.mean - correlated.mean) / sd, 0.05)
    np.testing.assert_array_less(np.abs(base.covariance_matrix - correlated.cov) / np.outer(sd, sd), 0.08)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_five_keys_reach_the_evidence_of_the_nile(seed):
    problem = nile()
    fitted = SVI().fit(problem.target, key=jr.key(seed))
    assert -0.2 < -fitted.report.losses[-300:].mean() - problem.log_evidence < 0.05
