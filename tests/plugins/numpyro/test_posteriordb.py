import importlib.util
import json
import sys
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest
from posterax import sample
from posterax._arviz import bulk_ess, mcse
from posterax_models import eight_schools

_SPEC = importlib.util.spec_from_file_location("posteriordb_models", Path(__file__).with_name("posteriordb_models.py"))
assert _SPEC
assert _SPEC.loader
models = importlib.util.module_from_spec(_SPEC)
sys.modules["posteriordb_models"] = models
_SPEC.loader.exec_module(models)


@pytest.fixture
def folder(data_folder):
    if not (data_folder / "posteriordb").is_dir():
        pytest.skip(f"there is no posteriordb/ in {data_folder}; set POSTERAX_DATA to the folder that has it")
    return data_folder / "posteriordb"


def draw(name, folder, seed):
    target, reference = models.problem(name, folder)
    settings = models.SETTINGS[name]
    draws = sample(
        settings.sampler, target, num_draws=settings.num_draws, num_chains=settings.num_chains, plan=settings.plan,
        key=jr.key(seed),
    )  # fmt: skip
    return draws, reference


def assert_reference(draws, reference, *, num_figures):
    """Every mean and sd within 4 combined standard errors, from a bulk ESS of 10,000 or more.

    At 4 standard errors a correct program fails once in 16,000 figures: for the 54 figures of all five posteriors, once
    in 300 keys; the keys are fixed. With 10,000 effective draws here and there, a mean is caught with 99 % when it is
    off by 0.09 posterior standard deviations, a standard deviation when it is off by 6 % (more for heavy tails).
    """
    rows = models.compare(draws, reference)
    assert len(rows) == num_figures
    far = [row for row in rows if not abs(row.z) < 4]
    assert not far, far
    ess = bulk_ess(draws)
    least = {name: float(np.min(models.entry(ess, name))) for name in reference}
    assert min(least.values()) >= 10_000, least


@pytest.fixture(scope="module")
def eight_schools_draws():
    return draw("eight_schools", None, 1)


def test_eight_schools_have_the_means_and_standard_deviations_of_posteriordb(eight_schools_draws):
    assert_reference(*eight_schools_draws, num_figures=20)


def test_eight_schools_have_the_exact_means_and_standard_deviations(eight_schools_draws):
    # 18 sites' entries, two figures each, at 4.5 standard errors: false alarms 2.4e-4.
    draws, _ = eight_schools_draws
    problem, errors = eight_schools(), mcse(draws)
    for name, mean in problem.mean.items():
        assert np.all(np.abs(draws.mean()[name] - mean) < 4.5 * errors["mean"][name]), name
        assert np.all(np.abs(draws.sd()[name] - problem.sd[name]) < 4.5 * errors["sd"][name]), name
    assert not draws.stats["diverging"].any()


def test_an_autoregression_has_the_means_and_standard_deviations_of_posteriordb(folder):
    assert_reference(*draw("arK", folder, 1), num_figures=14)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("name", "num_parameters"), [("eight_schools", 10), ("kidiq", 3), ("arK", 7), ("sblri", 6), ("earnings", 3)]
)
def test_all_five_posteriors_have_the_means_and_standard_deviations_of_posteriordb(name, num_parameters, seed, folder):
    assert_reference(*draw(name, folder, 10 + seed), num_figures=2 * num_parameters)


def regression_exact(name, folder):
    """Exact means and sds of kidiq and earnings: given sigma, flat priors make beta Gaussian about least squares."""
    target, _ = models.problem(name, folder)
    y, x = (np.asarray(array) for array in target.density.args)
    design = np.column_stack([np.ones_like(x), x])
    beta, (squares,), *_ = np.linalg.lstsq(design, y)
    sd = np.sqrt(squares / len(y))
    # The integral over beta leaves sigma^(2 - n) exp(-squares / 2 sigma^2): the trapezium rule over 20 sds each way.
    sigma = np.linspace(max(0.01, 1 - 20 / np.sqrt(2 * len(y))), 1 + 20 / np.sqrt(2 * len(y)), 20_001) * sd
    log_density = (2 - len(y)) * np.log(sigma) - squares / (2 * sigma**2)
    if name == "kidiq":
        log_density -= np.log1p((sigma / 2.5) ** 2)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean, square = weights @ sigma, weights @ sigma**2
    beta_sd = np.sqrt(square * np.diag(np.linalg.inv(design.T @ design)))
    return {"beta": beta, "sigma": mean}, {"beta": beta_sd, "sigma": np.sqrt(square - mean**2)}


@pytest.mark.parametrize("name", ["kidiq", "earnings"])
def test_the_reference_agrees_with_the_exact_posterior_of_a_regression(name, folder):
    # Nothing of ours is sampled here: the statements, the data and the reference belong together. The posteriors are
    # close to Gaussian, and the reference's standard errors are those of 10,000 Gaussian draws.
    _, reference = models.problem(name, folder)
    means, sds = regression_exact(name, folder)
    for parameter, (mean, sd) in reference.items():
        exact, exact_sd = models.entry(means, parameter), models.entry(sds, parameter)
        assert abs(mean - exact) < 4 * exact_sd / np.sqrt(10_000), parameter
        assert abs(sd - exact_sd) < 4 * exact_sd / np.sqrt(20_000), parameter


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kidiq", "earnings"])
def test_the_draws_agree_with_the_exact_posterior_of_a_regression(name, folder):
    draws, _ = draw(name, folder, 11)
    means, sds = regression_exact(name, folder)
    errors = mcse(draws)
    for site, mean in means.items():  # six figures at 4.5 standard errors: false alarms 4e-5
        assert np.all(np.abs(draws.mean()[site] - mean) < 4.5 * errors["mean"][site]), site
        assert np.all(np.abs(draws.sd()[site] - sds[site]) < 4.5 * errors["sd"][site]), site


def test_the_embedded_table_is_the_database_file(folder):
    content = json.loads((folder / f"{models.FILES['eight_schools']}.json").read_text())
    _, embedded = models.problem("eight_schools")
    assert {name: (entry["mean"], entry["sd"]) for name, entry in content["reference"].items()} == embedded


@pytest.mark.parametrize("factor", [1.04, 1.25])
def test_the_comparison_notices_wrong_draws(eight_schools_draws, factor):
    # Deviations are stretched by a factor, means left alone. 4 % is less than each single figure could show.
    draws, reference = eight_schools_draws
    mean = draws.mean()
    wrong = draws.replace(values={name: mean[name] + factor * (x - mean[name]) for name, x in draws.values.items()})
    z = np.array([row.z for row in models.compare(wrong, reference) if row.figure == "sd"])
    assert np.sum(z > 4) >= (10 if factor > 1.2 else 1)
