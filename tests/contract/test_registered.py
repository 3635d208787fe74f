"""Every registered component passes through the kit: one that is added later is covered without a new line here."""

import posterax
import pytest
from posterax.testing import parametrize_with_checks

KINDS = ("sampler", "estimator", "objective")
REGISTERED = [c.qualified_name for c in posterax.components() if c.spec.kind in KINDS]


def group(item):
    """Workers take all checks of a component together: they share what is compiled, warmed up and fitted."""
    case = item.callspec.params["check"] if hasattr(item, "callspec") else None
    return None if case is None else f"{item.originalname} {case.component}"


def test_something_is_registered():
    assert {"numpyro:nuts", "numpyro:hmc", "numpyro:svi"} <= set(REGISTERED)


@parametrize_with_checks(REGISTERED, level="smoke")
def test_every_registered_component_conforms(check):
    check()


@pytest.mark.slow
@parametrize_with_checks(REGISTERED, level="standard", seed=1)
def test_every_registered_component_conforms_at_standard(check):
    check()
