import dataclasses

import pytest
from posterax.plugin import API_VERSION, ComponentSpec, DemoSpec, PluginInfo, SubcommandSpec

GOOD = {"kind": "sampler", "target": "package._module:Class", "summary": "What it does."}


def test_a_component_is_frozen_data_with_its_tags_as_a_set():
    spec = ComponentSpec("nuts", **GOOD, tags=["exact", "exact"], extra="llm", source="A paper (2014)")
    assert spec.tags == {"exact"}
    assert hash(spec) == hash(ComponentSpec("nuts", **GOOD, tags={"exact"}, extra="llm", source="A paper (2014)"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


@pytest.mark.parametrize("name", ["nuts", "order-agnostic-arm", "p2", "hmc-2"])
def test_names_of_words_and_hyphens_are_accepted(name):
    for kind in (ComponentSpec, SubcommandSpec, DemoSpec):
        extra = GOOD if kind is ComponentSpec else {key: GOOD[key] for key in ("target", "summary")}
        assert kind(name, **extra).name == name


@pytest.mark.parametrize("name", ["", "NUTS", "a_b", "-a", "a-", "a--b", "2d", "a b", "a:b", "nuts\n", "é", None, 3])
def test_other_names_are_refused(name):
    for cls in (ComponentSpec, SubcommandSpec, DemoSpec):
        extra = GOOD if cls is ComponentSpec else {key: GOOD[key] for key in ("target", "summary")}
        with pytest.raises(ValueError, match=f"{cls.__name__}: `name` must be lower-case words joined by hyphens"):
            cls(name, **extra)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("EllipticalSlice", "elliptical-slice"),
        ("NUTS", "nuts"),
        ("tempered_smc", "tempered-smc"),
        ("A B", "a-b"),
    ],
)
def test_a_refused_name_comes_with_the_right_spelling(name, cure):
    with pytest.raises(ValueError, match=f"got '{name}'. Write '{cure}'"):
        ComponentSpec(name, **GOOD)


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("kind", "Language Model", "lower-case words joined by hyphens"),
        ("kind", None, "lower-case words joined by hyphens"),
        ("target", "package.module", "a text 'module:Attribute'"),
        ("target", "package:", "a text 'module:Attribute'"),
        ("target", ".relative:Class", "a text 'module:Attribute'"),
        ("target", "package:Class()", "a text 'module:Attribute'"),
        ("target", "package:Class\n", "a text 'module:Attribute'"),
        ("target", object, "a text 'module:Attribute'"),
        ("summary", "", "one line of text"),
        ("summary", "two\nlines", "one line of text"),
        ("summary", None, "one line of text"),
        ("tags", "exact", "a collection of words"),
        ("tags", [1], "a collection of words"),
        ("tags", None, "a collection of words"),
        ("extra", "", "one line of text or None"),
        ("source", 2014, "one line of text or None"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected_and_what_came(argument, value, expected):
    with pytest.raises(ValueError, match=f"`{argument}` must be {expected}") as caught:
        ComponentSpec("nuts", **(GOOD | {argument: value}))
    assert repr(value) in str(caught.value)


def test_nested_targets_and_open_kinds_are_accepted():
    spec = ComponentSpec("a", kind="language-model", target="a.b._c:Outer.Inner", summary="S.")
    assert spec.target == "a.b._c:Outer.Inner"


@pytest.mark.parametrize("api", [(1,), (1, 0, 0), "1.0", [1, 0], (1, -1), (1.0, 0), (True, False), None])
def test_an_api_version_is_two_whole_numbers(api):
    with pytest.raises(ValueError, match=r"PluginInfo: `api` must be two whole numbers \(major, minor\)"):
        PluginInfo("S.", api=api)


def test_what_is_said_without_an_api_was_written_for_the_first():
    assert PluginInfo("S.").api == (1, 0) <= API_VERSION
