"""A published component, and the import of what it names."""

import sys
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from ._discovery import PluginRecord
from ._errors import PluginError, describe, sentence
from .plugin import ComponentSpec, DemoSpec, SubcommandSpec


@dataclass(frozen=True)
class Component:
    """A component and whose it is: the `spec` its plugin published, and that plugin's record, `owner`."""

    spec: ComponentSpec
    owner: PluginRecord

    @property
    def qualified_name(self) -> str:
        """`plugin:name`."""
        return f"{self.owner.id}:{self.spec.name}"

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return self.owner.id

    @property
    def distribution(self) -> str | None:
        """The distribution that brought the plugin; None for what `register` added."""
        return self.owner.distribution

    @property
    def version(self) -> str | None:
        """That distribution's version."""
        return self.owner.version

    def load(self) -> Any:
        """The class or function itself. Raises `PluginError`, with the cure, when it cannot be imported."""
        return resolve(self.spec, self.owner)

    def example(self) -> Any:
        """The function that makes what the conformance kit tries, or None. Raises `PluginError` as `load` does."""
        return None if self.spec.example is None else resolve(replace(self.spec, target=self.spec.example), self.owner)


def resolve(spec: ComponentSpec | SubcommandSpec | DemoSpec, owner: PluginRecord) -> Any:
    """What `spec.target` names, imported now. Raises `PluginError`, with the cure, when that fails."""
    module, _, path = spec.target.partition(":")
    try:
        value = import_module(module)
        for attribute in path.split("."):
            value = getattr(value, attribute)
        return value
    except (Exception, SystemExit) as error:
        extra = getattr(spec, "extra", None)
        if extra and isinstance(error, ImportError):
            cure = f"Run: pip install '{owner.distribution or 'posterax'}[{extra}]'"
        else:
            cure = f"To go without the plugin, set POSTERAX_DISABLE_PLUGINS={owner.id}"
        raise PluginError(
            f"{owner.id}:{spec.name} ({owner.owner}) cannot be imported from {spec.target!r}: "
            f"{sentence(describe(error))} {cure}"
        ) from error


def already_imported(target: str, name: str) -> object:
    """What `target` names, if finding out imports nothing new."""
    module, _, path = target.partition(":")
    value: Any = sys.modules.get(module)
    for attribute in path.split("."):
        # Past `vars`, a lazy package might import: allowed only for the very name that is looked for, whose
        # module is then most likely there already.
        if attribute not in getattr(value, "__dict__", ()) and attribute != name:
            return None
        value = getattr(value, attribute, None)
    return value
