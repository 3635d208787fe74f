import os
import subprocess
import sys
from pathlib import Path

import pytest

# The sections as a newcomer runs them: `posterax demo --section language`


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "rows", "picture"), [("particles", 6, "level.png"), ("language", 2, "lineages.png")]
)
def test_a_section_agrees_with_the_truth_and_draws(section, rows, picture, tmp_path):
    command = [Path(sys.executable).with_name("posterax"), "demo", "--section", section, "--output", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Warning" not in run.stderr, run.stderr
    assert "FAR" not in run.stdout
    assert "all figures agree with the truth" in run.stdout.splitlines()[-1]
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("    ")]
    assert sum(row != ["estimate", "truth", "error", "std.", "errors"] for row in lines) == rows
    assert (tmp_path / "out" / section / picture).stat().st_size > 10_000
