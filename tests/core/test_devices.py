"""Work divided over devices and hosts; it is done in `devices_job.py`, which needs processes of its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax import Plan, Target, sample
from posterax_numpyro import HMC

HERE = Path(__file__).parent
PARTS = ("chains", "moved", "populations", "particles", "trained", "studied")


def started(script, devices, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)], env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def figures():
    return answer(started("devices_job.py", 4))


@pytest.mark.parametrize("part", PARTS)
def test_devices_change_at_most_the_rounding_and_one_plan_gives_the_same_bits(figures, part):
    """A divided run differs from one on a single device by rounding; exchanged keys would show as 0.1 or so."""
    distance, repeated = figures[part]
    assert distance < 2e-5
    assert repeated


def test_divided_work_has_the_right_law(figures):
    """400 draws of chains with an effective size of about 100: limits are 5 standard errors, once in a million runs."""
    assert np.all(np.abs(figures["mean"]) < 5 * 0.485 / 100**0.5)
    assert np.all(np.abs(np.array(figures["sd"]) - 1) < 5 / 200**0.5)
    assert figures["covered"] >= 0.8  # of 50 intervals of 95 %: fewer once in 100,000 runs
    assert np.all(np.abs(figures["evidence"]) < 0.15)  # four filters of 1,024 particles; one has an sd of 0.06


@pytest.mark.slow
def test_two_processes_see_the_same_numbers_as_one(figures, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [started("hosts_job.py", 2, number, port, tmp_path) for number in range(2)]
    one, other = (answer(process) for process in both)
    assert one == other
    assert (one["processes"], one["devices"]) == (2, 4)
    assert all(one["resumed"])
    alone = answer(started("devices_job.py", 4, "values"))
    for part in PARTS:
        assert np.abs(np.subtract(one["values"][part], alone[part])).max() < 2e-5, part


# Bad input


def test_plans_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match='`divide` must be "chains" or "particles"; got \'rows\''):
        Plan(devices=1, divide="rows")  # pyright: ignore
    target = Target(lambda x: -0.5 * x["x"] ** 2, like={"x": jnp.zeros(())})
    with pytest.raises(ValueError, match="`plan` divides particles; HMC has none"):
        sample(HMC(), target, num_draws=2, key=jr.key(0), plan=Plan(devices=1, divide="particles"))


def test_a_batch_that_cannot_be_divided_is_refused(figures):
    assert "`rows of a batch`=15 cannot be divided evenly over 4 devices" in figures["refused"][0]
    assert "`data` no rows to divide" in figures["refused"][1]
    assert "`number of particles`=1023 cannot be divided evenly over 4 devices" in figures["refused"][2]


def test_particles_lie_on_all_devices(figures):
    assert figures["shards"] == [4, [4, 256]]
