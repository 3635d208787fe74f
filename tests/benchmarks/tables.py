"""Writes what the side-by-side measured into README.md: `python tests/benchmarks/tables.py`.

`python tests/benchmarks/tables.py bench-output/side_by_side.json` first makes that file the committed one,
results/side_by_side.json. The table stands between two comments, and a test holds it to the committed file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from _side_by_side_tables import along, contests, others, short, slope_of

HERE = Path(__file__).parent
RESULTS, README = HERE / "results" / "side_by_side.json", HERE.parents[1] / "README.md"
BEGIN, END = "<!-- side-by-side -->\n", "<!-- /side-by-side -->\n"
_HEAD = (
    "work", "sizes", "beside", "ratio at the least", "ratio at the greatest", "there: ours, theirs", "MiB", "growth",
)  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The table with a line on where it was made before, and one on where posterax is slower after."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    for work in found["works"]:
        for letter in work["grown"]:
            for unit, briefly in work["measures"]:
                if letter == work["grown"][0] or unit == work["measures"][0][0]:
                    lines += ["| " + " | ".join(row) + " |" for row in _rows(work, letter, unit, briefly)]
    return "\n".join([_where(found), "", *lines, "", _slower(found), ""])


def _where(found: dict[str, Any]) -> str:
    machine, versions = found["machine"]
    rounds = sorted({point["rounds"] for work in found["works"] for point in work["points"]})
    number = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"{rounds[0]}"
    quick = "**A quick look on a busy machine: only to show the table.** " if found["quick"] else ""
    return (
        f"{quick}`make bench` on {machine.partition(',')[0]}, {found['minutes']:.0f} minutes, {number} rounds; "
        f"{versions}.\nPeers: {'; '.join(found['peers'].values())}."
    )


def _rows(work: dict, letter: str, unit: str, briefly: str):
    points, ours = along(work, letter), work["sides"][0]
    fixed = others(work, letter)
    sizes = f"{letter} = {points[0]['at'][letter]:,} to {points[-1]['at'][letter]:,}{f', {fixed}' if fixed else ''}"
    for peer in work["sides"][1:]:
        measured = [point for point in points if "ratio" in point["sides"][peer]]
        if not measured:
            yield briefly, sizes, peer, "not measured", "", "", "", ""
            continue
        last = measured[-1]["sides"]
        values = ", ".join(short(last[side]["quartiles"][unit][1]) for side in (ours, peer))
        memory = ", ".join(f"{last[side]['mib'][1]:,.0f}" for side in (ours, peer))
        slopes = [slope_of(work, letter, unit, side) for side in (ours, peer)]
        growth = ", ".join("" if slope is None else f"{slope:.2f}" for slope in slopes)
        least, greatest = (_ratio(measured[i]["sides"][peer]["ratio"][unit]) for i in (0, -1))
        yield briefly, sizes, peer, least, greatest, f"{values} {unit.partition(' ')[0]}", memory, growth


def _ratio(quartiles: list[float]) -> str:
    low, middle, high = (f"{one:.2f}" if one >= 0.1 else f"{one:.2g}" for one in quartiles)
    return f"{middle} ({low} to {high})"


def _slower(found: dict[str, Any]) -> str:
    """Where the whole quartile range of a ratio is above 1."""
    places: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for verdict, work, point, peer, unit in contests(found):
        if verdict == "slower":
            briefly = dict(work["measures"])[unit]
            at = ", ".join(f"{name} = {size:,}" for name, size in point["at"].items())
            places.setdefault((briefly, peer), []).append((at, point["sides"][peer]["ratio"][unit][1]))
    if not places:
        return "posterax is slower nowhere in it."
    told = [
        f"{briefly} beside {peer} ({'; '.join(f'{at}: {ratio:.2f}' for at, ratio in several)})"
        for (briefly, peer), several in places.items()
    ]
    return f"Slower, by all quartiles: {'; '.join(told)}."


def replaced(readme: str, found: dict[str, Any]) -> str:
    """README.md with the table between its comments."""
    before, _, rest = readme.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"README.md needs the lines {BEGIN.strip()!r} and {END.strip()!r}; it lacks at least one.")
    return f"{before}{BEGIN}\n{markdown(found)}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, nargs="?", help="a file that `make bench` wrote, to be committed")
    measured = parser.parse_args().measured
    if measured:
        RESULTS.write_text(measured.read_text())
    README.write_text(replaced(README.read_text(), json.loads(RESULTS.read_text())))
    print(f"wrote {README.name}")


if __name__ == "__main__":
    main()
