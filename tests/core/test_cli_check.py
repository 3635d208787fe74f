"""`posterax check`: which components and checks a command names, what is printed, and the exit status."""

import json
import os
import subprocess
import sys

import posterax
import pytest
from posterax import _cli, _cli_check
from posterax.plugin import ComponentSpec

PLUGIN = """
from posterax.plugin import *

@hookimpl
def posterax_components():
    still = ComponentSpec("still", kind="sampler", target="fake_parts:Still", summary="Stays.", tags={"exact"})
    bare = ComponentSpec("bare", kind="sampler", target="fake_parts:Bare", summary="Has nothing.", tags={"exact"})
    lacking = ComponentSpec("lacking", kind="objective", target="fake_parts:Lacking", summary="Wants.", tags={"proper"})
    words = ComponentSpec("words", kind="language-model", target="no_such_module:Words", summary="Speaks.")
    return [still, bare, lacking, words]
"""

PARTS = '''
from posterax import Sampler

print("hello from a plugin")

class Still(Sampler):
    """Stays where it is."""
    num_warmup: int = 0
    def init(self, target, position, *, key):
        return position
    def step(self, target, state, *, key):
        return state, {"lp": target.log_density(state)}
    def position(self, state):
        return state

class Bare:
    """Has no method."""

class Lacking:
    def __init__(self, needed): pass
'''


@pytest.fixture
def plugin(site):
    site.install("posterax-one", PLUGIN)
    (site.folder / "fake_parts.py").write_text(PARTS)
    return site


def run(capsys, *arguments):
    try:
        status = _cli.main(["check", *arguments])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    return status, out, err


def strict(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_component_that_passes(plugin, capsys):
    status, out, err = run(capsys, "one:still", "--only", "interface", "shapes", "--seed", "7")
    assert status == 0
    assert "sampler one:still (posterax-one 1.0), level smoke, tags exact" in out
    assert "2 passed" in out
    assert out.endswith("\n1 of 1 components passed, level smoke, seed 7\n")
    assert "hello from a plugin" in err
    assert "hello" not in out


def test_a_short_name_and_json_that_nothing_spoils(plugin, capsys):
    status, out, err = run(capsys, "still", "--only", "interface", "--json")
    said = strict(out)
    assert status == 0
    assert "hello from a plugin" in err
    (report,) = said.pop("reports")
    assert said == {"checked": "still", "level": "smoke", "seed": 0, "passed": True, "errors": {}, "not_covered": {}}
    assert report["component"] == "one:still"
    assert [outcome["check"] for outcome in report["outcomes"]] == ["interface"]


def test_a_whole_plugin_of_which_one_passes_one_fails_one_cannot_be_made_and_one_has_no_checks(plugin, capsys):
    status, out, err = run(capsys, "one", "--only", "interface")
    assert status == 1
    assert "FAILED  interface" in out
    assert "Bare has no method 'init', 'step', 'position'" in out
    assert "posterax: error: one:lacking: one:lacking cannot be made without needed." in err
    assert "Traceback" not in err
    last = out.splitlines()[-1]
    assert last.startswith("1 of 3 components passed, level smoke, seed 0; not passed: one:bare, one:lacking")
    assert last.endswith("one:words is of kind 'language-model', which has no checks")
    status, out, _ = run(capsys, "one", "--only", "interface", "--json")
    said = strict(out)
    assert (status, said["passed"], said["not_covered"]) == (1, False, {"one:words": "language-model"})
    assert [report["passed"] for report in said["reports"]] == [False, True]
    assert list(said["errors"]) == ["one:lacking"]


def test_the_same_seed_finds_the_same_and_another_may_not(plugin, capsys):
    found = [
        strict(run(capsys, "still", "--only", "interface", "--json", "--seed", seed)[1])["reports"][0]["key"]
        for seed in ("1", "1", "2")
    ]
    assert found[0] == found[1] != found[2]


def test_an_example_that_breaks_keeps_its_traceback(plugin, capsys):
    spec = ComponentSpec("odd", kind="sampler", target="fake_parts:Still", summary="S.", example="fake_parts:broken")
    with (plugin.folder / "fake_parts.py").open("a") as file:
        file.write("\ndef broken(): 1 / 0\n")
    posterax.register(spec)
    status, _, err = run(capsys, "local:odd")
    assert status == 1
    assert "posterax: error: local:odd: ZeroDivisionError: division by zero" in err
    assert "in broken" in err


# --- which checks


def test_the_list_shows_checks_and_imports_no_component(capsys):
    spec = ComponentSpec("a", kind="sampler", target="no_such_module:A", summary="S.", tags={"exact"})
    other = ComponentSpec("b", kind="wish", target="no_such_module:B", summary="S.")
    with posterax.isolated(spec, other):
        status, out, _ = run(capsys, "local", "--list")
        assert status == 0
        assert "sampler local:a, level smoke: " in out
        assert "  interface  " in " ".join(out.splitlines())
        assert "local:b is of kind 'wish': no checks" in out
        said = [strict(run(capsys, "a", "--list", "--json", "--level", level)[1]) for level in ("smoke", "standard")]
        names = [{check["name"] for check in one["components"][0]["checks"]} for one in said]
        assert names[0] < names[1]
        assert all(check["summary"] for one in said for check in one["components"][0]["checks"])


def test_the_levels_and_kinds_are_the_kits():
    from posterax.testing import _check, checks

    parser = _cli._parser(["check"])
    levels = [parser.parse_args(["check", "nuts", "--level", level]).level for level in _check.LEVELS]
    assert levels == list(_check.LEVELS)
    for kind in _cli_check.KINDS:
        assert checks(kind)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "PLUGIN[:NAME]"),
        (["nuts", "--level", "often"], "invalid choice: 'often'"),
        (["nuts", "--seed", "-1"], "--seed"),
        (["nuts", "--seed", "4294967296"], "must be a whole number from 0 to 2**32 - 1; got '4294967296'"),
        (["nuts", "--only", "nonsense"], "argument --only: there is no check nonsense; there are "),
        (["nuts", "--only", "keys"], "call for none of these at level smoke; raise --level"),
    ],
)
def test_wrong_usage(capsys, arguments, told):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert told in err


# --- what cannot be checked


def test_what_is_unknown_broken_or_disabled_is_an_error_of_one_line(plugin, capsys, monkeypatch):
    plugin.install("posterax-bad", "1 / 0")
    plugin.good("posterax-off", "gone")
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "off")
    for name, told in (
        ("nutz", "did you mean 'nuts'"),
        ("nutz", "Plugins: bad, distribution_transformer, marginalization, mjp, nngp, numpyro, off, one, particles."),
        ("one:thing", "no component is called 'one:thing'"),
        ("bad", "the plugin 'bad' (posterax-bad 1.0) is broken: ZeroDivisionError"),
        ("bad:thing", "the plugin 'bad' (posterax-bad 1.0) is broken: ZeroDivisionError"),
        ("off", "the plugin 'off' (posterax-off 1.0) is disabled"),
        ("one:words", "nothing of 'one:words' can be checked: one:words is of kind 'language-model'"),
    ):
        status, out, err = run(capsys, name)
        assert (status, out) == (1, ""), name
        assert told in err
        assert len(err.splitlines()) == 1


def test_ctrl_c_ends_the_process_though_sample_would_take_it_for_a_wish_to_stop_early(plugin):
    # A new process, because it ends. What came before it on stdout is there.
    code = """
import signal, sys
from posterax import _cli, _cli_check

def interrupted(*_):
    print("before")
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        pass

before = signal.getsignal(signal.SIGINT)
_cli.main(["check", "one:still", "--only", "interface", "--json"])
assert signal.getsignal(signal.SIGINT) is before
_cli_check._report = interrupted
_cli.main(["check", "one:still"])
print("after")
"""
    environment = {**os.environ, "PYTHONPATH": str(plugin.folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (130, "before"), done.stderr
