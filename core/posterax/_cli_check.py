"""What `posterax check` does: the conformance kit on the components of a plugin."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn

from ._cli_plugins import write_json, write_table
from ._component import Component
from ._errors import PosteraxError, UnknownComponentError, describe
from ._registry import Registry
from .testing._subject import KINDS

Usage = Callable[[str], NoReturn]
Planned = list[tuple[Component, list]]


def check(
    registry: Registry,
    name: str,
    *,
    level: str,
    seed: int,
    only: Collection[str],
    as_json: bool,
    as_list: bool,
    usage: Usage,
) -> int:
    """Check the components that `name` stands for, or list their checks; returns the exit status.

    - `usage`: called with what is wrong with the arguments.
    """
    found = chosen(registry, name)
    others = {c.qualified_name: c.spec.kind for c in found if c.spec.kind not in KINDS}
    if len(others) == len(found):
        kinds = ", ".join(f"{other} is of kind {kind!r}" for other, kind in others.items()) or "it has no components"
        raise PosteraxError(f"nothing of {name!r} can be checked: {kinds}. There are checks for {', '.join(KINDS)}.")
    planned = _planned([c for c in found if c.spec.kind in KINDS], level, only, usage)
    if as_list:
        _list(planned, others, level, as_json)
        return 0
    with _ending_at_ctrl_c():
        return _run(planned, others, name, level, seed, only, as_json)


def chosen(registry: Registry, name: str) -> list[Component]:
    """All components of the plugin of that id, or else the component of that name."""
    records = [record for record in registry.plugins() if record.id == name]
    if any(record.state == "ok" for record in records):
        return [component for component in registry.components() if component.plugin == name]
    if records:
        registry.find(f"{name}:?")  # raises, with the reason why the plugin cannot be used
    try:
        return [registry.find(name)]
    except UnknownComponentError as error:
        known = ", ".join(sorted({record.id for record in registry.plugins()})) or "none"
        raise UnknownComponentError(f"{error} Plugins: {known}.") from None


def _planned(components: list[Component], level: str, only: Collection[str], usage: Usage) -> Planned:
    """Each component with the checks that its tags call for; imports none of them."""
    from .testing import checks

    known = {check.name for component in components for check in checks(component.spec.kind)}
    if unknown := sorted(set(only) - known):
        usage(f"argument --only: there is no check {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    planned = [
        (
            component,
            [
                check
                for check in checks(component.spec.kind)
                if check.applies(component.spec.tags, level) and (not only or check.name in only)
            ],
        )
        for component in components
    ]
    if only and not any(made for _, made in planned):
        names = ", ".join(component.qualified_name for component in components)
        usage(f"argument --only: the tags of {names} call for none of these at level {level}; raise --level")
    return [(component, made) for component, made in planned if made or not only]


def _list(planned: Planned, others: dict[str, str], level: str, as_json: bool) -> None:
    if as_json:
        write_json({"level": level, "components": [_listed(*pair) for pair in planned], "not_covered": others})
        return
    for component, made in planned:
        print(f"{component.spec.kind} {component.qualified_name}, level {level}: {len(made)} checks\n")
        if made:
            write_table([(f"  {check.name}", check.summary) for check in made])
            print()
    for name, kind in others.items():
        print(f"{name} is of kind {kind!r}: no checks")


def _listed(component: Component, made: list) -> dict:
    checks = [{"name": c.name, "summary": c.summary, "level": c.level, "statistical": c.statistical} for c in made]
    return {"component": component.qualified_name, "kind": component.spec.kind, "checks": checks}


def _run(
    planned: Planned, others: dict[str, str], name: str, level: str, seed: int, only: Collection[str], as_json: bool
) -> int:
    from .testing._report import _strict

    reports, errors = {}, {}
    for component, made in planned:
        label = component.qualified_name
        print(f"posterax: {label}: {len(made)} checks", file=sys.stderr, flush=True)
        try:
            report = _report(component, level, seed, [check.name for check in made] if only else None)
        except Exception as error:
            errors[label] = _said(error)
            print(f"posterax: error: {label}: {errors[label]}", file=sys.stderr)
            continue
        reports[label] = report
        if not as_json:
            print(f"{report}\n", flush=True)
    failed = [label for label, report in reports.items() if not report.passed] + list(errors)
    if as_json:
        plain = [_strict(report.to_dict()) for report in reports.values()]
        facts = {"checked": name, "level": level, "seed": seed, "passed": not failed}
        write_json({**facts, "reports": plain, "errors": errors, "not_covered": others})
    else:
        told = f"{len(planned) - len(failed)} of {len(planned)} components passed, level {level}, seed {seed}"
        told += f"; not passed: {', '.join(failed)}" if failed else ""
        for kind in sorted(set(others.values())):
            names = [other for other, its in others.items() if its == kind]
            who = f"{names[0]} is" if len(names) == 1 else f"{len(names)} components are"
            told += f"; {who} of kind {kind!r}, which has no checks"
        print(told)
    return 1 if failed else 0


def _report(component: Component, level: str, seed: int, only: list[str] | None) -> Any:
    import jax.random as jr

    from . import testing

    check = getattr(testing, f"check_{component.spec.kind}")
    with redirect_stdout(sys.stderr):  # a component that prints must not spoil our output
        return check(component.qualified_name, key=jr.key(seed), level=level, only=only, throw=False)


def _said(error: Exception) -> str:
    """Our own errors in their words; another is a component that broke before a check could catch it."""
    if isinstance(error, (PosteraxError, ValueError)):
        return str(error)
    traceback.print_exception(error)
    return describe(error)


@contextmanager
def _ending_at_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends the process, at once.

    As an exception it does not come through: `sample` takes it for a wish to see the draws so far, and where it falls
    into a callback of JAX it is lost, or the process crashes. So a check would go on, or blame the component.
    """

    def end(signum, frame):
        with suppress(RuntimeError):  # in the midst of another write
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # whoever set another one knows why
        yield
        return
    try:
        signal.signal(signal.SIGINT, end)
    except ValueError:  # not the main thread, which alone is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
