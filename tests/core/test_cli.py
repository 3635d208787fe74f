import json
import os
import subprocess
import sys
from pathlib import Path

import posterax
import pytest
from posterax import _cli, _cli_plugins, _pool, _registry
from posterax.plugin import ComponentSpec

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(folder.name for folder in (ROOT / "plugins").iterdir() if (folder / "__init__.py").exists())
HEAVY = ("jax", "jaxlib", "equinox", "numpyro", "numpy", "rich")

COMMANDS = """
from posterax.plugin import *
@hookimpl
def posterax_components(): return []
@hookimpl
def posterax_subcommands(): return [{}]
"""


def command(name, target):
    return f"SubcommandSpec({name!r}, target={target!r}, summary='Says {name}.')"


def run(capsys, *arguments):
    try:
        status = _cli.main(arguments)
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    return status, out, err


def python(code, *, path=(), **environment):
    """Run code in a new process, with `path` before everything else."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTERAX_")}
    before = [str(folder) for folder in path]
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": os.pathsep.join(before)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- posterax plugins


def test_plugins_lists_what_is_well_and_says_what_is_broken_and_is_no_error(site, capsys, monkeypatch):
    site.good("posterax-one", "thing")
    site.install("posterax-bad", "import no_such_module_anywhere")
    site.good("posterax-off", "gone")
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "off,nobody")
    status, out, err = run(capsys, "plugins")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["one", "posterax-one", "1.0", "ok"] in [line[:4] for line in lines]
    assert ["bad", "posterax-bad", "1.0", "error"] in lines
    assert ["off", "posterax-off", "1.0", "disabled"] in lines
    assert ["one:thing", "sampler", "S."] in lines
    assert "off:gone" not in out
    assert "one (posterax-one 1.0): ok" not in out  # of the healthy, the table says enough
    assert "ModuleNotFoundError: No module named 'no_such_module_anywhere'" in out
    assert "note: POSTERAX_DISABLE_PLUGINS names 'nobody'" in out
    assert "Traceback" not in out


def test_plugins_verbose_adds_tracebacks_targets_and_times(site, capsys):
    site.good("posterax-one", "thing")
    site.install("posterax-bad", "import no_such_module_anywhere")
    status, out, _ = run(capsys, "plugins", "--verbose")
    assert status == 0
    assert "Traceback" in out
    assert "fake_posterax_bad.py" in out
    assert "fake_posterax_one:Thing" in out
    assert " ms" in out


def test_plugins_writes_json_that_nothing_spoils(site, capsys):
    site.good("posterax-one", "thing")
    site.install("posterax-noisy", "print('hello from a plugin')\n" + COMMANDS.format(""))
    site.install("posterax-bad", "1 / 0")
    status, out, err = run(capsys, "plugins", "--json")
    assert status == 0
    assert "hello from a plugin" in err
    listed = {plugin["id"]: plugin for plugin in json.loads(out)["plugins"]}
    assert listed["bad"]["state"] == "error"
    assert listed["bad"]["reason"] == "ZeroDivisionError: division by zero"
    (thing,) = listed["one"]["components"]
    assert (thing["name"], thing["kind"], thing["distribution"]) == (
        "one:thing",
        "sampler",
        "posterax-one 1.0",
    )
    assert {"numpyro"} <= set(listed)


def test_plugins_tells_of_a_short_name_that_two_plugins_have(site, capsys):
    site.good("posterax-one", "thing")
    site.good("posterax-two", "thing")
    _, out, _ = run(capsys, "plugins")
    assert "note: 'thing' is the name of one:thing (posterax-one 1.0) and two:thing" in " ".join(out.split())


def test_without_plugins_plugins_says_so(capsys):
    with posterax.isolated():
        assert run(capsys, "plugins") == (0, "No plugin is installed.\n", "")


def test_strict_makes_a_broken_plugin_an_error_of_one_line(site, capsys, monkeypatch):
    site.install("posterax-bad", "1 / 0")
    monkeypatch.setenv("POSTERAX_STRICT_PLUGINS", "1")
    status, out, err = run(capsys, "plugins")
    assert (status, out) == (1, "")
    assert err.startswith("posterax: error: the plugin 'bad' (posterax-bad 1.0) is broken: ZeroDivisionError")
    assert len(err.splitlines()) == 1


# --- posterax info


def test_info_shows_versions_platform_variables_and_counts(site, capsys, monkeypatch):
    site.install("posterax-bad", "1 / 0")
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "numpyro")
    status, out, _ = run(capsys, "info")
    monkeypatch.delenv("POSTERAX_DATA", raising=False)
    assert status == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert shown["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert shown["posterax"] == posterax.__version__
    assert {"jax", "jaxlib", "numpyro", "equinox", "optax", "arviz", "arviz-base"} <= set(shown)
    assert shown["POSTERAX_DISABLE_PLUGINS"] == "numpyro"
    assert "1 error" in shown["plugins"]
    facts = json.loads(run(capsys, "info", "--json")[1])
    assert facts["plugins"]["error"] == 1
    assert facts["environment"] == {"POSTERAX_DISABLE_PLUGINS": "numpyro"}
    assert "devices" not in facts


def test_info_shows_devices_only_when_asked(capsys):
    assert "device" not in run(capsys, "info")[1]
    status, out, _ = run(capsys, "info", "--devices")
    assert status == 0
    assert "device " in out


def test_info_of_a_component_shows_whose_it_is_and_its_settings(site, capsys):
    site.install(
        "posterax-one",
        """
        from posterax.plugin import *

        class Thing:
            '''Does the thing.

            At length.
            '''
            def __init__(self, width: float, *, depth: int = 3): pass

        @hookimpl
        def posterax_components():
            return [ComponentSpec("thing", kind="wish", target="fake_posterax_one:Thing", summary="A thing.",
                                  tags={"b", "a"}, source="A paper (1953)")]
        """,
    )
    for name in ("thing", "one:thing"):
        status, out, _ = run(capsys, "info", name)
        assert status == 0
        for text in (
            "one:thing",
            "wish",
            "posterax-one 1.0",
            "a, b",
            "A paper (1953)",
            "fake_posterax_one:Thing",
        ):
            assert text in out
        assert "Does the thing." in out
        assert "At length." not in out
        lines = [line.split() for line in out.splitlines()]
        assert ["width", "required", "float"] in lines
        assert ["depth", "3", "int"] in lines
    facts = json.loads(run(capsys, "info", "thing", "--json")[1])
    assert facts["settings"][1] == {"name": "depth", "default": "3", "type": "int"}


def test_info_of_a_component_that_cannot_be_imported_shows_the_rest_and_the_cure(site, capsys):
    site.install(
        "posterax-one",
        "from posterax.plugin import *\n@hookimpl\ndef posterax_components(): return [ComponentSpec('thing', "
        "kind='wish', target='no_such_module_anywhere:A', summary='A thing.', extra='llm')]",
    )
    status, out, err = run(capsys, "info", "thing")
    assert status == 1
    assert "A thing." in out
    assert "Run: pip install 'posterax-one[llm]'" in err
    assert len(err.splitlines()) == 1


def test_info_of_a_plugin_shows_its_state_and_the_reason(site, capsys):
    site.install("posterax-bad", "1 / 0")
    status, out, _ = run(capsys, "info", "bad")
    assert status == 0
    assert "ZeroDivisionError" in out
    assert json.loads(run(capsys, "info", "numpyro", "--json")[1])[0]["state"] == "ok"


def test_info_of_a_stranger_is_an_error_that_lists_what_there_is(capsys):
    status, out, err = run(capsys, "info", "nutz")
    assert (status, out) == (1, "")
    assert "did you mean 'nuts'" in err
    assert "Plugins: " in err
    assert "Traceback" not in err


# --- commands that plugins bring


def test_a_plugin_brings_a_command_that_is_imported_only_when_used(site, capsys):
    site.install("posterax-one", COMMANDS.format(command("greet", "fake_greet:configure")))
    (site.folder / "fake_greet.py").write_text(
        """
def configure(parser):
    parser.add_argument("--name", default="you")
    parser.add_argument("--status", type=int)
    return run
def run(args):
    print("hello", args.name)
    return args.status
"""
    )
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "greet" in out
    assert "Says greet." in out
    assert "fake_greet" not in sys.modules
    assert run(capsys, "greet", "--name", "me") == (0, "hello me\n", "")
    assert run(capsys, "greet", "--status", "3")[0] == 3
    status, _, err = run(capsys, "greet", "--nonsense")
    assert status == 2
    assert "posterax" in err


def test_the_built_in_commands_ask_no_plugin_for_theirs(site, capsys, monkeypatch):
    monkeypatch.setattr(_cli, "plugin_commands", lambda: pytest.fail("asked"))
    assert run(capsys, "info")[0] == 0


def test_a_command_that_clashes_is_reported_and_shadows_nothing(site, capsys):
    body = command("plugins", "fake_evil:configure"), command("twin", "fake_evil:configure")
    site.install("posterax-one", COMMANDS.format(", ".join(body)))
    site.install("posterax-two", COMMANDS.format(body[1]))
    status, out, _ = run(capsys, "plugins")
    flat = " ".join(out.split())
    assert status == 0
    assert "The command 'plugins' is posterax's own; that of the plugin 'one' (posterax-one 1.0) is not used." in flat
    assert "'twin' is brought by the plugin 'one' (posterax-one 1.0) and the plugin 'two' (posterax-two 1.0)" in flat
    status, _, err = run(capsys, "twin")
    assert status == 2
    assert "'twin' is brought by" in err
    assert "fake_evil" not in sys.modules


def test_a_broken_plugin_does_not_break_the_command_line(site, capsys):
    site.install("posterax-bad", "1 / 0")
    assert run(capsys, "--help")[0] == 0
    status, _, err = run(capsys, "theirs")
    assert status == 2
    assert "the plugin 'bad' is not used: ZeroDivisionError" in err
    assert "invalid choice: 'theirs'" in err


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_anywhere", "No module named"),
        ("def configure(parser): 1 / 0", "ZeroDivisionError"),
        ("def configure(parser): pass", "must return the function to run; got None"),
        ("def other(parser): pass", "has no attribute 'configure'"),
    ],
)
def test_a_broken_command_is_an_error_of_one_line_and_others_work(site, capsys, code, reason):
    site.install("posterax-one", COMMANDS.format(command("broken", "fake_broken:configure")))
    (site.folder / "fake_broken.py").write_text(code)
    status, out, err = run(capsys, "broken")
    assert (status, out) == (1, "")
    assert reason in err
    assert len(err.splitlines()) == 1
    assert run(capsys, "plugins")[0] == 0
    assert run(capsys, "--help")[0] == 0


def test_posteraxs_own_errors_have_no_traceback_and_others_keep_theirs(site, capsys):
    site.install("posterax-one", COMMANDS.format(command("go", "fake_go:configure")))
    (site.folder / "fake_go.py").write_text(
        "import posterax\ndef configure(parser):\n    parser.add_argument('what')\n"
        "    return lambda args: posterax.get('nutz') if args.what == 'ours' else 1 / 0\n"
    )
    status, _, err = run(capsys, "go", "ours")
    assert status == 1
    assert err.startswith("posterax: error: no component is called 'nutz'")
    with pytest.raises(ZeroDivisionError):
        _cli.main(["go", "theirs"])


# --- usage, speed and hygiene


def test_version_and_usage_errors(capsys):
    assert run(capsys, "--version") == (0, f"posterax {posterax.__version__}\n", "")
    assert run(capsys)[0] == 2
    assert run(capsys, "no-such-command")[0] == 2
    assert run(capsys, "plugins", "--no-such-flag")[0] == 2


def test_the_demo_is_handed_its_output_and_sections(capsys, monkeypatch):
    seen = []
    module = type(sys)("posterax._demo")
    module.main = lambda **arguments: seen.append(arguments)
    monkeypatch.setitem(sys.modules, "posterax._demo", module)
    monkeypatch.setattr(posterax, "_demo", module, raising=False)
    assert run(capsys, "demo", "--output", "here", "--section", "a", "--section", "b", "--jobs", "3")[0] == 0
    assert run(capsys, "demo")[0] == 0
    default = {"output": "demo-output", "sections": None, "processes": min(2, _pool.cores())}
    assert seen == [{"output": "here", "sections": ["a", "b"], "processes": 3}, default]


def test_a_reader_that_has_seen_enough_is_no_error(site):
    done = python(
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'posterax._cli', 'plugins', '--json']\n"
        "process = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "process.stdout.close()\n"
        "print(process.wait())"
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_table_is_aligned(capsys):
    _cli_plugins.write_table([("A", "B"), ("long", "c")])
    assert capsys.readouterr().out == "A     B\nlong  c\n"


@pytest.mark.parametrize("package", ["posterax", "posterax.plugin", "posterax._registry", *PLUGINS])
def test_importing_a_package_imports_nothing_heavy(package):
    done = python(f"import {package}, sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--verbose"], ["info"], ["--help"], ["--version"]])
def test_the_command_line_never_imports_jax_and_works_when_jax_is_broken(tmp_path, arguments):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise RuntimeError('the stub of jax was imported')")
    code = (
        "import sys\nfrom posterax._cli import main\n"
        f"try: status = main({arguments})\n"
        "except SystemExit as exit: status = exit.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], status)"
    )
    done = python(code, path=[tmp_path])
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr
    assert done.stderr == ""
    if arguments == ["plugins"]:
        states = {line.split()[0]: line.split()[3] for line in done.stdout.splitlines()[1 : 1 + len(PLUGINS)]}
        assert states == {name.removeprefix("posterax_"): "ok" for name in PLUGINS}
    # The stub is indeed first on the path.
    assert "the stub of jax was imported" in python("import jax", path=[tmp_path]).stderr


def test_the_list_of_plugins_takes_less_than_a_third_of_a_second():
    script = Path(sys.executable).with_name("posterax")
    call = [str(script)] if script.exists() else [sys.executable, "-m", "posterax._cli"]
    taken = []
    for _ in range(5):  # processor time: a loaded machine makes one wait, not work
        before = os.times()
        subprocess.run([*call, "plugins"], check=True, capture_output=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(taken) < 0.3, f"`posterax plugins` took {taken} s of processor time; 0.3 s is allowed"


def test_public_names_are_where_the_table_says_and_nothing_else_is(monkeypatch):
    assert "get" in dir(posterax)
    assert posterax.get is _registry.get
    assert set(posterax.__all__) <= set(dir(posterax))
    with pytest.raises(AttributeError, match="module 'posterax' has no attribute 'nonsense'"):
        posterax.nonsense
    assert issubclass(posterax.PluginError, RuntimeError)
    assert issubclass(posterax.UnknownComponentError, LookupError)


def test_the_names_for_type_checkers_are_the_names_of_the_table():
    import ast

    for folder in (ROOT / "core" / "posterax", *(ROOT / "plugins" / name for name in PLUGINS)):
        tree = ast.parse((folder / "__init__.py").read_text())
        typed = {
            alias.asname or alias.name: node.module
            for block in tree.body
            if isinstance(block, ast.If)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        tables = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
        table = next((ast.literal_eval(node) for node in tables if _is_table(node)), {})
        assert typed == {name: module for module, names in table.items() for name in names}, folder.name


def _is_table(node):
    try:
        table = node and __import__("ast").literal_eval(node)
    except ValueError:
        return False
    return bool(table) and all(isinstance(names, tuple) for names in table.values())


def test_a_component_is_described_without_being_imported():
    spec = ComponentSpec("a", kind="b", target="no_such_module_anywhere:C", summary="S.", tags={"z", "y"})
    with posterax.isolated(spec):
        (component,) = posterax.components()
        assert _cli_plugins.component_data(component)["tags"] == ["y", "z"]
