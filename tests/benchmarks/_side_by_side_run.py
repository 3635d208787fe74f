"""One work of the side-by-side at all its sizes: sides take turns, and what they say becomes plain data."""

import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import _race
from _side_by_side_tables import growth
from _side_by_side_works import Work
from _timing import Failed, matrix_product, module

_ROUNDS, _LEAST, _SECONDS, _QUICK = 15, 5, 25, 3


def measured(work: Work, pythons: dict[str, Path | _race.Unavailable], quick: bool) -> dict[str, Any]:
    """The figures of every side at every size."""
    with _server(work) as (arguments, begin):
        points = []
        for at in work.points(quick):
            begin(at)
            points.append(_point(work, at, pythons, quick, arguments))
    told = {
        "name": work.name, "title": work.title, "sides": [side.name for side in work.sides],
        "base": dict(work.base), "grown": list(work.grown),
        "measures": [[one.unit, one.briefly] for one in work.measures],
        "points": points,
    }  # fmt: skip
    return {**told, "growth": growth(told)}


@contextmanager
def _server(work: Work):
    """What all programs are told after the sizes, and a function to call before they are started."""
    if not work.served:
        yield (), lambda at: None
        return
    with module("its_hub").server() as (port, begin):
        yield (port,), lambda at: begin(at["N"])


def _point(work: Work, at: dict[str, int], pythons: dict, quick: bool, arguments: tuple[int, ...]) -> dict[str, Any]:
    """All sides at one size. A side that breaks is left out, and it is said why."""
    sides: dict[str, dict] = {side.name: {} for side in work.sides}
    runs: dict[str, list[dict[str, float]]] = {}
    products: list[float] = []
    with ExitStack() as stack:
        children = _started(work, at, pythons, sides, arguments, stack)
        began = time.monotonic()
        while len(products) < (_QUICK if quick else _ROUNDS):
            if len(products) >= _LEAST and time.monotonic() - began > _SECONDS:
                break
            products.append(1e3 * matrix_product())
            for child in _race.in_turn(list(children), len(products)):
                try:
                    runs.setdefault(child.label, []).append({"seconds": child.seconds(), **child.told})
                except Failed as error:
                    sides[child.label] = {"skipped": f"failed: {error}"}
                    children.remove(child)
        values = {child.label: child.value for child in children}
    for name in values:
        sides[name]["samples"] = {one.unit: [one.of(run) for run in runs[name]] for one in work.measures}
    _compare(sides)
    point = {"at": at, "rounds": len(products), "product_ms": quartiles(products), "sides": sides}
    try:
        if work.sides[0].name not in values:
            raise RuntimeError(f"{work.sides[0].name} did not run")
        return {**point, "check": work.check(at, values)}
    except RuntimeError as error:
        return {**point, "wrong": str(error)}


def _started(work: Work, at, pythons, sides, arguments, stack: ExitStack) -> list[_race.Child]:
    """The processes of all sides that can be had, after their first computation."""
    children = []
    for side in work.sides:
        python = pythons[side.environment] if side.environment else sys.executable
        if isinstance(python, _race.Unavailable):
            sides[side.name]["skipped"] = str(python)
            continue
        program = " ".join(map(str, (side.program, *(at[letter] for letter in work.base), *arguments)))
        children.append(stack.enter_context(_race.Child(side.name, python, "_side_by_side_programs.py", program)))
    for child in list(children):
        try:
            child.ready()
        except Failed as error:
            sides[child.label]["skipped"] = f"failed: {error}"
            children.remove(child)
        else:
            sides[child.label]["mib"] = [child.before, child.peak - child.before]
    return children


def _compare(sides: dict[str, dict]) -> None:
    """Quartiles of every figure, and of the ratios of ours to a peer's, round by round."""
    ours, *others = sides.values()
    for side in sides.values():
        if "samples" in side:
            side["quartiles"] = {unit: quartiles(samples) for unit, samples in side["samples"].items()}
    for side in others:
        if "samples" in side and "samples" in ours:
            pairs = {
                unit: zip(ours["samples"][unit], samples, strict=True) for unit, samples in side["samples"].items()
            }
            side["ratio"] = {unit: quartiles([a / b for a, b in both]) for unit, both in pairs.items()}


def quartiles(samples: list[float]) -> list[float]:
    return statistics.quantiles(samples, n=4, method="inclusive")
