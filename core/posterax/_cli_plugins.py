"""What `posterax plugins` shows, and the forms in which the command line writes: aligned text or JSON."""

import json
import textwrap
import traceback
from collections.abc import Iterable, Sequence

from ._cli import plugin_commands
from ._component import Component
from ._discovery import PluginRecord
from ._registry import Registry
from .plugin import API_VERSION


def plugins(registry: Registry, *, as_json: bool, verbose: bool) -> None:
    """Print every plugin with its state, and with its components or the reason why there are none."""
    records = registry.plugins()
    notes = [*registry.notes(), *plugin_commands()[1]]
    if as_json:
        write_json({"api": list(API_VERSION), "plugins": [record_data(r) for r in records], "notes": notes})
        return
    if not records:
        print("No plugin is installed.")
    else:
        rows = [("PLUGIN", "DISTRIBUTION", "VERSION", "STATE", "SUMMARY")]
        rows += [
            (r.id, r.distribution or "-", r.version or "-", r.state, r.info.summary if r.info else "") for r in records
        ]
        write_table(rows)
    for record in records:
        if record.state == "ok" and not verbose:
            continue
        print(f"\n{record.id} ({record.owner}): {record.state}")
        if record.reason:
            print(_folded(record.reason))
        if verbose:
            api = ".".join(map(str, record.info.api)) if record.info else "?"
            print(f"  module {record.module or '-'}, API {api}, read in {1e3 * record.seconds:.0f} ms")
            for what, specs in (("command", record.subcommands), ("demo", record.demos)):
                for spec in specs:
                    print(f"  {what} {spec.name}: {spec.target}")
            if record.error:
                print(textwrap.indent("".join(traceback.format_exception(record.error)).rstrip(), "    "))
    found = registry.components()
    if found:
        print()
        rows = [("COMPONENT", "KIND", *(("TARGET",) if verbose else ()), "SUMMARY")]
        rows += [(c.qualified_name, c.spec.kind, *((c.spec.target,) if verbose else ()), c.spec.summary) for c in found]
        write_table(rows)
    _notes(notes)


def record_data(record: PluginRecord) -> dict:
    """All about a plugin, for JSON."""
    return {
        "id": record.id,
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "reason": record.reason,
        "summary": record.info.summary if record.info else None,
        "api": list(record.info.api) if record.info else None,
        "url": record.info.url if record.info else None,
        "module": record.module,
        "seconds": round(record.seconds, 4),
        "components": [component_data(Component(spec, record)) for spec in record.components],
        "subcommands": {spec.name: spec.target for spec in record.subcommands},
        "demos": {spec.name: spec.target for spec in record.demos},
    }


def component_data(component: Component) -> dict:
    """All about a component that is known without importing it."""
    spec = component.spec
    return {
        "name": component.qualified_name,
        "kind": spec.kind,
        "summary": spec.summary,
        "distribution": component.owner.owner,
        "tags": sorted(spec.tags),
        "extra": spec.extra,
        "source": spec.source,
        "target": spec.target,
    }


def write_json(value: object) -> None:
    """Print as JSON."""
    print(json.dumps(value, indent=2))


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        print("\n" + _folded(f"note: {note}", indent=""))


def _folded(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text,
        110,
        initial_indent=indent,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows of equal length, their columns aligned."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
