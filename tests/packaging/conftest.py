"""From sources to wheels to a fresh environment that has nothing of ours but what is installed there."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest


def _call(*command, **options):
    """Run a command away from the sources, so that nothing but what is installed can be found."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTERAX_", "PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(word) for word in command],
        env=clean | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _build(source, folder):
    """The wheel of a project, built into a folder."""
    _call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    name = tomllib.loads((source / "pyproject.toml").read_text())["project"]["name"].replace("-", "_")
    (wheel,) = folder.glob(f"{name}-[0-9]*.whl")
    return wheel


def _fresh(folder, wheels):
    """The `bin` folder of a fresh environment with these wheels and borrowed dependencies."""
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (site_packages,) = (folder / "env").glob("lib/python3*/site-packages")
    _borrow_dependencies(site_packages, folder / "dependencies")
    home = folder / "env" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", home / "python", "install", "--quiet", "--no-deps", "--no-index")
    _call(*pip, "--no-compile", "--disable-pip-version-check", *wheels, cwd=folder)
    return home


def _borrow_dependencies(site_packages, folder):
    """Show a fresh environment what is installed here, except posterax and what leads to its sources."""
    folder.mkdir()
    for home in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(home).iterdir():
            ours = re.match(r"posterax|_*editable", entry.name) or entry.suffix == ".pth"
            if not ours and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    (site_packages / "dependencies.pth").write_text(f"{folder}\n")


@pytest.fixture(scope="session")
def call():
    return _call


@pytest.fixture(scope="session")
def build():
    return _build


@pytest.fixture(scope="session")
def fresh():
    return _fresh


@pytest.fixture(scope="session")
def own_wheel(tmp_path_factory):
    """Posterax's own wheel, built once."""
    return _build(Path(__file__).parents[2], tmp_path_factory.mktemp("own"))
