"""What a section of the demo writes to: words, tables of estimate beside truth, pictures and files, as HTML."""

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ._arviz import save_plot, write_netcdf
from ._draws import Draws

# A section compares some fifty figures; a correct program passes 5 standard errors about once in 30,000 such sections.
FAR = 5.0


class Report:
    """What a demo section writes to: words, tables of estimate and truth, pictures, and files.

    - `folder`: where the section's own files go.
    """

    def __init__(self, title: str, folder: Path):
        self.folder = folder
        self.num_far = 0
        self._title = title
        self._html: list[str] = []
        self._began = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Tell what is being done, and when."""
        print(f"  [{time.perf_counter() - self._began:5.1f} s] {text}", flush=True)
        self._html.append(f"<p>{escape(text)}</p>")

    def compare(
        self,
        caption: str,
        rows: Sequence[tuple[str, float, float, float]],
    ) -> None:
        """A table of estimate, truth and error. Errors beyond five standard errors are marked and fail the demo.

        - `rows`: (name, estimate, its standard error, truth). NaN for a standard error that nobody knows.
        """
        head = ("", "estimate", "truth", "error", "std. errors")
        body = []
        for name, estimate, se, truth in rows:
            error = estimate - truth
            far = not np.isfinite(error) or abs(error) > FAR * se
            self.num_far += int(far)
            scaled = f"{error / se:+.1f}" if np.isfinite(se) and se > 0 else "-"
            body.append((name, _number(estimate), _number(truth), _number(error), scaled + (" FAR" if far else "")))
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(5)]
        print(f"\n  {caption}")
        for row in [head, *body]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            print("    " + "  ".join(cells).rstrip())
        print(flush=True)
        cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in body)
        heads = "".join(f"<th>{escape(c)}</th>" for c in head)
        self._html.append(f"<table><caption>{escape(caption)}</caption><tr>{heads}</tr>{cells}</table>")

    def compare_draws(self, caption: str, draws: Draws, problem: Any, names: Sequence[str]) -> None:
        """A table of posterior means and standard deviations beside the exact ones of `problem`."""
        self.compare(caption, list(_moments(draws, problem.mean, problem.sd, names)))

    def picture(self, name: str, draw: Callable[[Path], Any], caption: str) -> None:
        """A picture in the file `name.png`, made by `draw(path)`."""
        path = self.folder / f"{name}.png"
        draw(path)
        place = f"{self.folder.name}/{path.name}"
        self._html.append(f'<figure><img src="{place}"><figcaption>{escape(caption)}</figcaption></figure>')

    def results(self, tree: Any, *, var_names: Sequence[str]) -> None:
        """A DataTree as netCDF, with its trace, rank and forest plots."""
        write_netcdf(tree, self.folder / "draws.nc")
        for kind, caption in _PLOTS.items():
            self.picture(kind, lambda path, kind=kind: save_plot(tree, kind, path, var_names=var_names), caption)
        self.say(f"wrote draws.nc, {', '.join(f'{kind}.png' for kind in _PLOTS)} to {self.folder}")

    def html(self) -> str:
        """The section as HTML."""
        return f"<section><h2>{escape(self._title)}</h2>{''.join(self._html)}</section>"


_PLOTS = {
    "trace": "Trace: chains should look alike and wander freely.",
    "rank": "Ranks: lines inside the band mean that no chain differs from the others.",
    "forest": "Forest: posterior intervals.",
}


def _number(x: float) -> str:
    return f"{x:.4g}"


def _moments(draws: Draws, means: Mapping, sds: Mapping, names: Sequence[str]):
    from ._arviz import entry_name, mcse

    estimated = {"mean": draws.mean(), "sd": draws.sd()}
    errors = mcse(draws)
    for name in names:
        for index in np.ndindex(np.shape(means[name])):
            entry = entry_name(name, index, draws.labels)
            for figure, exact in (("mean", means), ("sd", sds)):
                estimate, error = estimated[figure][name][index], errors[figure][name][index]
                yield f"{entry} {figure}", float(estimate), float(error), float(np.asarray(exact[name])[index])
