import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from posterax import Draws, UnknownComponentError, _demo
from posterax._discovery import PluginRecord
from posterax._keys import describe_key
from posterax.plugin import DemoSpec
from posterax_models import ConjugateNormal, LinearGaussianStateSpace, nile
from posterax_numpyro._demo import _level

# This plugin's sections, as a newcomer runs them

SECTIONS = ["eight-schools", "nile"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo-output"
    command = [Path(sys.executable).with_name("posterax"), "demo", "--output", folder]
    command += [word for name in SECTIONS for word in ("--section", name)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    return run, folder


@pytest.mark.slow
def test_the_demo_ends_well_and_prints_its_tables(finished):
    run, folder = finished
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Warning" not in run.stderr, run.stderr
    assert "FAR" not in run.stdout
    assert "FAILED" not in run.stdout
    lines = run.stdout.splitlines()
    assert "all figures agree with the truth" in lines[-1]
    assert str(folder / "index.html") in lines[-1]
    rows = [line.split() for line in lines if line.startswith("    ")]
    heads = [row for row in rows if row == ["estimate", "truth", "error", "std.", "errors"]]
    assert len(heads) == 8, "in each of two sections: reweighted, evidence, moved, NUTS"
    names = {row[0] for row in rows}
    assert {"mu", "tau", "theta[A]", "theta[H]", "sigma_obs", "sigma_level", "log"} <= names
    numbers = [[float(cell) for cell in row[-4:-1]] for row in rows if row not in heads]
    assert len(numbers) == 2 * (4 + 1 + 4) + 2 * 10 + 2 * 2
    for estimate, truth, error in numbers:
        # Printed with four digits.
        assert abs(estimate - truth - error) <= 2e-3 * max(abs(estimate), abs(truth))


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_demo_writes_results_that_open(finished, section):
    _, folder = finished
    names = {path.name for path in (folder / section).iterdir()}
    extra = {"level.png"} if section == "nile" else set()
    assert names == {"draws.nc", "trace.png", "rank.png", "forest.png"} | extra
    for path in (folder / section).glob("*.png"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000, path
    with xr.open_datatree(folder / section / "draws.nc", engine="h5netcdf") as tree:
        groups = {"posterior", "sample_stats", "log_likelihood", "prior", "prior_predictive", "posterior_predictive"}
        assert groups | {"observed_data"} <= set(tree.children)
        assert tree["posterior"].sizes["chain"] == 4
        assert tree["posterior"].sizes["draw"] == 2000
        for group in tree.children.values():
            assert all(np.isfinite(variable).all() for variable in group.data_vars.values()), group.name
    page = (folder / "index.html").read_text()
    for path in (folder / section).glob("*.png"):
        assert f'src="{section}/{path.name}"' in page


# Its verdict


def sections(monkeypatch, **functions):
    """Have `posterax demo` find these functions as sections."""
    module = type(sys)("fake_demo")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "fake_demo", module)
    specs = tuple(DemoSpec(name, target=f"fake_demo:{name}", summary=f"About {name}.") for name in functions)
    monkeypatch.setattr(_demo, "plugins", lambda: [PluginRecord("fake", "posterax-fake", "1.0", demos=specs)])


def near(report):
    report.compare("A table", [("mu mean", 1.02, 0.01, 1.0), ("mu sd", 0.5, float("nan"), 0.4)])


def far(report):
    report.compare("A table", [("mu mean", 1.02, 0.01, 1.0), ("tau mean", 2.6, 0.1, 2.0)])


def breaks(report):
    report.say("a <sign> of life")
    raise RuntimeError("a fault of the section's")


def test_figures_near_the_truth_pass(tmp_path, capsys, monkeypatch):
    sections(monkeypatch, near=near)
    assert _demo.main(output=str(tmp_path), sections=None) == 0
    printed = capsys.readouterr().out
    assert "all figures agree with the truth" in printed
    assert "+2.0" in printed
    assert "FAR" not in printed
    assert "<td>mu mean</td><td>1.02</td><td>1</td><td>0.02</td><td>+2.0</td>" in (tmp_path / "index.html").read_text()


def test_one_figure_far_from_the_truth_fails_the_demo_and_is_marked(tmp_path, capsys, monkeypatch):
    sections(monkeypatch, far=far, near=near)
    assert _demo.main(output=str(tmp_path), sections=None) == 1
    printed = capsys.readouterr().out
    (marked,) = [line for line in printed.splitlines() if line.endswith(" FAR")]
    assert marked.split() == ["tau", "mean", "2.6", "2", "0.6", "+6.0", "FAR"]
    assert "FAILED: 1 figures above, more than 5 standard errors from the truth." in printed
    assert "2 sections in" in printed
    assert "failed: far. The page is" in printed


@pytest.mark.parametrize("estimate", [float("nan"), float("inf")])
def test_an_estimate_that_is_no_number_fails_the_demo(tmp_path, estimate):
    report = _demo.Report("A section", tmp_path)
    report.compare("A table", [("mu mean", estimate, float("nan"), 1.0)])
    assert report.num_far == 1


def test_a_section_that_breaks_fails_the_demo_and_the_others_still_run(tmp_path, capsys, monkeypatch):
    sections(monkeypatch, breaks=breaks, near=near)
    assert _demo.main(output=str(tmp_path), sections=None) == 1
    printed = capsys.readouterr()
    assert "FAILED: RuntimeError: a fault of the section's" in printed.out
    assert "Traceback" in printed.err
    assert "failed: breaks." in printed.out
    page = (tmp_path / "index.html").read_text()
    assert "a &lt;sign&gt; of life" in page
    assert "A table" in page


def test_sections_are_chosen_by_name(tmp_path, capsys, monkeypatch):
    sections(monkeypatch, far=far, near=near)
    assert _demo.main(output=str(tmp_path), sections=["near"]) == 0
    assert "1 sections" in capsys.readouterr().out
    with pytest.raises(UnknownComponentError, match=r"There is no demo section 'near-by'.*There are"):
        _demo.main(output=str(tmp_path), sections=["near-by"])


@pytest.mark.parametrize(("shift", "num_far"), [(0.0, 0), (0.3, 1)])
def test_draws_are_compared_in_their_own_standard_errors(tmp_path, capsys, shift, num_far):
    problem = ConjugateNormal(np.array([1.2, 0.3, 2.2, 0.8]), noise_sd=1.0, prior_mean=0.0, prior_sd=2.0)
    noise = np.random.default_rng(1).standard_normal((4, 1000))
    draws = Draws({"mu": float(problem.mean["mu"]) + float(problem.sd["mu"]) * (noise + shift)}, {})
    report = _demo.Report("A section", tmp_path)
    report.compare_draws("A table", draws, problem, ["mu"])
    assert report.num_far == num_far
    names = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("    mu")]
    assert names == [["mu", "mean"], ["mu", "sd"]]


# Its own arithmetic


def test_the_level_of_the_nile_is_the_smoothed_one():
    # With both standard deviations known (Durbin and Koopman's), the paths' law is the Kalman smoother's.
    problem, one = nile(), jnp.ones((1, 1))
    model = LinearGaussianStateSpace(jnp.array([1000.0]), 500.0**2 * one, one, 38.3**2 * one, one, 122.9**2 * one)
    exact = model.smooth(jnp.asarray(problem.observed, jnp.float32)[:, None])
    sd = np.sqrt(np.asarray(exact.cov)[:, 0, 0])
    known = {"sigma_obs": np.full((1, 16 * 1000), 122.9), "sigma_level": np.full((1, 16 * 1000), 38.3)}
    draws = Draws(known, {}).recorded("known", key=describe_key(jr.key(0)))
    mean, low, high = _level(problem, draws)
    # 1,000 paths, 100 years: means within 5 standard errors. A quantile of a tenth at each end is known to 0.066 sd.
    assert np.abs(mean - np.asarray(exact.mean)[:, 0]).max() < 5 * sd.max() / np.sqrt(1000)
    np.testing.assert_allclose((high - low) / (2 * 1.645 * sd), 1.0, atol=0.15)
