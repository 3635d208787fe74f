import os
import pty
import subprocess
import sys
from pathlib import Path

CODE = """
import jax.numpy as jnp, jax.random as jr
from posterax import Target, sample
import sys
sys.path.insert(0, {folder!r})
from test_sample import RandomWalk
sample(RandomWalk(), Target(lambda x: -x**2, like=0.0), num_draws=50, key=jr.key(0), progress={progress})
print("finished")
"""


def script(progress):
    return [sys.executable, "-c", CODE.format(folder=str(Path(__file__).parent), progress=progress)]


def test_a_terminal_shows_a_bar_and_a_pipe_nothing():
    leader, follower = pty.openpty()
    with subprocess.Popen(script(None), stderr=follower, stdout=subprocess.PIPE) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
        assert process.stdout.read() == b"finished\n"
    os.close(leader)
    assert b"RandomWalk" in seen
    assert b"50/50" in seen
    quiet = subprocess.run(script(None), capture_output=True, text=True, check=True)
    assert (quiet.stdout, quiet.stderr) == ("finished\n", "")


def test_a_bar_can_be_asked_for():
    asked = subprocess.run(script(True), capture_output=True, text=True, check=True)
    assert "RandomWalk" in asked.stderr
