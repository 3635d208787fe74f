"""The kit sees what it is there to see: correct components pass at `standard`, each one-line mutant fails."""

import jax.random as jr
import mutate
import pytest
from posterax.testing import check_estimator, check_objective, check_sampler
from posterax.testing._run import Runner

pytestmark = pytest.mark.usefixtures("forgetful", "in_haste_where_it_pays")
group = lambda item: None  # each takes minutes, and none shares anything with another  # noqa: E731
CHECK = {"sampler": check_sampler, "estimator": check_estimator, "objective": check_objective}
# One of each kind in the everyday suite; all of them in the slow one.
EVERYDAY = {"density of the rejected proposal kept", "NaN rows passed over", "prior returned as posterior"}


@pytest.fixture
def in_haste_where_it_pays(request):
    """Samplers, estimators and objectives compile longer than they run; tempered populations do not."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "Tempered" not in (given.get("component"), getattr(given.get("mutant"), "component", None)):
        request.getfixturevalue("compiled_in_haste")


def first_failure(component, mutant, level):
    """The first outcome that speaks against it; None where there is none."""
    kind = mutate.kind(component)
    runner = Runner(mutate.made(component, mutant), kind, key=jr.key(1), level=level, tags=mutate.TAGS[component])
    return next((outcome for check in runner.checks if not (outcome := runner.run(check.name)).passed), None)


def test_there_are_enough_and_each_spoils_one_line():
    assert len(mutate.MUTANTS) >= 20
    assert len({mutant.name for mutant in mutate.MUTANTS}) == len(mutate.MUTANTS)
    for mutant in mutate.MUTANTS:
        text = mutate.source(mutate.kind(mutant.component) + "s")
        pairs = zip(text.splitlines(), mutate.spoilt(text, mutant).splitlines(), strict=True)
        assert sum(before != after for before, after in pairs) == 1, mutant.name


@pytest.mark.parametrize("mutant", [m for m in mutate.MUTANTS if m.name in EVERYDAY], ids=lambda m: m.name)
def test_some_mutants_are_caught_at_smoke(mutant):
    outcome = first_failure(mutant.component, mutant, "smoke")
    assert outcome is not None
    for part in (mutant.component, outcome.check, outcome.seen, outcome.expected):
        assert part in str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", mutate.MUTANTS, ids=lambda m: m.name)
def test_each_mutant_is_caught_at_standard(mutant):
    assert first_failure(mutant.component, mutant, "standard") is not None


@pytest.mark.slow
@pytest.mark.parametrize("component", mutate.TAGS)
def test_each_correct_component_passes_at_standard(component):
    CHECK[mutate.kind(component)](mutate.made(component), key=jr.key(2), level="standard", tags=mutate.TAGS[component])
