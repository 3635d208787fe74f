import gc
import importlib.util
import sys
from pathlib import Path

import jax
import pytest

_SPEC = importlib.util.spec_from_file_location("mutate", Path(__file__).parent / "mutants" / "mutate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
mutate = importlib.util.module_from_spec(_SPEC)
sys.modules["mutate"] = mutate
_SPEC.loader.exec_module(mutate)

collect_ignore = ["mutants"]


@pytest.fixture
def compiled_in_haste():
    """For tests that compile more than they run. A new process compiles alike, so that it gives the same bits."""
    before = jax.config.values["jax_disable_most_optimizations"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def forgetful():
    """Drop what was compiled: a process that holds hundreds of programs runs out of memory mappings."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def forgetful_between_files():
    yield
    jax.clear_caches()
    gc.collect()


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::posterax.PosteraxWarning"))
