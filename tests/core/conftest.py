import sys
from pathlib import Path
from textwrap import dedent

import pytest
from posterax import _registry

sys.path.insert(0, str(Path(__file__).parent))  # jobs that tests run in other processes are imported by name


class Site:
    """A folder on the path into which plugins are installed as pip would leave them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def install(self, distribution, code, *, plugin=None, module=None, version="1.0", entry_points=None):
        plugin = plugin or distribution.removeprefix("posterax-")
        module = module or f"fake_{distribution.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(dedent(code))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points or f"[posterax.plugins]\n{plugin} = {module}\n")
        return module

    def good(self, distribution, *names, kind="sampler", **options):
        """A healthy plugin: each component is a class of the module that it is published from."""
        module = options.pop("module", None) or f"fake_{distribution.replace('-', '_')}"
        specs = ", ".join(
            f'ComponentSpec("{name}", kind="{kind}", target="{module}:{_class(name)}", summary="S.")' for name in names
        )
        classes = "\n".join(f"class {_class(name)}: pass" for name in names)
        code = f"""from posterax.plugin import ComponentSpec, hookimpl
{classes}
@hookimpl
def posterax_components():
    return [{specs}]
"""
        return self.install(distribution, code, module=module, **options)


def _class(name):
    return name.title().replace("-", "")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_registry, "_registry", None)
    for variable in ("POSTERAX_PLUGINS", "POSTERAX_DISABLE_PLUGINS", "POSTERAX_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]
