"""Writes the site: README.md as its first page, the guides of this folder, and API pages from the docstrings.

python docs/render.py [FOLDER]
"""

import html
import inspect
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pdoc
from jaxtyping import PRNGKeyArray
from pdoc import doc, doc_ast, render, render_helpers

ROOT = Path(__file__).parents[1]
PAGES = {"index": "README.md"} | {page.stem: f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))}
MODULES = (
    *("posterax", "posterax.plugin", "posterax.testing", "posterax.weights", "posterax_models"),
    *("posterax_numpyro", "posterax_distribution_transformer", "posterax_marginalization", "posterax_mjp"),
    *("posterax_nngp", "posterax_particles", "posterax_particles.language"),
)
_MATH = re.compile(r"```.*?^```|`[^`\n]+`|(\$\$.+?\$\$|\$[^\s$](?:[^$\n]|\n(?!\n))*?(?<!\s)\$)", flags=re.M | re.S)


def main(folder: Path) -> None:
    """Write all pages into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in MODULES:
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)  # lazy until now, and pdoc reads only what is there
        for home, publics in getattr(module, "_HOMES", {}).items():  # words below a constant stand where it is made
            words = doc_ast.walk_tree(import_module(f"{name}.{home}")).var_docstrings
            known = {public: words[public] for public in publics if public in words}
            doc.Module.from_name(name)._var_docstrings.update(known)
    render.configure(
        docformat="markdown", math=True, show_source=False, template_directory=ROOT / "docs" / "templates",
        footer_text=f"posterax {import_module('posterax').__version__}",
    )  # fmt: skip
    render.env.filters["to_html"] = to_html
    render.env.globals["guides"] = {name: title(path) for name, path in PAGES.items()}
    render.env.globals["readme"] = page("index", "README.md")
    named = patch("inspect.formatannotation", annotation), patch("pdoc.doc.formatannotation", annotation)
    with named[0], named[1]:
        pdoc.pdoc(*MODULES[:1], *MODULES[4:], r"!.*\._", *MODULES[1:4], output_directory=folder)
    for file in folder.rglob("*.html"):
        file.write_text(file.read_text().replace("equinox._module._module.Module", "equinox.Module"))
    for name, path in PAGES.items():
        if name != "index":
            text = render.env.get_template("page.html.jinja2").render(
                all_modules=MODULES, page=page(name, path), page_title=title(path), root_module_name=None
            )
            (folder / f"{name}.html").write_text(text)
    shutil.copytree(ROOT / "docs" / "pictures", folder / "pictures")


def annotation(kind: Any, *rest: Any, _format: Any = inspect.formatannotation, **more: Any) -> str:
    """A type as our sources write it."""
    text = _format(kind, *rest, **more).replace(_format(PRNGKeyArray), "PRNGKeyArray")
    return re.sub(r"\b(jaxtyping|typing|(jax\.)?jaxlib\._jax|numpyro(\.\w+)*|posterax\w*(\.\w+)*)\.(?=\w)", "", text)


def title(path: str) -> str:
    """The first heading of a page."""
    return re.search(r"^# (.*)", (ROOT / path).read_text(), flags=re.M)[1]


def page(name: str, path: str) -> str:
    """A page as HTML. Links to other pages lead to these; those to what the site does not have are mere words."""

    def link(found: re.Match) -> str:
        words, place = found[1], found[2]
        file, _, mark = place.partition("#")
        if re.match(r"https?:", place) or not file:
            return found[0]
        target = ((ROOT / path).parent / file).resolve().relative_to(ROOT).as_posix()
        for other, source in PAGES.items():
            if source == target:
                return f"[{words}]({other}.html{'#' * bool(mark)}{mark})"
        if target.startswith("docs/pictures/"):
            return f"[{words}]({target.removeprefix('docs/')})"
        return words

    text = (ROOT / path).read_text()
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # code is left as it is
    return to_html(
        "".join(re.sub(r"\[([^]]*)\]\(([^)\s]+)\)", link, p) if i % 2 == 0 else p for i, p in enumerate(parts))
    )


def to_html(text: str) -> str:
    """Markdown as HTML, with formulas as they are: their stars and underscores mean no emphasis."""
    formulas: list[str] = []

    def keep(found: re.Match) -> str:
        if not found[1]:
            return found[0]
        formulas.append(found[1])
        return f"FORMULA{len(formulas) - 1}X"

    made = render_helpers.to_html(_MATH.sub(keep, text))
    restored = type(made)(re.sub(r"FORMULA(\d+)X", lambda found: html.escape(formulas[int(found[1])]), made))
    for name in ("toc_html", "metadata"):
        setattr(restored, name, getattr(made, name, None))
    return restored


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
