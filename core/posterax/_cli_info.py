"""What `posterax info` shows: the environment, a plugin or a component."""

import inspect
import os
import platform
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version

from ._cli_plugins import component_data, record_data, write_json, write_table
from ._discovery import PluginRecord
from ._errors import PosteraxError, UnknownComponentError, describe
from ._registry import Registry

_PACKAGES = (
    *("posterax", "jax", "jaxlib", "numpyro", "equinox", "optax", "jaxtyping", "pluggy"),
    *("arviz", "arviz-base", "arviz-stats", "arviz-plots", "xarray", "numpy", "scipy"),
)


def environment(registry: Registry, *, as_json: bool, devices: bool) -> None:
    """Print versions, platform, posterax's environment variables and how many plugins are well."""
    states = Counter(record.state for record in registry.plugins())
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("POSTERAX_")},
        "plugins": {state: states[state] for state in ("ok", "disabled", "incompatible", "error")},
    }
    if devices:
        facts["devices"] = _devices()
    if as_json:
        write_json(facts)
        return
    rows = [("Python", facts["python"]), ("platform", facts["platform"])]
    rows += [(name, value or "not installed") for name, value in facts["packages"].items()]
    rows += list(facts["environment"].items())
    rows += [("plugins", ", ".join(f"{n} {state}" for state, n in facts["plugins"].items() if n) or "none")]
    rows += [("device", device) for device in facts.get("devices", ())]
    write_table(rows)
    if states["error"] or states["incompatible"]:
        print("`posterax plugins` says what is wrong with the broken ones.")


def one(registry: Registry, name: str, *, as_json: bool) -> None:
    """Print all about the plugins of that id, or else about the component of that name."""
    records = [record for record in registry.plugins() if record.id == name]
    if records:
        if as_json:
            write_json([record_data(record) for record in records])
        for record in () if as_json else records:
            write_table(_about_plugin(record))
        return
    try:
        component = registry.find(name)
    except UnknownComponentError as error:
        known = ", ".join(sorted({record.id for record in registry.plugins()})) or "none"
        raise UnknownComponentError(f"{error} Plugins: {known}.") from None
    facts, failure = component_data(component), None
    try:
        with redirect_stdout(sys.stderr):
            facts |= _imported(component.load())
    except PosteraxError as error:
        failure = error
    if as_json:
        write_json(facts)
    else:
        settings = facts.pop("settings", None)
        text = facts.pop("docstring", None)
        write_table(
            (key, ", ".join(value) if isinstance(value, list) else value or "-") for key, value in facts.items()
        )
        if text:
            print("\n" + textwrap.indent(text, "  "))
        if settings:
            print("\nsettings")
            write_table([("  " + s["name"], s["default"] or "required", s["type"] or "") for s in settings])
    if failure:  # what is known has been shown; the rest is an error
        raise failure


def _about_plugin(record: PluginRecord) -> Iterable[tuple[str, str]]:
    info = record.info
    yield "plugin", record.id
    yield "distribution", record.owner
    yield "state", record.state
    if record.reason:
        yield "reason", record.reason
    yield "module", record.module or "-"
    if info:
        yield "summary", info.summary
        yield "api", ".".join(map(str, info.api))
        yield "url", info.url or "-"
    for what in ("components", "subcommands", "demos"):
        yield what, ", ".join(spec.name for spec in getattr(record, what)) or "-"


def _imported(thing: object) -> dict:
    """What only the class itself knows: its settings and the first paragraph of its docstring."""
    try:
        parameters = inspect.signature(thing).parameters.values()  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        parameters = ()
    empty = inspect.Parameter.empty
    settings = [
        {
            "name": p.name,
            "default": None if p.default is empty else repr(p.default),
            "type": None if p.annotation is empty else inspect.formatannotation(p.annotation),
        }
        for p in parameters
    ]
    return {"settings": settings, "docstring": (inspect.getdoc(thing) or "").partition("\n\n")[0] or None}


def _devices() -> list[str]:
    try:
        import jax

        return [f"{device.platform} {device.id}: {device.device_kind}" for device in jax.devices()]
    except Exception as error:
        raise PosteraxError(f"JAX finds no devices: {describe(error)}") from error


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
