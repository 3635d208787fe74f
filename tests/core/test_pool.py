"""JAX's pool of threads on two cores, in processes of their own: its size is settled once."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a process bound to two cores")

TWO_CORES = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n"
# Eight factorisations of batches at once, in a loop: with two threads it hung in five of five runs.
FACTORISE = """
import posterax
import jax, jax.numpy as jnp

def body(step, z):
    matrices = [base * (1 + jnp.cos(z + part)[:, None, None] ** 2) for part in range(8)]
    return sum(jnp.linalg.cholesky(matrix)[:, -1, 0] for matrix in matrices) / 8

with jax.enable_x64(True):
    base = jnp.eye(15) * 15 + jnp.ones((500, 15, 15))
    print(jax.jit(lambda z: jax.lax.fori_loop(0, 300, body, z))(jnp.linspace(0, 1, 500)).sum())
"""


def run(code, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "NPROC"} | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", TWO_CORES + code], env=kept | environment, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(("given", "found"), [({}, "16"), ({"NPROC": "3"}, "3")])
def test_there_are_many_threads_unless_a_number_was_given(given, found):
    code = "import posterax, os, sys; print(os.environ['NPROC'], 'jax' in sys.modules)"
    assert run(code, **given).stdout.split() == [found, "False"]


def test_batches_that_are_factorised_at_once_end():
    done = run(FACTORISE)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
