"""What `posterax new` does: it writes a plugin project that works, to be changed piece by piece."""

import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from ._errors import PosteraxError
from ._registry import Registry
from ._scaffold import Project


def new(registry: Registry, name: str, *, output: str, usage: Callable[[str], NoReturn]) -> None:
    """Write the project of a plugin of that name into the folder `output`, and say what comes next.

    - `usage`: called with what is wrong with the arguments.
    """
    try:
        project = Project(name)
    except ValueError as error:
        usage(f"argument NAME: {str(error).partition(': ')[2]}")
    if name == "posterax" or name.startswith("posterax-"):
        shorter = name.removeprefix("posterax").removeprefix("-") or "elliptical-slice"
        usage(f"argument NAME: 'posterax-' is put before the name by itself; got {name!r}. Write {shorter!r}.")
    if name == "local":
        usage("argument NAME: 'local' is kept for what a program registers itself. Choose another name.")
    _require_free(registry, project)
    folder, files = project.write(Path(output))
    print(f"wrote {folder}")
    for file in files:
        print(f"  {file}")
    print(
        "\nnext\n"
        f"  cd {shlex.quote(str(folder))}\n"
        "  pip install -e '.[test]'\n"
        "  pytest                    # the conformance kit, about a minute\n"
        f"  posterax check {name:11}# the same on the command line; --level standard for more\n"
        "\nThe three components work; README.md says how to change or delete each."
    )


def _require_free(registry: Registry, project: Project) -> None:
    for record in registry.plugins():
        if record.id.replace("_", "-") == project.name:
            raise PosteraxError(
                f"{project.name!r} is the id of an installed plugin, {record.owner}. Choose another name."
            )
    if find_spec(project.package) is not None:
        raise PosteraxError(f"a package {project.package!r} is installed already. Choose another name.")
