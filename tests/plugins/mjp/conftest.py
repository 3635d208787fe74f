import pytest


@pytest.fixture(autouse=True, scope="module")
def compiled_in_haste(few_optimisations):
    """All modules of this plugin."""
