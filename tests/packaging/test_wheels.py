"""From sources to wheels to a fresh environment: posterax, a stranger's plugin and four broken ones meet."""

import json
import re
import tomllib
import venv
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
THIRD_PARTY = ROOT / "examples" / "third_party_plugin"
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY_POINTS = CONFIGURATION["project"]["entry-points"]["posterax.plugins"]

FAKES = {
    "absent": "import no_such_module_anywhere",
    "misspelled": """
        from posterax.plugin import ComponentSpec, hookimpl
        @hookimpl
        def posterax_component():
            return []
    """,
    "rival": """
        from posterax.plugin import ComponentSpec, hookimpl
        class Rival: pass
        @hookimpl
        def posterax_components():
            return [ComponentSpec("nuts", kind="sampler", target="fake_rival:Rival", summary="Another NUTS.")]
    """,
    "tomorrow": """
        from posterax.plugin import PluginInfo, hookimpl
        @hookimpl
        def posterax_plugin_info():
            return PluginInfo("From the future.", api=(99, 0))
        @hookimpl
        def posterax_components(what_is_not_there_yet):
            return []
    """,
}

RUN = """
import json, jax.numpy as jnp, jax.random as jr, posterax
from posterax import Target, get, sample

said = {}
def attempt(name):
    try:
        return get(name)
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"

for name in ("absent:x", "misspelled:x", "tomorrow:x", "nuts"):
    attempt(name)

def log_density(x, mean):
    return -0.5 * jnp.sum((x["x"] - mean) ** 2)

target = Target(log_density, jnp.array([1.0, -2.0]), like={"x": jnp.zeros(2)})
slice = get("elliptical-slice")(scale_tril=2 * jnp.eye(2), num_warmup=100)
draws = sample(slice, target, num_draws=1000, num_chains=4, key=jr.key(0))
print(json.dumps({
    "file": posterax.__file__,
    "said": said,
    "name": posterax.qualified_name(slice),
    "mean": draws.values["x"].mean((0, 1)).tolist(),
    "nuts": posterax.qualified_name(get("numpyro:nuts")),
    "rival": posterax.qualified_name(get("rival:nuts")),
}))
"""


def fake_wheel(plugin, code, folder):
    """A wheel of one module, written by hand: building four would take longer than all the rest."""
    info = f"posterax_{plugin}-1.0.dist-info"
    files = {
        f"fake_{plugin}.py": dedent(code),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: posterax-{plugin}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[posterax.plugins]\n{plugin} = fake_{plugin}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / f"posterax_{plugin}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def wheels(own_wheel, build, tmp_path_factory):
    return [own_wheel, build(THIRD_PARTY, tmp_path_factory.mktemp("wheels"))]


@pytest.fixture(scope="module")
def installed(wheels, fresh, tmp_path_factory):
    """The `bin` folder of a fresh environment with both wheels and the four fakes."""
    folder = tmp_path_factory.mktemp("fresh")
    return fresh(folder, [*wheels, *(fake_wheel(plugin, code, folder) for plugin, code in FAKES.items())])


def test_the_wheel_holds_the_packages_and_nothing_else(wheels):
    files = zipfile.ZipFile(wheels[0]).namelist()
    packages = [Path(path).name for path in CONFIGURATION["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    (info,) = {name.partition("/")[0] for name in files if ".dist-info/" in name}
    assert {name.partition("/")[0] for name in files} == {*packages, info}
    assert {f"{package}/py.typed" for package in packages} <= set(files)
    tests = re.compile(r"(^|/)(tests?|test_\w+\.py|conftest\.py)(/|$)")
    assert not [name for name in files if tests.search(name) or name.endswith((".pyc", ".md"))]
    for folder in ("core", "models", "plugins"):
        for file in (ROOT / folder).rglob("*.*"):
            name = file.relative_to(ROOT / folder).as_posix()
            if "__pycache__" not in file.parts and not name.startswith("training/"):  # scripts of the repository
                assert name in files


def test_the_third_partys_wheel_is_its_own(wheels):
    files = zipfile.ZipFile(wheels[1]).namelist()
    assert {name.partition("/")[0] for name in files} == {"posterax_slice", "posterax_slice-0.1.0.dist-info"}


def test_all_plugins_are_listed_and_each_broken_one_with_its_reason(installed, call):
    listing = json.loads(call(installed / "posterax", "plugins", "--json", cwd=installed))
    plugins = {plugin["id"]: plugin for plugin in listing["plugins"]}
    assert set(plugins) == {*ENTRY_POINTS, "slice", *FAKES}
    states = {name: plugin["state"] for name, plugin in plugins.items()}
    assert {states[name] for name in ENTRY_POINTS} == {"ok"}, plugins
    assert states["slice"] == "ok"
    assert plugins["slice"]["distribution"] == "posterax-slice"
    assert [component["name"] for component in plugins["slice"]["components"]] == ["slice:elliptical-slice"]
    assert {name: states[name] for name in FAKES} == {
        "absent": "error",
        "misspelled": "error",
        "rival": "ok",
        "tomorrow": "incompatible",
    }
    assert "No module named 'no_such_module_anywhere'" in plugins["absent"]["reason"]
    assert "did you mean 'posterax_components'" in plugins["misspelled"]["reason"]
    assert "written for plugin API 99.0" in plugins["tomorrow"]["reason"]
    (note,) = listing["notes"]
    assert "'nuts' is the name of numpyro:nuts (posterax " in note
    assert "rival:nuts (posterax-rival 1.0)" in note
    # The same for people.
    text = " ".join(call(installed / "posterax", "plugins", cwd=installed).split())
    for reason in ("no_such_module_anywhere", "did you mean 'posterax_components'", "API 99.0", note):
        assert reason in text


def test_the_strangers_sampler_runs_beside_four_broken_plugins(installed, call, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    found = json.loads(call(installed / "python", "-I", "-W", "error", script, cwd=tmp_path))
    assert Path(found["file"]).is_relative_to(installed.parent)  # not the sources
    assert found["name"] == "slice:elliptical-slice"
    assert (found["nuts"], found["rival"]) == ("numpyro:nuts", "rival:nuts")
    # 4000 draws of little correlation: a standard error near 0.03. The exact test is the plugin's own.
    assert found["mean"] == pytest.approx([1.0, -2.0], abs=0.2)
    said = found["said"]
    assert "PluginError: the plugin 'absent' (posterax-absent 1.0) is broken" in said["absent:x"]
    assert "PluginError: the plugin 'misspelled' (posterax-misspelled 1.0) is broken" in said["misspelled:x"]
    assert "PluginError: the plugin 'tomorrow' (posterax-tomorrow 1.0) is incompatible" in said["tomorrow:x"]
    assert "numpyro:nuts (posterax " in said["nuts"]
    assert "rival:nuts (posterax-rival 1.0)" in said["nuts"]


def test_the_strangers_own_tests_pass_where_it_is_installed(installed, call, tmp_path):
    told = call(
        *(installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"),
        *("-c", THIRD_PARTY / "pyproject.toml", THIRD_PARTY / "tests"),
        cwd=tmp_path,
    )
    assert " passed" in told
    assert "skipped" not in told


@pytest.mark.slow
def test_pip_installs_it_with_all_its_dependencies(wheels, call, tmp_path):
    # Needs a package index.
    venv.create(tmp_path / "env", with_pip=True)
    home = tmp_path / "env" / "bin"
    call(
        home / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *wheels,
        cwd=tmp_path,
    )
    call(home / "python", "-m", "pip", "check", cwd=tmp_path)
    listing = json.loads(call(home / "posterax", "plugins", "--json", cwd=tmp_path))
    assert {plugin["id"]: plugin["state"] for plugin in listing["plugins"]} == dict.fromkeys(
        [*ENTRY_POINTS, "slice"], "ok"
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import jax.numpy as jnp, jax.random as jr\nfrom posterax import Target, get, sample\n"
        "target = Target(lambda x: -0.5 * jnp.sum(x['x'] ** 2), like={'x': jnp.zeros(2)})\n"
        "for name in ('nuts', 'elliptical-slice'):\n"
        "    sample(get(name)(num_warmup=100), target, num_draws=100, key=jr.key(0))\n"
    )
    call(home / "python", "-W", "error", script, cwd=tmp_path)
