"""What the author of a plugin imports: the standard library and pluggy, nothing else.

A plugin is a light module that says what it has, as data:

    from posterax.plugin import ComponentSpec, hookimpl

    @hookimpl
    def posterax_components():
        return [
            ComponentSpec(
                "elliptical-slice",
                kind="sampler",
                target="posterax_slice._elliptical:EllipticalSlice",
                summary="Elliptical slice sampling: no step size, no tuning.",
            )
        ]

and its distribution points at that module. The name on the left is the plugin's id, so the sampler above is
`slice:elliptical-slice`:

    [project.entry-points."posterax.plugins"]
    slice = "posterax_slice"

`target` is imported when the component is first asked for. So the module, and the package it lies in, must
not import JAX: resolve public names lazily (`lazy`). `posterax plugins` shows whether all went well.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import KW_ONLY, dataclass

import pluggy

from ._lazy import lazy as lazy

__all__ = [
    "API_VERSION",
    "ComponentSpec",
    "DemoSpec",
    "PluginInfo",
    "SubcommandSpec",
    "hookimpl",
    "lazy",
    "posterax_components",
    "posterax_demos",
    "posterax_plugin_info",
    "posterax_subcommands",
]

API_VERSION = (1, 1)
"""Version of this module's promises, apart from posterax's own. The minor grows when hooks or optional
arguments are added, the major when anything is taken away or changes its meaning."""

GROUP = "posterax.plugins"
"""The entry-point group in which plugins are found."""

hookspec = pluggy.HookspecMarker("posterax")
hookimpl = pluggy.HookimplMarker("posterax")
"""Marks a function as the plugin's answer to the hook of the same name."""

_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _require(spec, argument: str, valid: Callable, expected: str, cure: str) -> None:
    value = getattr(spec, argument)
    if not valid(value):
        raise ValueError(f"{type(spec).__name__}: `{argument}` must be {expected}; got {value!r}. {cure}")


def _require_name(spec, argument: str) -> None:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", str(getattr(spec, argument)))
    kebab = "-".join(words).lower()
    cure = f"Write {kebab!r}." if _KEBAB.fullmatch(kebab) else "Write for example 'elliptical-slice'."
    expected = "lower-case words joined by hyphens, beginning with a letter"
    _require(spec, argument, lambda v: isinstance(v, str) and _KEBAB.fullmatch(v), expected, cure)


def _require_line(spec, argument: str, *, optional: bool = False) -> None:
    def valid(value) -> bool:
        if value is None:
            return optional
        return isinstance(value, str) and bool(value.strip()) and "\n" not in value

    _require(spec, argument, valid, "one line of text" + " or None" * optional, "Say it in one sentence.")


def _require_target(spec, argument: str = "target") -> None:
    cure = "Write for example 'posterax_slice._elliptical:EllipticalSlice'; it is imported only when wanted."
    _require(
        spec,
        argument,
        lambda v: isinstance(v, str) and _TARGET.fullmatch(v),
        "a text 'module:Attribute'",
        cure,
    )


@dataclass(frozen=True)
class ComponentSpec:
    """One thing that a plugin publishes: data only, so that listing it imports nothing.

    - `name`: lower-case words joined by hyphens. Everywhere known as `plugin:name`; the short name works
      while one plugin alone has it.
    - `kind`: `"sampler"`, `"estimator"`, `"objective"`, or the plugin's own, such as `"language-model"`.
    - `target`: `"module:Attribute"`, the class (or function) itself, imported when it is first asked for.
    - `summary`: one line.
    - `tags`: words that others may select by. By some of them the component promises something that
      `posterax.testing` then checks: "exact", "approximate" with "bias=0.1", "amortised"; see `posterax.testing.TAGS`.
    - `extra`: the optional dependency group of the plugin's distribution that `target` needs, if any; an
      error then says `pip install 'distribution[extra]'`.
    - `source`: the paper or page where the method comes from.
    - `example`: `"module:function"`, a function without arguments that makes what `posterax.testing` tries: a small
      instance, or a `posterax.testing.Case`; without it, `target` is called without arguments.

    A value of another form is a `ValueError`.
    """

    name: str
    _: KW_ONLY
    kind: str
    target: str
    summary: str
    tags: Collection[str] = frozenset()
    extra: str | None = None
    source: str | None = None
    example: str | None = None

    def __post_init__(self):
        _require_name(self, "name")
        _require_name(self, "kind")
        _require_target(self)
        _require_line(self, "summary")

        def words(value) -> bool:
            listed = isinstance(value, Collection) and not isinstance(value, str)
            return listed and all(isinstance(tag, str) and tag for tag in value)

        _require(self, "tags", words, "a collection of words", "Write for example tags={'exact'}.")
        object.__setattr__(self, "tags", frozenset(self.tags))
        _require_line(self, "extra", optional=True)
        _require_line(self, "source", optional=True)
        if self.example is not None:
            _require_target(self, "example")


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin says of itself.

    - `summary`: one line.
    - `api`: the `API_VERSION` it was written for, as plain numbers. Another major, or a newer minor, than the
      installed posterax has makes the plugin `incompatible`, before any other hook of it is looked at.
    - `url`: its home page, if it has one.

    A value of another form is a `ValueError`.
    """

    summary: str
    _: KW_ONLY
    api: tuple[int, int] = (1, 0)
    url: str | None = None

    def __post_init__(self):
        def pair(value) -> bool:
            two = isinstance(value, tuple) and len(value) == 2
            return two and all(type(number) is int and number >= 0 for number in value)

        _require_line(self, "summary")
        _require(self, "api", pair, "two whole numbers (major, minor)", f"Write api={API_VERSION}.")
        _require_line(self, "url", optional=True)


@dataclass(frozen=True)
class SubcommandSpec:
    """A command `posterax NAME` that a plugin brings.

    - `name`: lower-case words joined by hyphens; not one of posterax's own commands.
    - `target`: `"module:function"`, imported only when the command is used. The function is called with an
      `argparse.ArgumentParser`, adds its arguments, and returns what is to be run: a function of the parsed
      arguments that returns an exit status, or None for success.
    - `summary`: one line, for `posterax --help`.

          def configure(parser):
              parser.add_argument("--draws", type=int, default=1000)
              return lambda args: print(args.draws)

    A value of another form is a `ValueError`.
    """

    name: str
    _: KW_ONLY
    target: str
    summary: str

    def __post_init__(self):
        _require_name(self, "name")
        _require_target(self)
        _require_line(self, "summary")


@dataclass(frozen=True)
class DemoSpec:
    """A section of `posterax demo`.

    - `name`: lower-case words joined by hyphens, for `--section`.
    - `target`: `"module:function"`, imported when the section is run; called with the report to write to.
    - `summary`: one line.

    A value of another form is a `ValueError`.
    """

    name: str
    _: KW_ONLY
    target: str
    summary: str

    def __post_init__(self):
        _require_name(self, "name")
        _require_target(self)
        _require_line(self, "summary")


# The hooks, none of them with arguments yet: adding one would be compatible, since pluggy passes by keyword,
# and only what a plugin's function asks for. Nothing here runs; pluggy reads the signatures.


@hookspec
def posterax_components() -> Iterable[ComponentSpec]:  # pyright: ignore[reportReturnType]
    """What the plugin publishes. The one hook that every plugin has; an empty list is an answer."""


@hookspec
def posterax_plugin_info() -> PluginInfo:  # pyright: ignore[reportReturnType]
    """What the plugin is. Without it: the first line of the module's docstring, written for API (1, 0)."""


@hookspec
def posterax_subcommands() -> Iterable[SubcommandSpec]:  # pyright: ignore[reportReturnType]
    """Commands that the plugin adds to `posterax`."""


@hookspec
def posterax_demos() -> Iterable[DemoSpec]:  # pyright: ignore[reportReturnType]
    """Sections that the plugin adds to `posterax demo`."""
