"""Every public name has a docstring, and `make docs` renders it."""

import importlib.util
import inspect
import re
import subprocess
import sys
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules():
    """The modules that the site documents, as `docs/render.py` lists them."""
    source = (ROOT / "docs" / "render.py").read_text()
    listed = re.search(r"^MODULES = \((.*?)^\)", source, flags=re.M | re.S)[1]
    return re.findall(r'"([\w.]+)"', listed)


def public():
    return [(name, each) for name in modules() for each in import_module(name).__all__ if each != "__version__"]


def test_all_packages_are_documented():
    folders = {
        init.parent.name for layer in ("core", "models", "plugins") for init in (ROOT / layer).glob("*/__init__.py")
    }
    assert folders == {name for name in modules() if "." not in name}


def test_every_public_name_has_a_docstring():
    lacking = []
    for module, name in public():
        thing = getattr(import_module(module), name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            home = thing if inspect.isroutine(thing) else vars(thing)  # a class must not live on its base's words
            text = inspect.getdoc(thing) if inspect.isroutine(thing) else home.get("__doc__")
            generated = inspect.isclass(thing) and (text or "").startswith(f"{name}(")  # a dataclass's own
            lacking += [f"{module}.{name}"] * (not text or generated)
    assert not lacking


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("pdoc") is None:
        pytest.skip("pdoc is not installed: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "docs" / "render.py", folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_the_site_has_every_public_name_with_its_docstring(site):
    pages = {module: (site / f"{module.replace('.', '/')}.html").read_text() for module in modules()}
    lacking = []
    for module, name in public():
        found = re.search(rf'<section id="{name}">(.*?)</section>', pages[module], flags=re.S)
        own = found[1].partition("classattr")[0] if found else ""
        lacking += [f"{module}.{name}"] * ('class="docstring"' not in own)
    assert not lacking


@pytest.mark.slow
def test_the_site_has_the_guides_and_its_links_lead_somewhere(site):
    names = {"index", *(page.stem for page in (ROOT / "docs").glob("*.md"))}
    for name in names:
        page = (site / f"{name}.html").read_text()
        assert "FORMULA" not in page
        for place in re.findall(r'<(?:a href|img src)="([^"$]+)"', page):
            file, _, mark = unescape(place).partition("#")
            if not file.startswith(("http", "data:")):
                target = site / file if file else site / f"{name}.html"
                assert target.exists(), f"{name}: {place}"
                assert not mark or f'id="{mark}"' in target.read_text(), f"{name}: {place}"
