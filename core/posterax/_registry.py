"""Components by name. Nothing is looked for until the first question; then each plugin is read once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import invalidate_caches
from typing import Any

from ._component import Component, already_imported
from ._discovery import Choice, PluginRecord, discover
from ._errors import PluginError, UnknownComponentError, near, sentence
from .plugin import ComponentSpec


class Registry:
    """The installed plugins, read at the first question and again on `reload`, and what `register` added."""

    def __init__(self, *, discovers: bool = True):
        self._discovers = discovers
        self._records: dict[str, list[PluginRecord]] | None = None
        self._registered: dict[str, PluginRecord] = {}
        self._choice = Choice()
        self._lock = threading.RLock()
        self._loading = False

    # --- filling

    def plugins(self) -> list[PluginRecord]:
        """A record of every plugin, broken ones included."""
        records = [record for group in self._installed().values() for record in group]
        return sorted([*records, *self._registered.values()], key=lambda record: record.id)

    def reload(self) -> None:
        """Look anew at the environment when next asked: for plugins installed or mended meanwhile."""
        with self._lock:
            invalidate_caches()
            self._records = None

    def register(self, spec: ComponentSpec, *, plugin: str = "local") -> Component:
        """Add one component for as long as this process lives; see `posterax.register`."""
        if not isinstance(spec, ComponentSpec):
            raise ValueError(f"`spec` must be a ComponentSpec; got {spec!r}. Write ComponentSpec(name, kind=..., ...).")
        if not isinstance(plugin, str) or not plugin or ":" in plugin:
            raise ValueError(f"`plugin` must be a plugin id; got {plugin!r}. Leave it out for 'local'.")
        with self._lock:
            if plugin in self._installed():
                owners = " and ".join(record.owner for record in self._installed()[plugin])
                raise PluginError(
                    f"the plugin id {plugin!r} belongs to {owners}. Leave `plugin` out, or choose another id."
                )
            record = self._registered.get(plugin) or PluginRecord(plugin)
            for old in record.components:
                if old.name == spec.name and old != spec:
                    raise PluginError(
                        f"{plugin}:{spec.name} is registered already, as {old}; got {spec}. Choose another name."
                    )
            if spec not in record.components:
                record = replace(record, components=(*record.components, spec))
                self._registered[plugin] = record
            return Component(spec, record)

    def _installed(self) -> dict[str, list[PluginRecord]]:
        with self._lock:
            if self._records is None:
                if self._loading:
                    raise PluginError(
                        "a plugin asked posterax for its components while it was itself being read. "
                        "Ask inside the functions that need them, not at import"
                    )
                self._loading = True
                try:
                    self._choice = Choice()
                    records = discover(self._choice) if self._discovers else []
                finally:
                    self._loading = False
                if os.environ.get("POSTERAX_STRICT_PLUGINS", "").lower() not in ("", "0", "false", "no"):
                    _refuse_broken(records)
                groups: dict[str, list[PluginRecord]] = {}
                for record in records:
                    groups.setdefault(record.id, []).append(record)
                self._records = groups
            return self._records

    # --- asking

    def components(self, kind: str | None = None) -> list[Component]:
        """The usable components, of one kind or of all, in the order of their qualified names."""
        found = [Component(spec, record) for record in self.plugins() for spec in record.components]
        return sorted((c for c in found if kind in (None, c.spec.kind)), key=lambda c: c.qualified_name)

    def find(self, name: str, *, kind: str | None = None) -> Component:
        """The component of that name, not yet imported; see `posterax.get` for names and errors."""
        if not isinstance(name, str):
            raise ValueError(f"`name` must be a text such as 'numpyro:nuts'; got {name!r}. A class needs no registry.")
        plugin, colon, _ = name.partition(":")
        everything = self.components()
        named = [c for c in everything if name == (c.qualified_name if colon else c.spec.name)]
        found = [c for c in named if kind in (None, c.spec.kind)]
        if len(found) == 1:
            return found[0]
        if found:
            raise PluginError(_ambiguous(name, found))
        owners = [record for record in self.plugins() if colon and record.id == plugin]
        if owners and not any(record.state == "ok" for record in owners):
            worst = min(owners, key=lambda record: record.state == "disabled")
            raise _broken(worst) from worst.error
        raise UnknownComponentError(self._unknown(name, kind, named, everything))

    def _unknown(self, name: str, kind: str | None, named: list[Component], everything: list[Component]) -> str:
        if named:
            kinds = " and ".join(f"{c.qualified_name} is of kind {c.spec.kind!r}" for c in named)
            return f"{name!r} is not of kind {kind!r}: {kinds}. Ask for that kind, or leave `kind` out."
        offered = [c for c in everything if kind in (None, c.spec.kind)]
        names = [c.qualified_name for c in offered]
        candidates = names if ":" in name else [c.spec.name for c in offered]
        what = f"component of kind {kind!r}" if kind else "component"
        text = f"no {what} is called {name!r}" + (near(name, candidates) or ".")
        text += f" There are: {', '.join(names)}." if names else " There is none of any name."
        for record in self.plugins():
            # Only broken plugins that might have had it: a qualified name says where it would have been.
            if record.state != "ok" and ":" not in name:
                reason = sentence(record.reason or "")
                text += f" It may belong to the plugin {record.id!r} ({record.owner}), {record.state}: {reason}"
        return text

    def qualified_name(self, thing: object) -> str | None:
        """The registered name of a class, function or instance; see `posterax.qualified_name`."""
        if not hasattr(thing, "__qualname__"):
            thing = type(thing)
        module, name = getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", "")
        everything = self.components()
        found = [c for c in everything if c.spec.target == f"{module}:{name}"]
        found = found or [c for c in everything if already_imported(c.spec.target, name) is thing]
        # Another plugin may offer the same class under a name of its own; the class's home speaks first.
        home = module.partition(".")[0]
        found.sort(key=lambda c: (c.owner.module or "").partition(":")[0].partition(".")[0] != home)
        return found[0].qualified_name if found else None

    def notes(self) -> list[str]:
        """What a user should know though no plugin is broken: ambiguous short names, misspelled variables."""
        by_name: dict[tuple[str, str], list[Component]] = {}
        for component in self.components():
            by_name.setdefault((component.spec.kind, component.spec.name), []).append(component)
        notes = [_ambiguous(name, several) for (_, name), several in by_name.items() if len(several) > 1]
        return notes + list(self._choice.unmatched(self.plugins()) if self._discovers else ())


def _ambiguous(name: str, found: list[Component]) -> str:
    owners = " and ".join(f"{c.qualified_name} ({c.owner.owner})" for c in found)
    return f"{name!r} is the name of {owners}. Ask for one of them by its full name."


def _broken(record: PluginRecord) -> PluginError:
    state = "broken" if record.state == "error" else record.state
    text = f"the plugin {record.id!r} ({record.owner}) is {state}: {sentence(record.reason or '')}"
    if record.state == "error":
        text += f" Mend or upgrade it; to go without it, set POSTERAX_DISABLE_PLUGINS={record.id}."
    return PluginError(text)


def _refuse_broken(records: list[PluginRecord]) -> None:
    for record in records:
        if record.state in ("error", "incompatible"):
            raise _broken(record) from record.error


# --- the one registry, and the public door

_registry: Registry | None = None


def current() -> Registry:
    """The registry in use; made at the first call."""
    global _registry
    if _registry is None:
        _registry = Registry()
    return _registry


def get(name: str, *, kind: str | None = None) -> Any:
    """The class (or function) that is registered under a name, imported now.

    - `name`: `"plugin:name"`, or the short name while one plugin alone has it.
    - `kind`: what it must be, `"sampler"` for example. A short name then need be unique only among these.

    An unknown name is an `UnknownComponentError` that lists what there is. An ambiguous one, a broken plugin,
    or a component that cannot be imported, is a `PluginError` with the cure.
    """
    return current().find(name, kind=kind).load()


def components(kind: str | None = None) -> list[Component]:
    """The usable components, of one kind or of all; imports none of them."""
    return current().components(kind)


def plugins() -> list[PluginRecord]:
    """Every installed plugin with its state, and the reason if it cannot be used."""
    return current().plugins()


def register(spec: ComponentSpec, *, plugin: str = "local") -> Component:
    """Add one component for as long as this process lives: for a notebook, or before there is a package.

    - `spec`: as a plugin would publish it; `target="__main__:MyClass"` in a notebook.
    - `plugin`: the id it is known under, `"local:name"` by default. Not that of an installed plugin.

    Doing so twice changes nothing; another component under the same name is a `PluginError`.
    """
    return current().register(spec, plugin=plugin)


def qualified_name(thing: object) -> str | None:
    """`"plugin:name"` of a registered class or function, or of an instance of such a class; else None."""
    return current().qualified_name(thing)


def reload() -> None:
    """Look for plugins anew at the next question; what `register` added stays."""
    current().reload()


@contextmanager
def isolated(*specs: ComponentSpec, plugin: str = "local") -> Iterator[Registry]:
    """A registry that holds the given components and nothing else, until the block ends. For tests.

    - `specs`: its components, `"local:name"`.
    - `plugin`: the id they are known under.
    """
    global _registry
    before, _registry = _registry, Registry(discovers=False)
    try:
        for spec in specs:
            _registry.register(spec, plugin=plugin)
        yield _registry
    finally:
        _registry = before
