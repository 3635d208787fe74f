import os
import subprocess
import sys
from pathlib import Path

import pytest

# The section as a newcomer runs it: `posterax demo --section wide-networks`


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo-output"
    command = [Path(sys.executable).with_name("posterax"), "demo", "--section", "wide-networks", "--output", folder]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    return run, folder


@pytest.mark.slow
def test_the_section_ends_well_and_prints_its_tables(finished):
    run, _ = finished
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Warning" not in run.stderr, run.stderr
    assert "FAR" not in run.stdout
    lines = run.stdout.splitlines()
    assert "1 sections" in lines[-1]
    assert "all figures agree with the truth" in lines[-1]
    assert sum("nats: " in line for line in lines) == 4, "the evidence of each of four networks"
    rows = [line.split() for line in lines if line.startswith("    ")]
    heads = [row for row in rows if row == ["estimate", "truth", "error", "std.", "errors"]]
    assert len(heads) == 2, "the integral over the scale, and both outputs far out"
    tables = [row for row in rows if row not in heads]
    assert [row[0] for row in tables] == ["quadrature", "1000", "200,000"]
    for estimate, truth, error in ([float(cell) for cell in row[-4:-1]] for row in tables):
        # Printed with four digits.
        assert abs(estimate - truth - error) <= 2e-3 * max(abs(estimate), abs(truth))


@pytest.mark.slow
def test_the_section_draws_its_bands(finished):
    _, folder = finished
    assert [path.name for path in (folder / "wide-networks").iterdir()] == ["bands.png"]
    content = (folder / "wide-networks" / "bands.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000
    assert 'src="wide-networks/bands.png"' in (folder / "index.html").read_text()
