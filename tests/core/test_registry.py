import sys
from types import ModuleType

import pluggy
import posterax
import pytest
from posterax import PluginError, UnknownComponentError, _registry
from posterax.plugin import API_VERSION, ComponentSpec

HEAD = "from posterax.plugin import *\n"


def record(name):
    (found,) = [record for record in posterax.plugins() if record.id == name]
    return found


def names():
    return [component.qualified_name for component in posterax.components()]


def spec(name="thing", **changes):
    return ComponentSpec(name, **({"kind": "sampler", "target": "builtins:dict", "summary": "S."} | changes))


# --- finding


def test_a_plugin_is_found_by_its_entry_point_and_its_target_imported_only_when_asked_for(site):
    site.install(
        "posterax-lazy",
        """
        from posterax.plugin import ComponentSpec, hookimpl

        @hookimpl
        def posterax_components():
            return [ComponentSpec("later", kind="sampler", target="fake_later:Later", summary="S.")]
        """,
    )
    (site.folder / "fake_later.py").write_text("class Later: pass")
    assert "lazy:later" in names()
    assert (record("lazy").state, record("lazy").owner) == ("ok", "posterax-lazy 1.0")
    assert "fake_later" not in sys.modules
    later = posterax.get("later")
    assert later is posterax.get("lazy:later", kind="sampler") is sys.modules["fake_later"].Later


def test_nothing_is_imported_before_the_first_question(site):
    module = site.good("posterax-a", "thing")
    registry = _registry.current()
    assert module not in sys.modules
    registry.plugins()
    assert module in sys.modules


def test_components_come_by_kind_and_in_the_order_of_their_names(site):
    site.good("posterax-b", "zebra", "apple")
    site.good("posterax-a", "judge", kind="verdict")
    assert [n for n in names() if n[:2] in ("a:", "b:")] == ["a:judge", "b:apple", "b:zebra"]
    (judge,) = posterax.components("verdict")
    assert (judge.plugin, judge.distribution, judge.version) == ("a", "posterax-a", "1.0")
    assert posterax.components("no-such-kind") == []


def test_a_lazy_name_of_a_plugin_is_not_touched_when_it_is_read(site, monkeypatch):
    # pluggy 1.5 gets every name in dir(plugin), newer ones look without getting. Unguarded, that would import
    # what PEP 562 put off.
    monkeypatch.setattr(
        pluggy.PluginManager,
        "parse_hookimpl_opts",
        lambda self, plugin, name: getattr(getattr(plugin, name), "posterax_impl", None),
    )
    site.install(
        "posterax-lazy",
        HEAD
        + "__getattr__, __dir__ = lazy(__name__, {'_heavy': ('Heavy',)})\n"
        + "@hookimpl\ndef posterax_components(): return []\n",
    )
    assert record("lazy").state == "ok", record("lazy").reason
    assert "Heavy" in dir(sys.modules["fake_posterax_lazy"])


def test_an_entry_point_may_lead_to_an_object_with_hooks_as_methods(site):
    site.install(
        "posterax-object",
        HEAD
        + """
class Plugin:
    @hookimpl
    def posterax_components(self):
        yield ComponentSpec("thing", kind="sampler", target="builtins:dict", summary="S.")
plugin = Plugin()
""",
        entry_points="[posterax.plugins]\nobject = fake_posterax_object:plugin\n",
    )
    assert record("object").state == "ok", record("object").reason
    assert posterax.get("object:thing") is dict


def test_info_subcommands_and_demos_are_carried_and_the_docstring_is_the_default_summary(site):
    site.install(
        "posterax-full",
        HEAD
        + """
@hookimpl
def posterax_plugin_info(): return PluginInfo("Full.", url="https://example.org")
@hookimpl
def posterax_components(): return []
@hookimpl
def posterax_subcommands(): return [SubcommandSpec("go", target="a:b", summary="S.")]
@hookimpl
def posterax_demos(): return (DemoSpec(n, target="a:b", summary="S.") for n in ("one", "two"))
""",
    )
    site.install(
        "posterax-doc",
        '"""First line.\n\nMore."""\n' + HEAD + "@hookimpl\ndef posterax_components(): return []",
    )
    full = record("full")
    assert (full.state, full.info.summary, full.info.api) == ("ok", "Full.", (1, 0))
    assert [s.name for s in full.subcommands] == ["go"]
    assert [s.name for s in full.demos] == ["one", "two"]
    assert record("doc").info.summary == "First line."


# --- broken plugins: each is reported with its reason, and hides no other

BROKEN = {
    "import": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "syntax": ("def f(:", "SyntaxError: "),
    "exits": ("raise SystemExit('bye')", "SystemExit: bye"),
    "misspelled": (
        "@hookimpl\ndef posterax_component(): return []",
        "posterax_component is no hook of posterax; did you mean 'posterax_components'?",
    ),
    "one-hook-too-many": (
        "@hookimpl\ndef posterax_components(): return []\n@hookimpl\ndef posterax_demo(): return []",
        "posterax_demo is no hook of posterax; did you mean 'posterax_demos'?",
    ),
    "unmarked": ("def posterax_components(): return []", "write @hookimpl above it"),
    "nothing": (
        "from posterax.plugin import hookimpl as hookimpl; del posterax_components",
        "it has no hook",
    ),
    "argument": (
        "@hookimpl\ndef posterax_components(config): return []",
        "Argument(s) {'config'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "raises": ("@hookimpl\ndef posterax_components(): 1 / 0", "ZeroDivisionError: division by zero"),
    "raises-late": (
        "@hookimpl\ndef posterax_components():\n    yield from ()\n    1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "none": (
        "@hookimpl\ndef posterax_components(): pass",
        "posterax_components returned None; it must return a list",
    ),
    "text": ("@hookimpl\ndef posterax_components(): return 'nuts'", "returned 'nuts'; it must return a list"),
    "number": ("@hookimpl\ndef posterax_components(): return 3", "returned 3; it must return a list"),
    "strings": ("@hookimpl\ndef posterax_components(): return ['a']", "returned a list with 'a' in it"),
    "bare": (
        "@hookimpl\ndef posterax_components(): return ComponentSpec('a', kind='b', target='c:d', summary='S.')",
        "example=None); it must return a list of ComponentSpec",
    ),
    "wrong-spec": (
        "@hookimpl\ndef posterax_components(): return [DemoSpec('a', target='c:d', summary='S.')]",
        "it must return a list of ComponentSpec",
    ),
    "twice": (
        "@hookimpl\ndef posterax_components(): "
        "return [ComponentSpec('a', kind=k, target='c:d', summary='S.') for k in ('b', 'c')]",
        "the name 'a' more than once",
    ),
    "bad-spec": (
        "@hookimpl\ndef posterax_components(): return [ComponentSpec('A', kind='b', target='c:d', summary='S.')]",
        "ValueError: ComponentSpec: `name` must be lower-case",
    ),
    "bad-info": (
        "@hookimpl\ndef posterax_plugin_info(): return 'x'\n@hookimpl\ndef posterax_components(): return []",
        "posterax_plugin_info returned 'x'; it must return a PluginInfo",
    ),
    "asks-too-early": ("import posterax; posterax.components()", "while it was itself being read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_with_its_reason(site, case):
    code, reason = BROKEN[case]
    site.install(f"posterax-{case}", HEAD + code)
    site.good("posterax-zz-after", "after")
    site.good("posterax-a-before", "before")
    assert record(case).state == "error"
    assert reason in record(case).reason
    assert record(case).components == record(case).demos == ()
    assert posterax.get("after").__name__ == "After"
    assert posterax.get("before").__name__ == "Before"
    with pytest.raises(PluginError, match=f"POSTERAX_DISABLE_PLUGINS={case}") as caught:
        posterax.get(f"{case}:a")
    assert reason in str(caught.value)
    assert f"posterax-{case} 1.0" in str(caught.value)
    assert caught.value.__cause__ is record(case).error is not None


def test_all_broken_plugins_together_hide_no_other(site):
    for case, (code, _) in BROKEN.items():
        site.install(f"posterax-{case}", HEAD + code)
    site.good("posterax-good", "fine")
    assert {r.id for r in posterax.plugins() if r.state == "error"} == set(BROKEN)
    assert posterax.get("good:fine").__name__ == "Fine"
    assert posterax.components("estimator") or "numpyro" in [r.id for r in posterax.plugins()]


def test_ctrl_c_is_not_swallowed(site):
    site.install("posterax-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        posterax.plugins()


def test_an_optional_unknown_hook_is_not_a_fault(site):
    site.install(
        "posterax-next",
        HEAD
        + "@hookimpl\ndef posterax_components(): return []\n"
        + "@hookimpl(optionalhook=True)\ndef posterax_hook_of_tomorrow(anything): return []\n",
    )
    assert record("next").state == "ok", record("next").reason


@pytest.mark.parametrize(
    ("api", "state", "cure"),
    [
        ((API_VERSION[0] + 1, 0), "incompatible", "Upgrade posterax"),
        ((API_VERSION[0] - 1, 9), "incompatible", "Upgrade the plugin"),
        ((API_VERSION[0], API_VERSION[1] + 1), "incompatible", "Upgrade posterax"),
        (API_VERSION, "ok", None),
    ],
)
def test_another_api_is_incompatible_before_any_other_hook_is_looked_at(site, api, state, cure):
    unknown = "@hookimpl\ndef posterax_not_yet_invented(thing): raise Exception\n" if cure else ""
    site.install(
        "posterax-api",
        HEAD
        + f"@hookimpl\ndef posterax_plugin_info(): return PluginInfo('S.', api={api})\n{unknown}"
        + "@hookimpl\ndef posterax_components(): return []\n",
    )
    assert record("api").state == state
    if cure:
        assert cure in record("api").reason
        assert ".".join(map(str, api)) in record("api").reason
        with pytest.raises(PluginError, match=r"posterax-api 1.0\) is incompatible: .*" + cure):
            posterax.get("api:thing")


def test_an_older_minor_is_fine(site, monkeypatch):
    monkeypatch.setattr("posterax.plugin.API_VERSION", (1, 3))
    site.install(
        "posterax-old",
        HEAD
        + "@hookimpl\ndef posterax_plugin_info(): return PluginInfo('S.', api=(1, 1))\n"
        + "@hookimpl\ndef posterax_components(): return []\n",
    )
    assert record("old").state == "ok"


def test_two_distributions_with_one_plugin_id_are_an_error_that_names_both(site, monkeypatch):
    first = site.good("posterax-one", "thing", plugin="same", module="fake_one")
    site.good("posterax-two", "thing", plugin="same", module="fake_two", version="2.5")
    site.good("posterax-three", "other")
    both = [r for r in posterax.plugins() if r.id == "same"]
    assert [r.state for r in both] == ["error", "error"]
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "posterax-four")
    site.good("posterax-four", "thing", plugin="same", module="fake_four")
    _registry.reload()
    assert [r.state for r in posterax.plugins() if r.id == "same"] == ["disabled", "error", "error"]
    claim = r"claimed by posterax-one 1.0 \(fake_one\) and posterax-two 2.5 \(fake_two\);"
    with pytest.raises(PluginError, match=claim):
        posterax.get("same:thing")
    assert first not in sys.modules  # neither is run
    assert posterax.get("other").__name__ == "Other"
    # The cure that the message gives works.
    assert "name its distribution in POSTERAX_DISABLE_PLUGINS" in both[0].reason
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "posterax-two,posterax-four")
    _registry.reload()
    assert posterax.get("same:thing").__module__ == "fake_one"
    with pytest.raises(UnknownComponentError, match="no component is called 'same:thang'"):
        posterax.get("same:thang")


@pytest.mark.parametrize("name", ["local", "Upper", "a:b", "a b", "a.b"])
def test_an_entry_point_that_cannot_be_an_id_is_an_error_and_never_run(site, name):
    # importlib.metadata reads `a:b = module` as a key up to the first `=`.
    module = site.good("posterax-odd", "thing", entry_points=f"[posterax.plugins]\n{name} = fake_posterax_odd\n")
    assert record(name).state == "error"
    assert "cannot be a plugin id" in record(name).reason
    assert module not in sys.modules


def test_strict_raises_at_once_and_every_time(site, monkeypatch):
    site.good("posterax-good", "thing")
    site.install("posterax-bad", "import no_such_module_anywhere")
    monkeypatch.setenv("POSTERAX_STRICT_PLUGINS", "1")
    for _ in range(2):
        with pytest.raises(PluginError, match=r"the plugin 'bad' .* is broken: ModuleNotFoundError") as caught:
            posterax.get("good:thing")
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    monkeypatch.setenv("POSTERAX_STRICT_PLUGINS", "0")
    assert posterax.get("good:thing").__name__ == "Thing"


def test_strict_does_not_mind_what_is_disabled(site, monkeypatch):
    site.install("posterax-bad", "import no_such_module_anywhere")
    monkeypatch.setenv("POSTERAX_STRICT_PLUGINS", "1")
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "bad")
    assert record("bad").state == "disabled"


# --- choosing


@pytest.mark.parametrize(
    ("allowed", "denied", "ok"),
    [
        (None, None, {"one", "two_words"}),
        ("", None, set()),
        ("one", None, {"one"}),
        (" one , two_words ", None, {"one", "two_words"}),
        ("posterax-one", None, {"one"}),
        ("Posterax_One", None, {"one"}),
        ("two-words", None, {"two_words"}),
        (None, "one", {"two_words"}),
        (None, "posterax-one", {"two_words"}),
        (None, "", {"one", "two_words"}),
        ("one,two_words", "one", {"two_words"}),
    ],
)
def test_the_environment_chooses_before_anything_is_imported(site, monkeypatch, allowed, denied, ok):
    modules = {
        "one": site.good("posterax-one", "thing"),
        "two_words": site.good("other-two", "gadget", plugin="two_words"),
    }
    if allowed is not None:
        monkeypatch.setenv("POSTERAX_PLUGINS", allowed)
    if denied is not None:
        monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", denied)
    states = {r.id: r.state for r in posterax.plugins() if r.id in modules}
    assert states == {name: "ok" if name in ok else "disabled" for name in modules}
    assert {name for name, module in modules.items() if module in sys.modules} == ok
    for name in set(modules) - ok:
        with pytest.raises(PluginError, match=r"is disabled: (not )?named in POSTERAX_"):
            posterax.get(f"{name}:thing")


def test_a_misspelled_choice_is_said_aloud(site, monkeypatch):
    site.good("posterax-one", "thing")
    monkeypatch.setenv("POSTERAX_PLUGINS", "onne")
    (note,) = _registry.current().notes()
    assert "POSTERAX_PLUGINS names 'onne'" in note
    assert "did you mean 'one'" in note


# --- asking


def test_a_short_name_works_while_one_plugin_alone_has_it(site):
    site.good("posterax-one", "thing", "own")
    site.good("posterax-two", "thing", version="2.5")
    assert posterax.get("own").__name__ == "Own"
    assert posterax.get("one:thing") is not posterax.get("two:thing")
    for kind in (None, "sampler"):
        with pytest.raises(
            PluginError, match=r"'thing' .* one:thing \(posterax-one 1.0\) and two:thing \(posterax-two 2.5"
        ):
            posterax.get("thing", kind=kind)
    (note,) = _registry.current().notes()
    assert "one:thing (posterax-one 1.0) and two:thing (posterax-two 2.5)" in note


def test_a_kind_tells_two_short_names_apart(site):
    site.good("posterax-one", "thing")
    site.good("posterax-two", "thing", kind="objective")
    assert posterax.get("thing", kind="objective") is posterax.get("two:thing")
    with pytest.raises(PluginError, match="Ask for one of them by its full name"):
        posterax.get("thing")
    assert _registry.current().notes() == []


def test_an_unknown_name_says_what_is_near_and_what_there_is(site):
    site.good("posterax-one", "elliptical-slice")
    site.good("posterax-two", "judge", kind="reward")
    with pytest.raises(UnknownComponentError, match="'eliptical-slice'; did you mean 'elliptical-slice'") as caught:
        posterax.get("eliptical-slice", kind="sampler")
    assert "one:elliptical-slice" in str(caught.value)
    assert "two:judge" not in str(caught.value)
    with pytest.raises(UnknownComponentError, match="did you mean 'one:elliptical-slice'"):
        posterax.get("on:elliptical-slice")
    with pytest.raises(UnknownComponentError, match=r"no component of kind 'wish' is called 'x'\. There is none"):
        posterax.get("x", kind="wish")
    with pytest.raises(LookupError, match="two:judge is of kind 'reward'"):
        posterax.get("judge", kind="sampler")
    with pytest.raises(LookupError, match="two:judge is of kind 'reward'"):
        posterax.get("two:judge", kind="sampler")


def test_an_unknown_name_mentions_the_broken_plugins_that_might_have_had_it(site, monkeypatch):
    site.install("posterax-bad", "import no_such_module_anywhere")
    site.good("posterax-off", "thing")
    monkeypatch.setenv("POSTERAX_DISABLE_PLUGINS", "off")
    with pytest.raises(UnknownComponentError, match=r"may belong to the plugin 'bad' .*No module named") as caught:
        posterax.get("thing")
    assert "'off' (posterax-off 1.0), disabled" in str(caught.value)
    with pytest.raises(UnknownComponentError) as caught:
        posterax.get("elsewhere:thing")
    assert "may belong" not in str(caught.value)


def test_a_name_that_is_no_text_is_refused(site):
    with pytest.raises(ValueError, match="`name` must be a text such as 'numpyro:nuts'; got <class 'dict'>"):
        posterax.get(dict)


@pytest.mark.parametrize(
    ("target", "extra", "message"),
    [
        ("no_such_module_anywhere:A", "llm", r"No module named .* Run: pip install 'posterax-bare\[llm\]'"),
        ("no_such_module_anywhere:A", None, "No module named .* POSTERAX_DISABLE_PLUGINS=bare"),
        ("fake_posterax_bare:Missing", "llm", "has no attribute 'Missing'.* POSTERAX_DISABLE_PLUGINS=bare"),
        ("fake_exits:A", None, "SystemExit: 3"),
    ],
)
def test_a_component_that_cannot_be_imported_says_why_and_how_to_mend_it(site, target, extra, message):
    (site.folder / "fake_exits.py").write_text("raise SystemExit(3)")
    site.install(
        "posterax-bare",
        HEAD + f"@hookimpl\ndef posterax_components(): "
        f"return [ComponentSpec('a', kind='k', target={target!r}, extra={extra!r}, summary='S.')]",
    )
    assert record("bare").state == "ok"  # what is published can be listed
    with pytest.raises(PluginError, match=r"bare:a \(posterax-bare 1.0\) cannot be imported .*" + message) as caught:
        posterax.get("bare:a")
    assert caught.value.__cause__ is not None


# --- registering


def test_a_component_is_registered_in_process_and_doing_so_twice_changes_nothing(site):
    made = posterax.register(spec())
    assert made.qualified_name == "local:thing"
    assert posterax.get("thing") is posterax.get("local:thing") is dict
    assert posterax.register(spec()) == made
    assert [n for n in names() if n.startswith("local:")] == ["local:thing"]
    posterax.register(spec("second"))
    posterax.register(spec(), plugin="mine")
    assert {"local:thing", "local:second", "mine:thing"} <= set(names())
    assert record("local").owner == "registered in this process"
    assert record("local").distribution is None


def test_registering_another_component_under_the_same_name_is_an_error(site):
    posterax.register(spec())
    for other in (spec(target="builtins:list"), spec(kind="objective")):
        with pytest.raises(PluginError, match="local:thing is registered already"):
            posterax.register(other)
    assert posterax.get("local:thing") is dict


def test_nobody_registers_into_the_name_of_an_installed_plugin(site, monkeypatch):
    site.good("posterax-one", "thing")
    site.install("posterax-bad", "import no_such_module_anywhere")
    for plugin in ("one", "bad"):
        with pytest.raises(PluginError, match=f"the plugin id '{plugin}' belongs to posterax-{plugin} 1.0"):
            posterax.register(spec("new"), plugin=plugin)
    with pytest.raises(ValueError, match="`spec` must be a ComponentSpec; got 'thing'"):
        posterax.register("thing")
    for plugin in ("", "a:b", None):
        with pytest.raises(ValueError, match="`plugin` must be a plugin id"):
            posterax.register(spec(), plugin=plugin)


def test_reload_finds_what_was_installed_or_mended_and_keeps_what_was_registered(site):
    module = site.install("posterax-bad", "import no_such_module_anywhere")
    posterax.register(spec())
    assert record("bad").state == "error"
    (site.folder / f"{module}.py").write_text(HEAD + "@hookimpl\ndef posterax_components(): return []")
    site.good("posterax-new", "newcomer")
    assert record("bad").state == "error"
    assert "new:newcomer" not in names()
    _registry.reload()
    assert record("bad").state == "ok"
    assert {"new:newcomer", "local:thing"} <= set(names())


def test_an_isolated_registry_holds_what_it_is_given_and_nothing_else(site):
    site.good("posterax-one", "other")
    posterax.register(spec("outer"))
    before = names()
    with posterax.isolated(spec(), plugin="mine"):
        assert names() == ["mine:thing"]
        posterax.register(spec("inner"))
        with pytest.raises(UnknownComponentError):
            posterax.get("other")
        with posterax.isolated():
            assert posterax.plugins() == []
        assert names() == ["local:inner", "mine:thing"]
    assert names() == before
    with pytest.raises(ZeroDivisionError), posterax.isolated():
        1 / 0
    assert names() == before


# --- the way back: from a class to its name


def test_a_class_and_its_instances_know_their_qualified_name(site):
    site.good("posterax-one", "thing")
    thing = posterax.get("thing")
    assert posterax.qualified_name(thing) == posterax.qualified_name(thing()) == "one:thing"
    assert posterax.qualified_name(type("Thing", (thing,), {})) is None
    assert posterax.qualified_name(dict) is None
    assert posterax.qualified_name(3) is None
    assert posterax.qualified_name(None) is None


def test_a_function_has_a_qualified_name_too(site):
    with posterax.isolated(spec(kind="kernel", target="textwrap:dedent")):
        assert posterax.qualified_name(posterax.get("thing")) == "local:thing"


def test_a_class_published_from_another_place_than_its_own_is_recognised(site, monkeypatch):
    home, shop, closed = ModuleType("fake_home"), ModuleType("fake_shop"), "fake_never_imported"
    exec("class Thing:\n    class Inner: pass", home.__dict__)
    shop.Thing, shop.Renamed = home.Thing, home.Thing.Inner
    for module in (home, shop):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (site.folder / f"{closed}.py").write_text("raise Exception('imported')")
    with posterax.isolated(
        spec("a", target=f"{closed}:Thing"),
        spec("b", target="fake_shop:Thing"),
        spec("c", target="fake_shop:Renamed"),
    ):
        assert posterax.qualified_name(home.Thing) == "local:b"
        assert posterax.qualified_name(home.Thing.Inner()) == "local:c"
    assert closed not in sys.modules


def test_a_class_published_through_a_lazy_package_is_recognised(site):
    package = site.folder / "fake_lazy"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from posterax.plugin import lazy\n"
        "__getattr__, __dir__ = lazy(__name__, {'_home': ('Thing',), '_heavy': ('Heavy',)})\n"
    )
    (package / "_home.py").write_text("class Thing: pass")
    (package / "_heavy.py").write_text("class Heavy: pass")
    import fake_lazy._home

    with posterax.isolated(spec("h", target="fake_lazy:Heavy"), spec("t", target="fake_lazy:Thing")):
        assert posterax.qualified_name(fake_lazy._home.Thing) == "local:t"
    assert "fake_lazy._heavy" not in sys.modules


def test_of_two_names_for_one_class_its_own_plugin_speaks(site):
    site.good("posterax-zz", "thing", module="fake_zz")
    site.install(
        "posterax-aa",
        HEAD + "@hookimpl\ndef posterax_components(): "
        "return [ComponentSpec('mine', kind='k', target='fake_zz:Thing', summary='S.')]",
    )
    assert posterax.get("aa:mine") is posterax.get("zz:thing")
    assert posterax.qualified_name(posterax.get("aa:mine")) == "zz:thing"


# --- what pluggy itself must go on doing, since guarding relies on it


def test_pluggy_still_registers_an_unknown_hook_without_a_word():
    mark = pluggy.HookimplMarker("posterax")
    module = ModuleType("plugin")
    module.posterax_component = mark(lambda: [])
    manager = pluggy.PluginManager("posterax")
    manager.register(module)
    with pytest.raises(pluggy.PluginValidationError, match="unknown hook"):
        manager.check_pending()
