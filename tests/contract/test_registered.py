"""Every registered component passes through the kit: one that is added later is covered without a new line here."""

import jax
import jax.random as jr
import posterax
import pytest
from posterax.testing import check_sampler, parametrize_with_checks

KINDS = ("sampler", "estimator", "objective")
REGISTERED = [c.qualified_name for c in posterax.components() if c.spec.kind in KINDS]

# Left to `standard`, for another component of the kind passes through it every day: these take longest.
LATER = {
    "numpyro:hmc": {"exact-start-regression", "mixing"},
    "particles:particle-gibbs": {"exact-start-regression", "mixing"},
    "nngp:scale-mixture-nngp-classifier": {"sbc", "coverage"},
    "marginalization:marginalization-model": {"sbc", "coverage"},
    "marginalization:db": {"gradient", "reproducible"},
    "marginalization:kl": {"reproducible"},
}


def everyday(cases):
    """A parametrisation without what comes later."""
    name, params = cases.args
    return pytest.mark.parametrize(
        name, [p for p in params if p.values[0].name not in LATER.get(p.values[0].component, ())]
    )


def group(item):
    """Workers take all checks of a component together: they share what is compiled, warmed up and fitted."""
    case = item.callspec.params["check"] if hasattr(item, "callspec") else None
    return None if case is None else f"{item.originalname} {case.component}"


@pytest.fixture(autouse=True)
def in_haste_where_it_pays(request):
    """A long program and a short run; most other checks run longer than they compile, NUTS in a funnel above all."""
    case = request.node.callspec.params["check"] if hasattr(request.node, "callspec") else None
    if case is not None and case.name == "exact-start-regression":
        request.getfixturevalue("compiled_in_haste")


def test_something_is_registered():
    assert {"numpyro:nuts", "numpyro:hmc", "numpyro:svi"} <= set(REGISTERED)


@everyday(parametrize_with_checks(REGISTERED, level="smoke"))
def test_every_registered_component_conforms(check):
    check()


@pytest.mark.slow
@parametrize_with_checks(REGISTERED, level="standard", seed=1)
def test_every_registered_component_conforms_at_standard(check):
    check()


@pytest.mark.slow
def test_what_a_second_call_compiles_does_not_depend_on_what_ran_before():
    jax.clear_caches()
    check_sampler("numpyro:hmc", level="standard", only=["compiled-once"], key=jr.key(0))
