"""`posterax demo`: runs the section of every plugin, prints estimates beside the truth, writes a page of results."""

import contextlib
import io
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ._component import resolve
from ._demo_report import FAR, Report
from ._errors import UnknownComponentError, near
from ._registry import plugins


class Made(NamedTuple):
    """A section that has been run."""

    html: str
    good: bool
    out: str = ""  # what it printed, where it ran in a process of its own
    err: str = ""


def main(*, output: str, sections: Sequence[str] | None, processes: int = 1) -> int:
    """Run the demo sections of the installed plugins; 1 if one failed or was far from the truth, else 0.

    - `output`: the folder to write to.
    - `sections`: only these, by name.
    - `processes`: that run sections side by side; what a section says is then printed when it has ended.
    """
    found = _sections()
    if not found:
        print("No installed plugin has a demo section.")
        return 0
    for name in sections or ():
        if name not in found:
            raise UnknownComponentError(
                f"There is no demo section {name!r}{near(name, found) or '.'} There are {sorted(found)}."
            )
    names = [name for name in found if not sections or name in sections]
    folder, began = Path(output), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    processes = min(processes, len(names))
    made = {name: _run(name, folder) for name in names} if processes < 2 else _side_by_side(names, folder, processes)
    page = folder / "index.html"
    page.write_text(_PAGE.format(body="".join(made[name].html for name in names)), encoding="utf-8")
    failed = [name for name in names if not made[name].good]
    verdict = f"failed: {', '.join(failed)}" if failed else "all figures agree with the truth"
    print(f"{len(names)} sections in {time.perf_counter() - began:.0f} s, {verdict}. The page is {page}.")
    return 1 if failed else 0


def _sections() -> dict[str, tuple[Any, Any]]:
    """All sections by name, with the plugin's where two have the same."""
    offered = [(spec, record) for record in plugins() for spec in record.demos]
    names = [spec.name for spec, _ in offered]
    return {
        spec.name if names.count(spec.name) == 1 else f"{record.id}-{spec.name}": (spec, record)
        for spec, record in offered
    }


def _run(name: str, folder: Path) -> Made:
    """One section, here."""
    import matplotlib

    matplotlib.use("Agg")
    spec, record = _sections()[name]
    print(f"{name} ({record.owner}): {spec.summary}", flush=True)
    report, good = Report(f"{name}: {spec.summary}", folder / name), True
    try:
        resolve(spec, record)(report)
    except Exception as error:
        good = False
        report.say(f"FAILED: {type(error).__name__}: {error}")
        traceback.print_exc()
    if report.num_far:
        good = False
        report.say(f"FAILED: {report.num_far} figures above, more than {FAR:g} standard errors from the truth.")
    return Made(report.html(), good)


def _side_by_side(names: Sequence[str], folder: Path, processes: int) -> dict[str, Made]:
    """Sections in processes of their own, printed as they end: one of them leaves cores idle while it compiles."""
    made = {}
    print(f"{len(names)} sections, {processes} at a time; each is printed when it is done.", flush=True)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_heard, name, folder): name for name in names}
        for future in as_completed(waiting):
            name = waiting[future]
            try:
                made[name] = future.result()
            except BrokenProcessPool:
                words = f"{name}: FAILED: its process ended, or that of the section beside it; try --jobs 1."
                made[name] = Made(f"<section><p>{escape(words)}</p></section>", False, f"{words}\n")
            print(made[name].out, end="", flush=True)
            print(made[name].err, end="", flush=True, file=sys.stderr)
    return made


def _heard(name: str, folder: Path) -> Made:
    """One section, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        made = _run(name, folder)
    return made._replace(out=out.getvalue(), err=err.getvalue())


_PAGE = """<!doctype html><meta charset="utf-8"><title>posterax demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; font-weight: 600 }} td, th {{ padding: .1rem .8rem; text-align: right }}
td:first-child {{ text-align: left }} tr:nth-child(even) {{ background: #f4f4f4 }}
img {{ max-width: 100% }} figcaption {{ color: #555 }} p {{ margin: .2rem 0 }}
</style><h1>posterax demo</h1>{body}
"""
