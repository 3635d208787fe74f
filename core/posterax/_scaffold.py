"""A plugin project to begin with, written from the files in `_template`."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ._errors import PosteraxError
from .plugin import _require_name

_FILES = {
    "pyproject.txt": "pyproject.toml",
    "readme.txt": "README.md",
    "ignored.txt": ".gitignore",
    "package.txt": "src/@PACKAGE@/__init__.py",
    "typed.txt": "src/@PACKAGE@/py.typed",
    "sampler.txt": "src/@PACKAGE@/_sampler.py",
    "estimator.txt": "src/@PACKAGE@/_estimator.py",
    "objective.txt": "src/@PACKAGE@/_objective.py",
    "conformance.txt": "tests/test_conformance.py",
}


@dataclass(frozen=True)
class Project:
    """A plugin to be written.

    - `name`: its id, lower-case words joined by hyphens; another form is a `ValueError`.
    """

    name: str

    def __post_init__(self):
        _require_name(self, "name")

    @property
    def distribution(self) -> str:
        """What it is called where it is installed from."""
        return f"posterax-{self.name}"

    @property
    def package(self) -> str:
        """What is imported."""
        return self.distribution.replace("-", "_")

    def write(self, parent: Path) -> tuple[Path, list[str]]:
        """Write the project's folder into `parent`; returns the folder, and the files in it.

        Raises `PosteraxError` where something is there already, or cannot be written.
        """
        folder = parent / self.distribution
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise PosteraxError(f"{folder} is there already. Remove it, or choose another folder by --output.")
            for template, path in _FILES.items():
                file = folder / self._filled(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                text = (files("posterax") / "_template" / template).read_text(encoding="utf-8")
                file.write_text(self._filled(text), encoding="utf-8")
        except OSError as error:
            raise PosteraxError(f"{folder} cannot be written: {error}. Choose another folder by --output.") from error
        return folder, [self._filled(path) for path in _FILES.values()]

    def _filled(self, text: str) -> str:
        words = {"@NAME@": self.name, "@DISTRIBUTION@": self.distribution, "@PACKAGE@": self.package}
        for word, meaning in words.items():
            text = text.replace(word, meaning)
        return text
