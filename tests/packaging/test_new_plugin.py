"""What `posterax new` writes is a plugin: it is built, installed into a fresh environment, found, and conforms."""

import json
import re
import subprocess
import sys
from pathlib import Path

import posterax
import pytest
from posterax import _cli
from posterax.plugin import ComponentSpec

ROOT = Path(__file__).parents[2]
COMPONENTS = {"random-walk": "sampler", "linear-gaussian": "estimator", "negative-log-likelihood": "objective"}


def new(capsys, *arguments):
    try:
        status = _cli.main(["new", *map(str, arguments)])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    assert _cli.main(["new", "odd-jobs", "--output", str(folder)]) == 0
    return folder / "posterax-odd-jobs"


@pytest.fixture(scope="module")
def installed(project, own_wheel, build, fresh, tmp_path_factory):
    """The `bin` folder of a fresh environment with posterax's wheel and that of the project."""
    folder = tmp_path_factory.mktemp("fresh")
    return fresh(folder, [own_wheel, build(project, folder)])


def test_it_is_found_and_its_three_components_with_it(installed, call):
    listed = json.loads(call(installed / "posterax", "plugins", "--json", cwd=installed))["plugins"]
    (plugin,) = [plugin for plugin in listed if plugin["id"] == "odd-jobs"]
    assert (plugin["state"], plugin["distribution"]) == ("ok", "posterax-odd-jobs"), plugin["reason"]
    found = {component["name"]: component["kind"] for component in plugin["components"]}
    assert found == {f"odd-jobs:{name}": kind for name, kind in COMPONENTS.items()}


def test_posterax_check_finds_no_fault_in_its_sampler(installed, call):
    said = json.loads(call(installed / "posterax", "check", "odd-jobs:random-walk", "--json", cwd=installed))
    assert (said["passed"], said["seed"], said["level"]) == (True, 0, "smoke")
    (report,) = said["reports"]
    assert (report["component"], report["distribution"]) == ("odd-jobs:random-walk", "posterax-odd-jobs")
    assert {outcome["status"] for outcome in report["outcomes"]} == {"passed"}
    assert "exact-start-regression" in [outcome["check"] for outcome in report["outcomes"]]


def test_its_own_tests_pass_without_a_warning(installed, call, project):
    told = call(installed / "python", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=project)
    assert " passed" in told
    assert "skipped" not in told


def test_it_is_clean_and_nothing_is_left_to_fill_in(project):
    files = {file.relative_to(project).as_posix(): file for file in project.rglob("*") if file.is_file()}
    for name, file in files.items():
        assert not re.search(r"@\w+@", name + file.read_text()), name
    assert {"pyproject.toml", "README.md", ".gitignore", "tests/test_conformance.py"} <= set(files)
    for name in re.findall(r"`((?:src|tests)/[\w/.]+)`", files["README.md"].read_text()):
        assert (project / name).exists(), name
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed: pip install '.[dev]'")
    for command in (["check"], ["format", "--check"]):
        call = [ruff, *command, "--no-cache", "--config", ROOT / "pyproject.toml", "."]
        done = subprocess.run(call, cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_readmes_script_runs(installed, call, project, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", (project / "README.md").read_text(), flags=re.M | re.S)
    script = tmp_path / "script.py"
    script.write_text(code)
    assert "theta" in call(installed / "python", "-W", "error", script, cwd=tmp_path)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("MyPlugin", "Write 'my-plugin'."),
        ("two_words", "Write 'two-words'."),
        ("7up", "Write for example 'elliptical-slice'."),
        ("../up", "Write 'up'."),
        ("", "Write for example"),
        ("posterax-slice", "Write 'slice'."),
        ("local", "Choose another name."),
    ],
)
def test_a_name_that_cannot_be_an_id_is_wrong_usage(capsys, tmp_path, name, cure):
    status, out, err = new(capsys, name, "--output", tmp_path)
    assert (status, out) == (2, "")
    assert "argument NAME: " in err
    assert cure in err
    assert not list(tmp_path.iterdir())


def test_the_id_of_a_plugin_or_package_that_is_there_is_refused(capsys, tmp_path):
    status, _, err = new(capsys, "models", "--output", tmp_path)
    assert (status, err) == (
        1,
        "posterax: error: a package 'posterax_models' is installed already. Choose another name.\n",
    )
    with posterax.isolated(ComponentSpec("a", kind="b", target="c:D", summary="S."), plugin="taken"):
        status, _, err = new(capsys, "taken", "--output", tmp_path)
    assert status == 1
    assert "'taken' is the id of an installed plugin" in err
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_not_touched(capsys, tmp_path):
    there = tmp_path / "posterax-mine"
    there.mkdir()
    assert new(capsys, "mine", "--output", tmp_path)[0] == 0  # an empty folder is no loss
    (there / "README.md").write_text("mine")
    status, out, err = new(capsys, "mine", "--output", tmp_path)
    assert (status, out) == (1, "")
    assert "is there already" in err
    assert (there / "README.md").read_text() == "mine"
    status, _, err = new(capsys, "mine", "--output", there / "README.md")
    assert status == 1
    assert "cannot be written" in err
