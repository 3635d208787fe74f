"""What is checked: a component, its tags, and how an instance of it is made."""

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .._errors import PosteraxError, describe
from .._registry import Component, current

KINDS = ("sampler", "estimator", "objective")


@dataclass(frozen=True)
class Subject:
    """A component as the checks see it.

    - `name`: `plugin:name` where registered, else the class's own.
    - `thing`: an instance, or a `Case` that holds one.
    - `component`: its registration, if there is one.
    """

    name: str
    kind: str
    tags: frozenset[str]
    thing: Any
    component: Component | None

    @property
    def instance(self) -> Any:
        """The sampler, estimator or objective itself."""
        return getattr(self.thing, "component", self.thing)

    @property
    def case(self) -> Any:
        """The `Case` that its author gave, or None."""
        return self.thing if hasattr(self.thing, "component") else None

    @property
    def bias(self) -> float:
        """The bias that the tag "bias=..." declares, in posterior standard deviations; 0 without one."""
        declared = [tag.partition("=")[2] for tag in self.tags if tag.startswith("bias=")]
        return float(declared[0]) if declared else 0.0


def subject_of(thing: Any, kind: str, tags: Collection[str] | None) -> Subject:
    """The subject that a name, a class, an instance or a `Case` stands for.

    Raises `ValueError` for what cannot be made an instance of without being told how, or has no tags.
    """
    component = None
    if isinstance(thing, str):
        component = current().find(thing, kind=kind)
    else:
        inner = getattr(thing, "component", thing)
        if (name := current().qualified_name(inner)) is not None:
            component = current().find(name)
            if component.spec.kind != kind:
                raise ValueError(f"{name} is registered as {component.spec.kind!r}, not as {kind!r}.")
    if isinstance(thing, (str, type)):
        thing = _made(component, thing)
    inner = type(getattr(thing, "component", thing))
    if component is None and tags is None:
        raise ValueError(
            f"{inner.__name__} is not registered, so `tags` must say what it promises: "
            "for instance tags={'exact'}. `posterax.testing.TAGS` explains them."
        )
    tags = frozenset(component.spec.tags if tags is None and component is not None else tags or ())
    for tag in tags:
        if tag.startswith("bias="):
            _require_number(tag)
    label = component.qualified_name if component is not None else inner.__qualname__
    return Subject(label, kind, tags, thing, component)


def _made(component: Component | None, thing: Any) -> Any:
    """An instance: what the registration's `example` makes, else the class called without arguments."""
    if component is not None and (maker := component.example()) is not None:
        return maker()
    cls = component.load() if component is not None else thing
    label = component.qualified_name if component is not None else getattr(cls, "__qualname__", repr(cls))
    needed = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{label} cannot be made without {', '.join(needed)}. Pass an instance, or give the ComponentSpec "
            "`example='module:function'`, a function that makes a small one for the checks."
        )
    try:
        return cls()
    except PosteraxError:
        raise
    except Exception as error:
        raise ValueError(
            f"{label}() failed: {describe(error)}. Its defaults should make a usable component."
        ) from error


def _require_number(tag: str) -> None:
    try:
        fine = 0 < float(tag.partition("=")[2]) < 1
    except ValueError:
        fine = False
    if not fine:
        raise ValueError(f"The tag {tag!r} must declare a bias between 0 and 1 posterior sd, such as 'bias=0.1'.")
