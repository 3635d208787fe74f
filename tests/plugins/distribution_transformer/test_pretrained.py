import hashlib
import json
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from posterax import Draw, Infer, PosteraxWarning, Reweight, load, save
from posterax_distribution_transformer import (
    PRETRAINED,
    Defended,
    InferenceProblem,
    LengthScale,
    LinearGaussian,
    MixtureMetaPrior,
    NormalVariance,
    QuantumParameter,
    calibrate,
    card,
    components_of,
    correct,
    gaussian_mixture,
    grid_posterior,
    hand_off,
    log_density_at,
    posterior_target,
    pretrained,
)
from posterax_distribution_transformer._fusion import BearingRange
from posterax_distribution_transformer._scores import score
from posterax_models._weights import weights_folder

EXPERIMENTS = {
    "normal-variance": NormalVariance,
    "gaussian-mixture-1d": lambda: LinearGaussian.of(MixtureMetaPrior(4)),
    "gaussian-mixture-2d": lambda: LinearGaussian.of(MixtureMetaPrior(4, 2)),
    "quantum-parameter": QuantumParameter,
    "length-scale": LengthScale,
    "bearing-range": BearingRange,
}


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_file_is_the_one_that_the_card_describes(name):
    told = card(name)
    content = (weights_folder("posterax_distribution_transformer") / f"{name}.posterax").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    assert len(content) < 5_000_000
    assert told["data"] == "simulated from the experiment; nothing else"
    assert pretrained(name).report["num_weights"] == told["num_weights"]
    json.dumps(told)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_score_of_the_card_is_found_again(name):
    """The mean divergence of 500 fresh problems, within 5 of both standard errors; twice the card's would be found."""
    told = card(name)["scores"]["trained on"]
    found = score(pretrained(name), EXPERIMENTS[name](), 500, key=jr.key(99))
    error = np.hypot(found.kl.std() / np.sqrt(500), told["kl_mean_standard_error"])
    assert abs(found.kl.mean() - told["kl_mean"]) < 5 * error
    bar = 0.75 if name == "length-scale" else 0.5  # its posteriors are nearly normal
    assert found.kl.mean() < bar * found.best_normal.mean(), "the best single normal is the bar"


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'bearing-range', 'gaussian"):
        pretrained("gpt")


# Exact references against each other: no network


def test_the_quantum_table_is_the_average_over_noise():
    """Quadrature against 200,000 draws, five standard errors at each setting."""
    experiment, d = QuantumParameter(), jnp.array([0.2, 0.7])
    table = np.asarray(experiment.outcome_table(d))
    noise = jr.normal(jr.key(0), (200_000, 3))
    for setting in range(10):
        for i in range(2):
            p = np.asarray(experiment.probability(d[i], noise, setting))
            assert abs(p.mean() - table[i, setting]) < 5 * p.std() / np.sqrt(len(p)) + 1e-4


def test_quantum_outcomes_are_those_of_the_matrix_exponential():
    experiment = QuantumParameter(state_sd=0.0, time_sd=0.0)
    d, still = 0.3, jnp.zeros(3)
    hamiltonian = np.array([[1 - d, d], [d, d - 1]])
    values, vectors = np.linalg.eigh(hamiltonian)
    for setting, (a, b, time) in enumerate(((1, 0, 1), (1, 0, 2), (1, 0, 3), (1, 0, 4), (1, 0, 5), (0, 1, 1))):
        state = vectors @ (np.exp(-1j * values * time) * (vectors.T @ (np.array([a, b]) / np.hypot(a, b))))
        np.testing.assert_allclose(experiment.probability(d, still, setting), abs(state[0]) ** 2, rtol=1e-5)


def test_the_length_scales_likelihood_is_scipys():
    from scipy import stats

    experiment = LengthScale(4)
    rows = np.array([[1.0, 0.2], [2.5, -0.3], [7.0, 1.0], [0.0, 99.0]])
    present = np.array([True, True, True, False])
    from posterax_distribution_transformer import Rows

    found = experiment.log_likelihood(1.7, Rows(jnp.asarray(rows), jnp.asarray(present)))
    x, y = rows[:3].T
    gram = np.exp(-0.5 * ((x[:, None] - x) / 1.7) ** 2) + 0.01 * np.eye(3)
    np.testing.assert_allclose(found, stats.multivariate_normal(np.zeros(3), gram).logpdf(y), rtol=1e-4)


def test_grid_posteriors_are_normalised_and_conjugate():
    prior, seen = dist.InverseGamma(2.0, 3.0), 1.3
    points = jnp.linspace(-8.0, 12.0, 4001)
    log_likelihood = dist.Normal(0.0, jnp.exp(points / 2)).log_prob(seen)
    grid = grid_posterior(points, log_density_at(prior, points, jnp.exp), log_likelihood)
    np.testing.assert_allclose(grid.mass.sum(), 1.0, rtol=1e-4)
    exact = NormalVariance().exact(prior, jnp.asarray(seen))
    np.testing.assert_allclose(grid.divergence(log_density_at(exact, points, jnp.exp)), 0.0, atol=3e-4)
    np.testing.assert_allclose(grid.log_prob(jnp.array(0.4)), exact.log_prob(jnp.exp(0.4)) + 0.4, atol=1e-3)
    np.testing.assert_allclose(grid.cdf(jnp.array(0.4)), exact.cdf(jnp.exp(0.4)), atol=3e-3)


# Trust


@pytest.fixture(scope="module")
def variance():
    return pretrained("normal-variance")


def test_trained_problems_are_calibrated_within_binomial_bands_also_by_thirds(variance):
    """2,000 problems; each of 10 rows at 3 levels within 4.5 standard errors: a false alarm in 5,000 runs."""
    found = calibrate(variance, NormalVariance().problem(), key=jr.key(3))
    table = found.coverage()
    for level in (0.5, 0.8, 0.95):
        error = np.sqrt(level * (1 - level) / table["problems"])
        assert (np.abs(table[level] - level) < 4.5 * error).all(), table
    assert found.words.startswith("Nothing found")
    assert abs(-found.log_prob.mean() - variance.report["loss"]) < 5 * found.log_prob.std() / np.sqrt(2000) + 0.02


def _scaled(variance, factor):
    import equinox as eqx

    units = variance.scales.latent
    return eqx.tree_at(lambda f: f.scales.latent.size, variance, units.size * factor)


def test_negative_controls_fail(variance):
    problem = NormalVariance().problem()

    def shuffled(latent, *, key):
        one, two = jr.split(key)
        another = NormalVariance().prior(one).sample(two)
        return problem.simulate(another, key=key)

    def wrong_prior(key):
        law = NormalVariance().prior(key)
        return dist.InverseGamma(law.concentration * 1.3, law.rate)

    # Data of another latent, standard deviations times 0.7, latents of another prior than the one that is told.
    other_data = InferenceProblem(problem.prior, shuffled)
    told = InferenceProblem(wrong_prior, problem.simulate, latent=_latent_of_another)
    for name, fitted, one in (
        ("data of nothing", variance, other_data),
        ("narrow", _scaled(variance, 0.7), problem),
        ("another prior", variance, told),
    ):
        found = calibrate(fitted, one, key=jr.key(4))
        assert found.words.startswith("Posteriors are off"), (name, found.words)


def _latent_of_another(prior, *, key):
    return dist.InverseGamma(prior.concentration / 1.3, prior.rate).sample(key)


def test_calibration_draws_its_picture(variance, tmp_path):
    calibrate(variance, NormalVariance().problem(), 300, key=jr.key(5)).plot(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def _log_likelihood(x, seen):
    return dist.Normal(0.0, jnp.sqrt(x)).log_prob(seen)


def test_corrected_draws_have_the_exact_evidence_and_mean(variance):
    prior, seen = dist.InverseGamma(3.0, 2.0), 2.5
    target = posterior_target(prior, _log_likelihood, seen)
    draws = correct(variance, seen, prior=prior, target=target, num_draws=4000, key=jr.key(0))
    exact = NormalVariance().exact(prior, jnp.asarray(seen))
    evidence = dist.StudentT(6.0, 0.0, np.sqrt(2 / 3)).log_prob(seen)
    ess = draws.effective_sample_size()
    assert ess > 3000
    # One in the weights: their coefficient of variation is sqrt(n / ESS - 1); 5 standard errors.
    assert abs(float(draws.log_evidence[0]) - evidence) < 5 * np.sqrt((4000 / ess - 1) / 4000) + 1e-3
    assert abs(draws.mean()["x"] - exact.mean) < 5 * np.sqrt(exact.variance / ess)
    assert draws.history[-1]["step"] == "reweight"


def test_an_answer_that_is_off_is_reported_and_its_correction_moves_to_the_truth(variance):
    """The same network, told standard deviations of a half: k-hat rises, and weighting still mends the mean."""
    prior, seen = dist.InverseGamma(3.0, 2.0), 2.5
    target = posterior_target(prior, _log_likelihood, seen)
    exact = NormalVariance().exact(prior, jnp.asarray(seen))
    shifted = _scaled(variance, 1.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)
        draws = correct(shifted, seen, prior=prior, target=target, num_draws=4000, key=jr.key(0))
    plain = float(jnp.mean(shifted.infer(seen, prior=prior, check=False).sample(jr.key(1), (4000,))))
    good = correct(variance, seen, prior=prior, target=target, num_draws=4000, key=jr.key(0))
    assert draws.effective_sample_size() < 0.9 * good.effective_sample_size()
    assert abs(draws.mean()["x"] - exact.mean) < 0.3 * abs(plain - exact.mean)


def test_an_inferred_mixture_that_misses_the_posterior_is_warned_of(variance):
    """A likelihood that knows far more than the network was told: almost all weight on few draws."""
    prior = dist.InverseGamma(3.0, 2.0)

    def sharp(x, seen):
        return 1e4 * dist.Normal(0.0, 0.01).log_prob(jnp.log(x) - 3.0) + 0.0 * seen

    target = posterior_target(prior, sharp, 0.5)
    with pytest.warns(PosteraxWarning, match="does not cover the posterior: Pareto k-hat"):
        correct(variance, 0.5, prior=prior, target=target, num_draws=500, key=jr.key(0))


def test_defended_answers_bound_the_weights_and_are_saved(variance, tmp_path):
    """Half a network that is told too narrow: without a defence weights grow as the exact over the narrow tail."""
    prior, seen = dist.InverseGamma(3.0, 2.0), 2.5
    target = posterior_target(prior, _log_likelihood, seen)
    defended = Defended(_scaled(variance, 0.5), 0.25)
    draws = (Infer(defended, seen, prior) >> Draw(2000, variable="x") >> Reweight(target)).run(key=jr.key(0))
    largest = _log_likelihood(seen**2, seen)  # over all variances
    assert draws.log_weights.max() <= largest + np.log(1 / 0.25) + 1e-5
    evidence = dist.StudentT(6.0, 0.0, np.sqrt(2 / 3)).log_prob(seen)
    ess = draws.effective_sample_size()
    assert abs(float(draws.log_evidence[0]) - evidence) < 5 * np.sqrt((2000 / ess - 1) / 2000)
    save(tmp_path / "defended", defended)
    back = load(tmp_path / "defended")
    assert back.share == 0.25
    points = jnp.linspace(0.1, 5.0, 7)
    laws = [one.infer(seen, prior=prior).log_prob(points) for one in (back, defended)]
    np.testing.assert_array_equal(*laws)
    plain = defended.fitted.infer(seen, prior=prior, check=False).log_prob(points)
    np.testing.assert_allclose(np.exp(laws[0]), 0.75 * np.exp(plain) + 0.25 * np.exp(prior.log_prob(points)), rtol=1e-4)
    assert Defended(variance).infer(None, prior=prior) is prior
    with pytest.raises(ValueError, match="`share` must be between 0 and 1; got 1"):
        Defended(variance, 1.0)


@pytest.mark.slow
def test_chains_that_start_at_the_mixture_sample_the_exact_posterior(variance):
    prior, seen = dist.InverseGamma(3.0, 2.0), 2.5
    target = posterior_target(prior, _log_likelihood, seen)
    draws = hand_off(variance, seen, prior=prior, target=target, num_draws=500, key=jr.key(2))
    exact = NormalVariance().exact(prior, jnp.asarray(seen))
    log_x = np.log(draws["x"])
    expected = np.log(exact.rate) - jax.scipy.special.digamma(exact.concentration)
    sd = np.sqrt(jax.scipy.special.polygamma(1, exact.concentration))
    assert draws["x"].shape == (4, 500)
    assert abs(log_x.mean() - expected) < 5 * sd / np.sqrt(400)  # effective draws of four chains, at the least


def test_a_shifted_meta_prior_is_flagged_and_worse(variance):
    """InverseGamma(24, 6) for both parameters (C.2): divergences are far larger, and most problems are flagged."""
    shifted = NormalVariance(24.0, 6.0)

    def flagged(key):
        prior, _, observed = shifted.problem().draw(key=key)
        return variance.is_outside(variance.spec.encode(prior, observed))

    share = float(np.mean(jax.jit(jax.vmap(flagged))(jr.split(jr.key(1), 2000))))
    usual = NormalVariance()

    def seldom(key):
        prior, _, observed = usual.problem().draw(key=key)
        return variance.is_outside(variance.spec.encode(prior, observed))

    assert float(np.mean(jax.jit(jax.vmap(seldom))(jr.split(jr.key(1), 2000)))) < 0.01
    assert share > 20 * 0.001
    found, home = (score(variance, one, 500, key=jr.key(2)) for one in (shifted, usual))
    assert found.kl.mean() > 10 * home.kl.mean()


def test_other_numbers_of_components_than_trained_on():
    """Level E: mixtures of 2 and 8 components by a network that was trained on 4; the bar stays the best normal."""
    fitted = pretrained("gaussian-mixture-1d")
    for num in (2, 8):
        found = score(fitted, LinearGaussian.of(MixtureMetaPrior(num)), 500, key=jr.key(num))
        assert found.kl.mean() < 0.5 * found.best_normal.mean(), num
    law = fitted.infer(np.array([0.4]), prior=gaussian_mixture([0.2, 0.8], [-1.0, 1.0], scale=[0.3, 0.6]))
    assert components_of(law).num == 2
