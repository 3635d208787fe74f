"""The house stands as pyproject.toml says, and imports run one way."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {
    layer: sorted(init.parent for init in (ROOT / layer).glob("*/__init__.py"))
    for layer in ("core", "models", "plugins")
}
CORE, MODELS = (PACKAGES[layer][0].name for layer in ("core", "models"))
SHIPPED = sorted(
    file for folder in (*PACKAGES, "examples") for file in (ROOT / folder).rglob("*.py") if "tests" not in file.parts
)
# What each package may import of ours, besides itself.
ALLOWED = {CORE: set(), MODELS: {CORE}} | {folder.name: {CORE, MODELS} for folder in PACKAGES["plugins"]}


def tree(file):
    return ast.parse(file.read_text(), str(file))


def imported(file):
    """The full names of all modules that a file imports, absolute, wherever in it."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            inside = [folder for folder in file.parents if (folder / "__init__.py").exists()]
            assert node.level <= len(inside), f"{file} line {node.lineno}: a relative import that leaves its package"


def switches(file):
    """The lines where a file sets the precision of the whole process, or of a block. To read it is fine."""
    names = {"enable_x64", "disable_x64"}
    for node in ast.walk(tree(file)):
        called = getattr(node, "id", None) in names or getattr(node, "attr", None) in names
        imported = isinstance(node, ast.alias) and node.name in names
        updated = isinstance(node, ast.Constant) and node.value in {"jax_enable_x64", "JAX_ENABLE_X64"}
        written = getattr(node, "attr", None) == "jax_enable_x64" and isinstance(node.ctx, ast.Store)
        if called or imported or updated or written:
            yield node.lineno


def test_each_package_is_named_in_the_wheel():
    # hatchling takes a list only: a glob there silently matches nothing.
    named = CONFIGURATION["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = [folder.relative_to(ROOT).as_posix() for folders in PACKAGES.values() for folder in folders]
    assert sorted(named) == sorted(found)
    assert len(PACKAGES["core"]) == len(PACKAGES["models"]) == 1


def test_each_plugin_has_its_entry_point_and_no_other_has_one():
    points = CONFIGURATION["project"]["entry-points"]["posterax.plugins"]
    names = [folder.name for folder in PACKAGES["plugins"]]
    assert points == {name.removeprefix("posterax_"): name for name in names}


def test_each_package_is_typed():
    for folders in PACKAGES.values():
        for folder in folders:
            assert (folder / "py.typed").exists(), folder


def test_no_folder_above_a_package_is_one_itself():
    # `import core` must not resolve to anything that is ours.
    for layer in PACKAGES:
        assert not (ROOT / layer / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
    "package", [folder for folders in PACKAGES.values() for folder in folders], ids=lambda f: f.name
)
def test_imports_run_one_way(package):
    ours = set(ALLOWED)
    for file in package.rglob("*.py"):
        used = {module.partition(".")[0] for module in imported(file)} & ours
        wrong = used - ALLOWED[package.name] - {package.name}
        assert not wrong, f"{file.relative_to(ROOT)} imports {wrong}; only {ALLOWED[package.name]} is below it"


def test_core_and_models_do_not_name_a_plugin():
    # Nor as a text to be imported later: the registry is the only way up.
    names = "|".join(folder.name for folder in PACKAGES["plugins"])
    for folder in (*PACKAGES["core"], *PACKAGES["models"]):
        for file in folder.rglob("*.py"):
            for node in ast.walk(tree(file)):
                text = node.value if isinstance(node, ast.Constant) else None
                named = isinstance(text, str) and re.fullmatch(rf"({names})([.:][\w.:]*)?", text)
                assert not named, f"{file.relative_to(ROOT)} line {node.lineno} names the plugin {text!r}"


def test_float64_is_switched_in_one_module_only():
    # A global switch would change every other program in the process.
    home = PACKAGES["core"][0] / "_precision.py"
    assert list(switches(home))  # the test can see one
    for file in SHIPPED:
        lines = list(switches(file))
        assert file == home or not lines, f"{file.relative_to(ROOT)}, line {lines}: leave that to {home.name}"


def test_nothing_is_ever_unpickled():
    forbidden = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
    for file in SHIPPED:
        used = {module.partition(".")[0] for module in imported(file)} & forbidden
        assert not used, f"{file.relative_to(ROOT)} imports {used}"
        for node in ast.walk(tree(file)):
            allows = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            if allows:
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, f"{file.relative_to(ROOT)} allows pickle"
