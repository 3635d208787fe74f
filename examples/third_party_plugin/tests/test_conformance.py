"""posterax's conformance kit on the sampler: one case a check."""

from posterax.testing import parametrize_with_checks
from posterax_slice import EllipticalSlice

# The class with its tags, so that the tests also run where the plugin is on the path and not installed.
COMPONENTS = [(EllipticalSlice(num_warmup=100), {"exact", "gradient-free"})]


@parametrize_with_checks(COMPONENTS, level="smoke")
def test_conforms(check):
    check()
