"""Finds the installed plugins and reads them. One that is broken is reported, and hides no other."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points

from ._errors import PluginError, describe, near
from ._hooks import ask
from .plugin import GROUP, ComponentSpec, DemoSpec, PluginInfo, SubcommandSpec

_ID = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    - `id`, `distribution`, `version`: whose it is (the last two are None for what `register` added).
    - `state`: `"ok"`, `"disabled"`, `"incompatible"` or `"error"`; `reason` says why, unless it is ok.
    - `info`, `components`, `subcommands`, `demos`: what it publishes; empty unless it is ok.
    - `module`: where the entry point leads. `seconds`: what reading it took.
    - `error`: the exception that broke it, if one did.
    """

    id: str
    distribution: str | None = None
    version: str | None = None
    state: str = "ok"
    reason: str | None = None
    info: PluginInfo | None = None
    components: tuple[ComponentSpec, ...] = ()
    subcommands: tuple[SubcommandSpec, ...] = ()
    demos: tuple[DemoSpec, ...] = ()
    module: str | None = None
    seconds: float = 0.0
    error: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def owner(self) -> str:
        """The distribution and its version, in words."""
        return f"{self.distribution} {self.version}" if self.distribution else "registered in this process"


class Choice:
    """Which plugins the environment allows, by id or distribution name. Asked before anything is imported."""

    def __init__(self):
        self.allowed = self._read("POSTERAX_PLUGINS")
        self.denied = self._read("POSTERAX_DISABLE_PLUGINS") or set()

    @staticmethod
    def _read(variable: str) -> set[str] | None:
        text = os.environ.get(variable)
        return None if text is None else {_plain(name) for name in text.split(",") if name.strip()}

    def refusal(self, record: PluginRecord) -> str | None:
        """Why the plugin is not to be used, or None if it may be."""
        names = {_plain(record.id), _plain(record.distribution or "")}
        if names & self.denied:
            return "named in POSTERAX_DISABLE_PLUGINS; take it out there to use it"
        if self.allowed is not None and not names & self.allowed:
            return "not named in POSTERAX_PLUGINS; add it there, or unset the variable, to use it"
        return None

    def unmatched(self, records: list[PluginRecord]) -> Iterator[str]:
        """A sentence for each name in the variables that no installed plugin bears."""
        known = {_plain(name) for record in records for name in (record.id, record.distribution or "")} - {""}
        for variable, names in (
            ("POSTERAX_PLUGINS", self.allowed),
            ("POSTERAX_DISABLE_PLUGINS", self.denied),
        ):
            for name in sorted((names or set()) - known):
                yield f"{variable} names {name!r}, and no installed plugin or distribution is called that" + (
                    near(name, known) or "."
                )


def discover(choice: Choice) -> list[PluginRecord]:
    """A record of every installed plugin, in the order of their ids. Imports those that `choice` allows."""
    found = {}
    for point in entry_points(group=GROUP):
        name, version = (point.dist.name, point.dist.version) if point.dist else ("an unnamed distribution", "?")
        record = PluginRecord(point.name, name, version, module=point.value)
        found[point.name, _plain(name), point.value] = (record, point)
    refusals = {key: choice.refusal(record) for key, (record, _) in found.items()}
    owners = Counter(key[0] for key, refusal in refusals.items() if not refusal)
    records = []
    for key, (record, point) in sorted(found.items()):
        if refusals[key]:
            records.append(replace(record, state="disabled", reason=refusals[key]))
        elif owners[record.id] > 1:
            rivals = " and ".join(
                f"{other.owner} ({other.module})"
                for rival, (other, _) in sorted(found.items())
                if rival[0] == record.id and not refusals[rival]
            )
            reason = (
                f"the plugin id {record.id!r} is claimed by {rivals}; uninstall one of them, or name its "
                "distribution in POSTERAX_DISABLE_PLUGINS"
            )
            records.append(replace(record, state="error", reason=reason))
        else:
            records.append(_read(record, point))
    return records


def _read(record: PluginRecord, point: EntryPoint) -> PluginRecord:
    """The record with what the plugin publishes, or with what is wrong with it."""
    start = time.perf_counter()
    try:
        if record.id == "local" or not _ID.fullmatch(record.id):
            raise PluginError(
                f"the entry point's name {record.id!r} cannot be a plugin id: lower-case words joined by "
                "hyphens or underscores are wanted, and 'local' is kept for what a program registers itself. "
                "Rename it in the plugin's pyproject.toml"
            )
        changes = ask(record.id, point.load())
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, PluginError) else describe(error)
        changes = {"state": "error", "reason": reason, "error": error}
    return replace(record, **changes, seconds=time.perf_counter() - start)


def _plain(name: str) -> str:
    """A name as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()
