"""Figures in README and docs: the comparison with peers is what was measured, and every table says what makes it."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = "\n\n".join([README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))])


@pytest.fixture
def tables(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    yield importlib.import_module("tables")
    for name in set(sys.modules) - before:
        del sys.modules[name]


def side(factor, size, ours=None):
    """A side that takes `factor` times size squared ms."""
    median = factor * size**2
    told = {"mib": [100.0, 1.0 * size], "quartiles": {"ms": [0.9 * median, median, 1.1 * median]}}
    return {**told, "ratio": {"ms": [0.9 * ours / factor, ours / factor, 1.1 * ours / factor]}} if ours else told


@pytest.fixture
def measured(tables):
    sizes = (10, 100)
    points = [
        {
            "at": {"n": size}, "rounds": 15,
            "sides": {
                "posterax": side(1.0, size), "quick": side(0.5, size, ours=1.0),
                "slow": side(4.0, size, ours=1.0), "absent": {"skipped": "no environment"},
            },
        }
        for size in sizes
    ]  # fmt: skip
    work = {
        "name": "work", "title": "A work", "sides": ["posterax", "quick", "slow", "absent"], "base": {"n": 10},
        "grown": ["n"], "measures": [["ms", "a work"]], "points": points,
    }  # fmt: skip
    work["growth"] = importlib.import_module("_side_by_side_tables").growth(work)
    about = ["2 cores (a machine), load 0.0", "python 3.11"]
    return {"quick": False, "machine": about, "peers": {"quick": "quick==1"}, "minutes": 1.0, "works": [work]}


def test_the_readmes_comparison_is_what_was_measured(tables):
    found = json.loads(tables.RESULTS.read_text())
    assert tables.replaced(README, found) == README, "run `python tests/benchmarks/tables.py`"


def test_the_table_tells_wins_losses_and_what_was_not_measured(tables, measured):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables.markdown(measured).splitlines()]
    quick, slow, absent = (row for row in rows if row[:1] == ["a work"])
    assert quick[1:5] == ["n = 10 to 100", "quick", "2.00 (1.80 to 2.20)", "2.00 (1.80 to 2.20)"]
    assert quick[5:] == ["10,000, 5,000 ms", "100, 100", "2.00, 2.00"]
    assert slow[3] == "0.25 (0.23 to 0.28)"
    assert absent[3:] == ["not measured", "", "", "", ""]
    assert "Slower, by all quartiles: a work beside quick (n = 10: 2.00; n = 100: 2.00)." in tables.markdown(measured)
    assert "slow (" not in tables.markdown(measured)
    told = importlib.import_module("_side_by_side_tables").counted(measured)
    assert told == "2 sizes of 1 works, 4 comparisons: posterax faster in 2, even in 0, slower in 2; 2 skipped, 0 wrong"


def test_a_readme_without_its_comments_is_refused(tables, measured):
    with pytest.raises(ValueError, match="it lacks at least one"):
        tables.replaced(README.replace(tables.END, ""), measured)


def test_every_table_of_figures_says_which_command_makes_it():
    paragraphs = re.sub(r"^<!--.*-->\n", "\n", PAGES, flags=re.M).split("\n\n")
    figures = [
        (number, paragraph) for number, paragraph in enumerate(paragraphs)
        if paragraph.strip().startswith("| ") and len(re.findall(r"\d\.\d", paragraph)) > 3
    ]  # fmt: skip
    assert len(figures) >= 9
    for number, table in figures:
        before = next(text for text in reversed(paragraphs[:number]) if text.strip())
        assert re.search(r"make bench|bench\.py", " ".join(before.split())), f"which command makes this?\n{table[:200]}"
