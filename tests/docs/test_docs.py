"""Every fenced block of README.md and docs/*.md is run, or it is a fault.

- `python` blocks run from the top of the page to its end, in one namespace. A block whose first line is a comment with
  the name of a file is that file; files begin a new interpreter, for what was imported before may have changed.
- `bash` blocks run where they stand. Commands that take long, or that pip and make are for (`SLOW`), run in the slow
  suite on the pages of `INSTALLED`, in an environment of their own; elsewhere it is made sure that they exist.
- `text` blocks are what the block before them prints: each line must be among the output, in this order, numbers apart;
  `...` stands for anything. Those that are no output have a test of their own (`OTHER`).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from posterax import _cli

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md"))]
INSTALLED = ["docs/plugin_author_guide.md"]  # its slow commands are run, in a fresh environment
RUNNER = Path(__file__).with_name("run_page.py")
QUICK = {"posterax info", "posterax mjp", "posterax new", "posterax plugins", "posterax step-size"}
QUICK |= {"posterax demo --section", "cat", "cd", "cp", "mkdir", "mv", "python", "rm", "sed", "touch"}
SLOW = {
    "git clone",
    "make",
    "pip install",
    "posterax check",
    "posterax demo",
    "pytest",
    "python -m build",
    "python -m venv",
}
LONG = {"docs/distribution_transformer.md", "docs/marginalization.md", "docs/particles.md"}  # a minute each, or two
OTHER = {  # blocks that no command prints, by their first words
    "Langevin failed the check": "test_the_kits_words_are_as_the_readme_has_them",
    "core/posterax/": "test_the_readmes_folders_are_there",
    "Target ──►": "test_the_readmes_drawing_names_what_there_is",
}


LEAVES = {"README.md": ["schools.nc", "long-run/state.posterax"], "docs/mjp.md": ["visits-output/draws.nc"]}


class Block(NamedTuple):
    page: str
    line: int  # of its first line, from 0
    language: str
    text: str

    @property
    def path(self):
        """The file that the block is, or None."""
        found = re.match(r"# ([\w./-]+\.(py|toml|md))\n", self.text)
        return found[1] if found and self.language in ("python", "toml", "markdown") else None

    @property
    def other(self):
        """Whether the block is no output, and has a test of its own."""
        return any(self.text.startswith(words) for words in OTHER)


def blocks(page):
    text, found, opened = (ROOT / page).read_text().splitlines(), [], None
    for number, line in enumerate(text):
        if fence := re.match(r"```(.*)$", line):
            if opened is None:
                opened = number, fence[1]
            else:
                start, language = opened
                found.append(Block(page, start + 1, language, "\n".join(text[start + 1 : number]) + "\n"))
                opened = None
        else:
            hidden = opened is None and re.match(r"\s+```|\s*~~~|    |<pre", line)
            assert not hidden, f"{page}, line {number + 1}: a block that is not run; begin it with ``` at the margin"
    assert opened is None, f"{page}, line {opened[0] + 1}: a block without end"
    return found


def lines(text):
    """The lines of a shell block; one that ends with a backslash goes on."""
    return text.replace("\\\n", " ").splitlines()


def commands(line):
    """The commands of a line of shell: `a && b` are two. Comments and settings of variables are no part of them."""
    for part in re.split(r"&&|\|\||\|", line):
        words = shlex.split(part, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        if words:
            yield words


def name(words):
    """By which name `QUICK` and `SLOW` know a command."""
    first = {"python3": "python"}.get(Path(words[0]).name, Path(words[0]).name)
    if first == "python" and words[1:2] == ["-m"]:
        return f"python -m {words[2]}"
    if first not in {"git", "pip", "posterax"}:
        return first
    return " ".join([first, words[1], *(word for word in words if word == "--section")])


def slow(line):
    return any(name(words) in SLOW for words in commands(line))


def quick(text):
    """A shell block without its slow lines."""
    return "".join(f"{line}\n" for line in lines(text) if not slow(line))


# --- what may stand on a page


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run(page):
    before = None
    for block in blocks(page):
        where = f"{page}, line {block.line}"
        assert block.language in {"python", "toml", "markdown", "bash", "text"}, (
            f"{where}: {block.language!r} is not run"
        )
        if block.language in {"toml", "markdown"}:
            assert block.path, f"{where}: begin it with `# name.{block.language}`"
        if block.language == "text" and not block.other:
            printed = before and before.language in {"bash", "python"} and before.path is None
            assert printed, f"{where}: no block before it prints this"
        before = block


@pytest.mark.parametrize("page", PAGES)
def test_python_is_written_as_ours_is(page, tmp_path):
    for block in blocks(page):
        if block.language == "python":
            path = tmp_path / (block.path or f"line_{block.line}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed: pip install '.[dev]'")
    loose = "F811,F821,F401,E402,I001,D,B018"  # of a page of which each block is a part
    for command in (["check", "--ignore", loose], ["format", "--check"]):
        call = [ruff, *command, "--no-cache", "--config", ROOT / "pyproject.toml", "."]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}\n{done.stdout}"


def every_command():
    return [
        pytest.param(words, id=f"{block.page}:{block.line + number}: {shlex.join(words)}")
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for number, line in enumerate(lines(block.text), start=1)
        for words in commands(line)
    ]


@pytest.mark.parametrize("words", every_command())
def test_every_command_exists(words, monkeypatch):
    assert name(words) in QUICK | SLOW, "a command that the tests do not know"
    if words[0] == "make":
        phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), flags=re.M)[1].split()
        assert {word for word in words[1:] if "=" not in word} <= set(phony)
    if Path(words[0]).name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in re.findall(r"\[(\w+)\]", shlex.join(words)):
            assert extra in extras
    if Path(words[0]).name == "posterax" and words[1] in {*_cli._BUILT_IN, *_cli.plugin_commands()[0]}:
        _cli._parser(words[1:]).parse_args(words[1:])  # exits with what is wrong


# --- running it


_FAILS = r"if \1; then status=0; else status=$?; fi; test $status -eq \2"  # `bash -e` would end there


def steps(page, *, everything):
    """What is run, as lists for one interpreter each."""
    runs, changed = [[]], False
    for number, block in enumerate(blocks(page)):
        step = {"number": number, "page": page, "line": block.line, "text": block.text}
        if block.path:
            changed = True
            runs[-1].append({**step, "kind": "file", "path": block.path})
        elif block.language == "python":
            runs, changed = ([*runs, []] if changed else runs), False
            runs[-1].append({**step, "kind": "python"})
        elif block.language == "bash" and (text := block.text if everything else quick(block.text)):
            changed = changed or "pip install" in text
            text = re.sub(r"^(.*\S)  # exit status (\d)$", _FAILS, text, flags=re.M)
            runs[-1].append({**step, "kind": "shell", "text": text})
    return runs


def run(page, folder, environment, *, everything, python=sys.executable):
    """Run a page; compares what is printed with what the page says of it. Returns the folder where it ended."""
    printed, place = {}, folder
    for number, group in enumerate(steps(page, everything=everything)):
        file = folder.parent / f"steps-{number}.json"
        file.write_text(json.dumps(group))
        done = subprocess.run(
            [python, RUNNER, file], cwd=place, env=environment, capture_output=True, text=True, timeout=1800
        )
        place = Path(file.with_suffix(".cwd").read_text().strip()) if file.with_suffix(".cwd").exists() else place
        for part in done.stdout.split("\n\x1e")[1:]:
            head, _, output = part.partition("\n")
            printed[int(head)] = output
        assert done.returncode == 0, f"{page}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    found = blocks(page)
    for number, block in enumerate(found):
        by = found[number - 1]
        whole = everything or by.language != "bash" or not any(map(slow, lines(by.text)))
        if block.language == "text" and number - 1 in printed and whole and not block.other:
            compare(block, printed[number - 1])
    return place


def plain(text):
    """Lines without what may differ from machine to machine."""
    without = re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "#", text)
    return [" ".join(line.split()) for line in without.splitlines() if line.strip()]


def compare(block, output):
    printed = iter(plain(output))
    for wanted in plain(block.text):
        pattern = re.compile(".*".join(map(re.escape, wanted.split("..."))))
        assert any(map(pattern.fullmatch, printed)), f"{block.page}, line {block.line}: no line {wanted!r} in\n{output}"


def environment_of(folder, first):
    """This process's environment, with a folder of commands of its own before all others."""
    bin = folder / "bin"
    bin.mkdir()
    for command, call in first.items():
        (bin / command).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        (bin / command).chmod(0o755)
    return {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "MPLBACKEND": "Agg"}


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG)) for page in PAGES])
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    commands = {"posterax": f"{sys.executable} -m posterax._cli", "python": sys.executable}
    environment = environment_of(tmp_path, commands)
    (tmp_path / "page").mkdir()
    if page in INSTALLED:  # as pip leaves it, but by hand: what pip does is for the slow suite
        project = next(tomllib.loads(block.text)["project"] for block in blocks(page) if block.language == "toml")
        info = tmp_path / "installed" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        points = "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in project["entry-points"].items()
        )
        (info / "entry_points.txt").write_text(points)
        here = [tmp_path / "page" / project["name"] / "src", info.parent, os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(map(str, filter(None, here)))
    run(page, tmp_path / "page", environment, everything=False)
    assert all((tmp_path / "page" / file).stat().st_size for file in LEAVES.get(page, ()))


@pytest.mark.slow
@pytest.mark.parametrize("page", INSTALLED)
def test_a_page_runs_in_a_fresh_environment_with_all_its_commands(page, tmp_path, own_wheel, fresh, call):
    home = fresh(tmp_path, [own_wheel])
    python = home / "python"
    environment = environment_of(tmp_path, {"pip": f"{python} -m pip", "pytest": f"{python} -m pytest"})
    environment = {k: v for k, v in environment.items() if not k.startswith(("POSTERAX_", "PYTHON"))}
    # What it needs is installed already; nothing comes from an index.
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment["PATH"] = f"{tmp_path / 'bin'}:{home}:{os.environ['PATH']}"
    (tmp_path / "page").mkdir()
    place = run(page, tmp_path / "page", environment, everything=True, python=str(python))
    # Its wheel, where nothing else of it is.
    (tmp_path / "second").mkdir()
    (wheel,) = (place / "dist").glob("*.whl")
    bin = fresh(tmp_path / "second", [own_wheel, wheel])
    shutil.rmtree(place)
    listed = json.loads(call(bin / "posterax", "plugins", "--json", cwd=bin))["plugins"]
    assert {plugin["id"]: plugin["state"] for plugin in listed}["langevin"] == "ok"
    call(bin / "posterax", "check", "langevin", "--only", "interface", "shapes", cwd=bin)


# --- what is not run


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for place in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        file, _, mark = place.partition("#")
        if place.startswith("http"):
            continue
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {place}"
        headings = re.findall(r"^#+ (.*)", target.read_text(), flags=re.M) if mark else ()
        assert not mark or mark in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}, place


def test_pictures_are_small_and_made_by_examples():
    listed = re.findall(r'"(\w+)": "(\w+\.py)"', (ROOT / "docs" / "pictures.py").read_text())
    assert {name for name, _ in listed} == {path.stem for path in (ROOT / "docs" / "pictures").iterdir()}
    for name, example in listed:
        assert f"{name}.png" in (source := (ROOT / "examples" / example).read_text()) or f'"{name}' in source
        assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size < 120_000


def other(words):
    (block,) = (block for page in PAGES for block in blocks(page) if block.text.startswith(words))
    return block.text


def test_blocks_that_are_not_run_have_a_test_of_their_own():
    assert {name for name in OTHER.values() if callable(globals().get(name))} == set(OTHER.values())
    assert all(other(words) for words in OTHER)


def test_the_kits_words_are_as_the_readme_has_them():
    from posterax.testing import _sampler_law, checks

    (check,) = (check for check in checks("sampler") if check.name == "exact-start-regression")
    first, seen, expected, cure = other("Langevin failed").splitlines()
    assert first == f"Langevin failed the check {check.name!r}: {check.summary}"
    assert re.fullmatch(r"  seen:     .*: -?[\d.]+ standard errors, p = .* over \d+ tests \(regression .*\)", seen)
    source = Path(_sampler_law.__file__).read_text()
    assert f'"{expected.removeprefix("  expected: ")}"' in source
    assert cure == f"  to do:    {_sampler_law._CURE}"


def test_the_readmes_folders_are_there():
    for line in other("core/posterax/").splitlines():
        folder, _, what = re.match(r"(\S+)(\s+)(.*)", line).groups()
        places = list(ROOT.glob(folder.rstrip("/")))
        assert places, folder
        for inside in re.findall(r"\b([\w/]+)/(?=[ ,)]|$)", what):
            assert any((place / inside).is_dir() for place in [*places, ROOT]), f"{folder}: {inside}"


def test_the_readmes_drawing_names_what_there_is():
    import posterax

    names = set(re.findall(r"[A-Z]\w+|\w+(?=\(\))", other("Target ──►"))) - {"Distribution", "DataTree", "ArviZ"}
    assert names == {"Draws", "Estimator", "Objective", "Sampler", "Target", "sample", "train"}
    assert names <= set(posterax.__all__)
