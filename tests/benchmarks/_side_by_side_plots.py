"""Pictures of the side-by-side: how time and memory grow, a panel for each work and what grows."""

import math
from pathlib import Path
from typing import Any

from _side_by_side_tables import along, others

_OURS, _PEERS = "#c1272d", ("#1f5a94", "#e08e1b", "#4d8b57")
_TITLES = {
    "nuts": "NUTS, D correlated normals", "filter": "Bootstrap particle filter", "gram": "NNGP Gram matrix",
    "evidence": "Log evidence with gradient", "gaps": "Jump process, likelihood slopes", "marginal": "Log marginals",
    "training": "50 training steps", "language": "Language filter, paced server",
}  # fmt: skip


def plot(found: dict[str, Any], folder: Path) -> list[Path]:
    """The pictures of time and memory; the paths."""
    grown = [(work, letter) for work in found["works"] for letter in work["grown"]]
    times = [(work, letter, unit) for work, letter in grown for unit, _ in work["measures"]]
    memory = [(work, letter, None) for work, letter in grown]
    return [
        _figure(times, found, folder / "side_by_side.png", "time, medians and quartiles"),
        _figure(memory, found, folder / "side_by_side_memory.png", "peak memory less that before the computation"),
    ]


def _figure(panels: list, found: dict[str, Any], path: Path, what: str) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.5 * columns, 2.9 * rows + 0.5), layout="constrained", squeeze=False
    )
    figure.get_layout_engine().set(hspace=0.06, wspace=0.05)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, *panel)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    machine = found["machine"][0].partition(",")[0]
    figure.suptitle(f"posterax beside its peers{', a quick look' if found['quick'] else ''}: {what}; {machine}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _panel(axis, work: dict, letter: str, unit: str | None) -> None:
    points, seen = along(work, letter), []
    for number, side in enumerate(work["sides"]):
        levels = {point["at"][letter]: _levels(point["sides"][side], unit) for point in points}
        levels = {size: each for size, each in levels.items() if each}
        if not levels:
            continue
        low, middle, high = zip(*levels.values(), strict=True)
        seen += [*low, *high]
        colour = _OURS if number == 0 else _PEERS[number - 1]
        ours = {"lw": 2.2, "marker": "o", "zorder": 3} if number == 0 else {"lw": 1.4, "marker": "s", "zorder": 2}
        axis.fill_between(list(levels), low, high, color=colour, alpha=0.2, lw=0)
        axis.plot(list(levels), middle, color=colour, ms=4, label=side, **ours)
    axis.set(xscale="log", yscale="log", xlabel=letter)
    if seen:
        _scaled(axis, min(seen), max(seen), len(work["sides"]))
        axis.legend(frameon=False, fontsize=7.5)
    sizes = [point["at"][letter] for point in points]
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.tick_params(labelsize=8)
    axis.xaxis.label.set_size(9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.92", lw=0.6)
    fixed = others(work, letter)
    axis.set_title(f"{_TITLES[work['name']]}{f' ({fixed})' if fixed else ''}\n", loc="left", fontsize=9)
    axis.text(0, 1.03, unit or "MiB", transform=axis.transAxes, fontsize=8, color="0.4")


def _levels(side: dict, unit: str | None) -> list[float] | None:
    """Low, middle and high."""
    if unit is None:
        return [max(1.0, side["mib"][1])] * 3 if "mib" in side else None
    return side["quartiles"][unit] if "quartiles" in side else None


def _scaled(axis, low: float, high: float, sides: int) -> None:
    """Room for a factor of ten at least, so that what is flat looks flat, and for the legend; round labels."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    room = max(1.3, math.sqrt(10 * low / high))
    low, high = low / room, high * room
    high *= (high / low) ** (0.09 * sides)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if high / low > 1000 else (1, 3) if high / low > 50 else (1, 2, 5)
    axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
