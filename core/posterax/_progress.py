"""Progress bars: rich, on a terminal or in a notebook, and nothing anywhere else."""

import sys
from typing import Self


class Progress:
    """A bar that may be absent: `with Progress(show, total, "nuts") as bar: bar.update(10, "...")`.

    - `show`: True, False, or None for "where somebody is looking".
    - `total`: how many steps there are, or None where nobody knows.
    """

    def __init__(self, show: bool | None, total: int | None, title: str):
        self._bar = _make_bar() if (_somebody_looks() if show is None else show) else None
        self._task = None if self._bar is None else self._bar.add_task(title, total=total, note="compiling")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()

    def update(self, completed: int, note: str = "") -> None:
        """Show `completed` steps, and a few words."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=completed, note=note)


def _somebody_looks() -> bool:
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _make_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Bar(*columns, console=Console(stderr=not _in_notebook()))
