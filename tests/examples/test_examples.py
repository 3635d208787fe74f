import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = {
    "01_eight_schools.py": ["--draws", "200"],
    "02_pipeline.py": ["--draws", "500"],
    "03_long_run.py": ["--draws", "300"],
    "04_calibration.py": ["--simulations", "20"],
    "05_nngp_regression.py": ["--rows", "10", "--nuts", "30"],
    "06_nngp_digits.py": ["--train", "60", "--steps", "60"],
    "07_nngp_uci.py": ["--splits", "2"],
    "08_nile_by_particles.py": ["--particles", "200"],
    "09_stochastic_volatility.py": ["--days", "40", "--draws", "60"],
    "10_tempered_evidence.py": ["--particles", "100"],
    "11_reasoning_accuracy.py": ["--problems", "4", "--particles", "2"],
    "12_premature_exploitation.py": ["--problems", "4", "--particles", "4"],
    "13_local_server.py": ["--problems", "1", "--particles", "2"],
    "14_prior_on_the_fly.py": ["--draws", "200"],
    "15_train_your_own.py": ["--steps", "20"],
    "16_tracking.py": ["--steps", "12", "--series", "2", "--particles", "100"],
    "17_ising_marginals.py": ["--steps", "20"],
    "18_digits_in_any_order.py": ["--steps", "20", "--marginal-steps", "10"],
    "19_table_with_holes.py": ["--steps", "20"],
    "20_flashing_ratchet.py": ["--subsets", "1"],
    "21_entropy_production.py": ["--paths", "100"],
    "22_heart_transplants.py": ["--draws", "200"],
    "23_glycine_receptor.py": ["--windows", "20"],
    "24_calibrated_rates.py": ["--states", "2", "--processes", "30"],
    "25_amortise_reweight_move.py": ["--draws", "200", "--repeats", "1"],
    "26_yesterdays_posterior.py": ["--days", "2", "--places", "1", "--draws", "400"],
    "27_nngp_evidence.py": ["--rows", "6", "--particles", "20", "--datasets", "1"],
    "28_look_ahead_by_marginals.py": ["--particles", "4", "--keys", "2", "--steps", "20"],
    "29_passage_times.py": ["--paths", "40", "--sets", "1"],
    "30_thousand_fits.py": ["--fits", "6", "--workers", "1"],
    "31_two_hosts.py": ["--draws", "50"],
}
SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def run(arguments, folder):
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_example_has_a_tiny_size():
    assert sorted(TINY) == SCRIPTS


SLOW = {
    "06_nngp_digits.py",
    "07_nngp_uci.py",
    "09_stochastic_volatility.py",
    "10_tempered_evidence.py",
    "11_reasoning_accuracy.py",
    "12_premature_exploitation.py",
    "14_prior_on_the_fly.py",
    "15_train_your_own.py",
    "16_tracking.py",
    "17_ising_marginals.py",
    "18_digits_in_any_order.py",
    "19_table_with_holes.py",
    "20_flashing_ratchet.py",
    "21_entropy_production.py",
    "22_heart_transplants.py",
    "23_glycine_receptor.py",
    "24_calibrated_rates.py",
    "25_amortise_reweight_move.py",
    "26_yesterdays_posterior.py",
    "27_nngp_evidence.py",
    "28_look_ahead_by_marginals.py",
    "29_passage_times.py",
    "30_thousand_fits.py",
    "31_two_hosts.py",
}  # half a minute each, nearly all of it compilation


@pytest.mark.parametrize("script", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SCRIPTS])
def test_each_example_runs(script, tmp_path):
    out = run([sys.executable, str(ROOT / "examples" / script), *TINY[script]], tmp_path)
    for written in re.findall(r"wrote ([^\s;]+)", out):
        assert (tmp_path / written).stat().st_size > 0
    assert "wrote" in out


@pytest.mark.slow
def test_the_demo_has_the_sections_of_all_plugins_and_each_loads(tmp_path):
    code = """
from posterax._component import resolve
from posterax._registry import plugins
for record in plugins():
    for spec in record.demos:
        assert callable(resolve(spec, record))
        print(spec.name)
"""
    assert set(run([sys.executable, "-c", code], tmp_path).split()) == {
        "eight-schools",
        "language",
        "marginals",
        "nile",
        "particles",
        "ratchet",
        "amortised",
        "wide-networks",
    }


def test_the_readme_of_the_third_party_plugin_names_what_is_there():
    folder = ROOT / "examples" / "third_party_plugin"
    for name in re.findall(r"^(pyproject\.toml|src/\S+|tests/)", (folder / "README.md").read_text(), flags=re.M):
        assert (folder / name).exists()


def test_no_file_names_a_registry_or_a_path_of_a_machine():
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).split()
    pattern = re.compile("|".join(["py" + r"pi\.org", "/" + "work/", "/" + "root/", "files.python" + "hosted"]))
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".cff", ".json", "", ".yml"}:
            assert not pattern.search(path.read_text(errors="ignore")), name
