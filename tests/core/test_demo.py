"""Sections of the demo side by side, in processes of their own. Their verdicts: tests/plugins/numpyro/test_demo.py."""

import os

from posterax import _demo

CODE = """
import os
from posterax.plugin import DemoSpec, hookimpl

NAMES = "near", "breaks", "dies"

def near(report):
    report.compare("A table", [("mu mean", 1.02, 0.01, 1.0)])
    report.say(f"process {os.getpid()}")

def breaks(report):
    raise RuntimeError("a fault of the section's")

def dies(report):
    os._exit(3)

@hookimpl
def posterax_components():
    return []

@hookimpl
def posterax_demos():
    return [DemoSpec(name, target=f"fake_posterax_shows:{name}", summary=f"About {name}.") for name in NAMES]
"""


def test_sections_run_in_processes_of_their_own(site, tmp_path, capfd):
    site.install("posterax-shows", CODE, plugin="shows")
    assert _demo.main(output=str(tmp_path / "out"), sections=["near", "breaks"], processes=2) == 1
    told = capfd.readouterr()
    assert "+2.0" in told.out
    assert "FAILED: RuntimeError: a fault of the section's" in told.out
    assert "Traceback" in told.err
    assert "2 sections in" in told.out.splitlines()[-1]
    assert "failed: breaks." in told.out
    assert f"process {os.getpid()}" not in told.out
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("A table") < page.index("a fault of the section")


def test_a_section_whose_process_dies_fails_the_demo(site, tmp_path, capfd):
    site.install("posterax-shows", CODE, plugin="shows")
    assert _demo.main(output=str(tmp_path), sections=["near", "dies"], processes=2) == 1
    out = capfd.readouterr().out
    assert "dies: FAILED: its process ended" in out
    assert "dies" in out.splitlines()[-1]
