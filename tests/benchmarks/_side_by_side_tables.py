"""What the side-by-side measured, as text: tables to read in a terminal, growth, and who was faster."""

import math
import statistics
from typing import Any

# A point is what was measured at one size of a work: see `_side_by_side_run`.


def along(work: dict, letter: str) -> list[dict]:
    """The points where only `letter` is not as in the base, by its size."""
    rest = {one: size for one, size in work["base"].items() if one != letter}
    there = [point for point in work["points"] if rest.items() <= point["at"].items()]
    return sorted(there, key=lambda point: point["at"][letter])


def growth(work: dict) -> list[dict]:
    """How figures grow: the slope of log(median) over log(size), by least squares over all sizes."""
    found = []
    for letter in work["grown"]:
        for unit, _ in work["measures"]:
            for side in work["sides"]:
                medians = {
                    point["at"][letter]: point["sides"][side]["quartiles"][unit][1]
                    for point in along(work, letter)
                    if "quartiles" in point["sides"][side]
                }
                slope = _slope(medians)
                if slope is not None:
                    found.append({"by": letter, "unit": unit, "side": side, "slope": slope})
    return found


def _slope(medians: dict[int, float]) -> float | None:
    if len(medians) < 2 or min(medians.values()) <= 0:
        return None
    return statistics.linear_regression([math.log(n) for n in medians], [math.log(m) for m in medians.values()]).slope


def slope_of(work: dict, letter: str, unit: str, side: str) -> float | None:
    key = (letter, unit, side)
    return next((one["slope"] for one in work["growth"] if (one["by"], one["unit"], one["side"]) == key), None)


# Words


def short(value: float) -> str:
    """Three digits."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def spread(quartiles: list[float]) -> str:
    low, middle, high = map(short, quartiles)
    return f"{middle} ({low} to {high})"


def others(work: dict, letter: str) -> str:
    """The sizes that do not grow."""
    return ", ".join(f"{name} = {size:,}" for name, size in work["base"].items() if name != letter)


def text(work: dict) -> str:
    """All tables of a work."""
    lines = [f"{work['name']}: {work['title']}"]
    for letter in work["grown"]:
        for unit, _ in work["measures"]:
            fixed = others(work, letter)
            lines += ["", f"  {unit}{f', {fixed}' if fixed else ''}", *_table(work, letter, unit)]
    lines += ["", "  peak memory, MiB, less that before the first computation", *_memory(work), ""]
    for point in work["points"]:
        at = ", ".join(f"{name} = {size:,}" for name, size in point["at"].items())
        lines.append(f"  {at}: {'WRONG: ' + point['wrong'] if 'wrong' in point else point['check']}")
    reasons = {side: one["skipped"] for p in work["points"] for side, one in p["sides"].items() if "skipped" in one}
    lines += [f"  SKIPPED {side}: {reason}" for side, reason in reasons.items()]
    return "\n".join([*lines, ""])


def _table(work: dict, letter: str, unit: str) -> list[str]:
    ours, *peers = work["sides"]
    rows = [[letter, "rounds", ours, *(cell for peer in peers for cell in (peer, "ratio"))]]
    for point in along(work, letter):
        row = [f"{point['at'][letter]:,}", str(point["rounds"]), _cell(point, ours, "quartiles", unit)]
        for peer in peers:
            row += [_cell(point, peer, "quartiles", unit), _cell(point, peer, "ratio", unit)]
        rows.append(row)
    slopes = [slope_of(work, letter, unit, side) for side in work["sides"]]
    told = ["-" if slope is None else f"{letter}^{slope:.2f}" for slope in slopes]
    rows.append(["growth", "", told[0], *(cell for one in told[1:] for cell in (one, ""))])
    return _aligned(rows)


def _cell(point: dict, side: str, what: str, unit: str) -> str:
    known = point["sides"][side].get(what)
    return spread(known[unit]) if known else "SKIPPED"


def _memory(work: dict) -> list[str]:
    rows = [[*work["grown"], *work["sides"]]]
    for point in work["points"]:
        memory = [point["sides"][side].get("mib") for side in work["sides"]]
        sizes = [f"{point['at'][letter]:,}" for letter in work["grown"]]
        rows.append([*sizes, *(f"{one[1]:,.0f}" if one else "SKIPPED" for one in memory)])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["    " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


# Who was faster


def contests(found: dict[str, Any]) -> list[tuple[str, dict, dict, str, str]]:
    """(verdict, work, point, peer, unit) of every comparison.

    The verdict is "even" where the quartiles of the ratio are on both sides of 1, else "faster" or "slower": ours.
    """
    told = []
    for work in found["works"]:
        for point in work["points"]:
            for peer in work["sides"][1:]:
                for unit, (low, _, high) in point["sides"][peer].get("ratio", {}).items():
                    verdict = "faster" if high < 1 else "slower" if low > 1 else "even"
                    told.append((verdict, work, point, peer, unit))
    return told


def counted(found: dict[str, Any]) -> str:
    """One line."""
    verdicts = [verdict for verdict, *_ in contests(found)]
    points = [point for work in found["works"] for point in work["points"]]
    skipped = sum("skipped" in side for point in points for side in point["sides"].values())
    wrong = sum("wrong" in point for point in points)
    return (
        f"{len(points)} sizes of {len(found['works'])} works, {len(verdicts)} comparisons: posterax faster in "
        f"{verdicts.count('faster')}, even in {verdicts.count('even')}, slower in {verdicts.count('slower')}; "
        f"{skipped} skipped, {wrong} wrong"
    )
