"""Seconds of ours beside a peer's, in pairs that take turns; the peer lives in an environment of its own."""

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from _timing import HERE, ROOT, Failed, Figure, matrix_product, spread

_PAIRS = 15
ENVIRONMENTS = {
    "neural-tangents": ("neural-tangents==0.6.5", "jax==0.4.36", "jaxlib==0.4.36", "numpy<2"),
    "gpytorch": ("gpytorch==1.15.2", "torch==2.13.0"),
    "gpjax-tinygp": ("gpjax==1.0.0", "tinygp==0.3.1", "jax==0.10.2"),
    "particles": ("particles==0.4", "numpy<2"),
    "blackjax": ("blackjax==1.7.1", "jax==0.10.2"),
    "transformers": ("transformers==5.23.0", "torch==2.13.0"),
    "its-hub": ("its-hub[lm]==1.2.0",),
    "cthmm": ("cthmm==0.0.3", "pandas==2.3.3", "scipy==1.16.3"),
}


# Environments


class Unavailable(Exception):
    """An environment that could not be made; the message says why."""


def environment(name: str) -> Path:
    """The Python of a peer's environment under .cache/peers, which is made where it is not there yet.

    Raises `Unavailable` with what pip said.
    """
    wanted = "\n".join(ENVIRONMENTS[name]) + "\n"
    folder = ROOT / ".cache" / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another benchmark may be at it: it is waited for
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            _said_by(name, sys.executable, "-m", "venv", "--clear", str(folder))
            _said_by(name, str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name])
            stamp.write_text(wanted)  # last, so that an installation that was cut off starts anew
    return python


def _said_by(name: str, *command: str) -> None:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"no environment of {name}: {error}") from None
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unavailable(f"no environment of {name}: {next((s for s in lines if s.startswith('ERROR')), lines[-1])}")


# Pairs of timings


class Child:
    """A process that waits for requests and answers each with the seconds of one computation."""

    def __init__(self, label: str, python: Path | str, script: str, program: str):
        self.label = label
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "POSTERAX_", "PYTHON"))}
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(python), str(HERE / script), program], env={**clean, "JAX_PLATFORMS": "cpu"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip
        self.before = self.peak = self.value = float("nan")
        self.told: dict[str, float] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def ready(self) -> None:
        """Waits until the program has been set up and run once."""
        answer = self._answer()
        self.before, self.peak = answer["before"], answer["peak"]

    def seconds(self) -> float:
        print(file=self._process.stdin, flush=True)
        answer = self._answer()
        self.peak, self.value, self.told = answer["peak"], answer["value"], answer["told"]
        return answer["seconds"]

    def memory(self) -> str:
        return f"{self.label} {self.peak:.0f} MiB ({self.before:.0f} of it before the first computation)"

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or [f"exit status {self._process.returncode}"]
            raise Failed(f"{self.label}: {said[-1]}")
        return json.loads(line)


def in_turn(children: list[Child], number: int) -> Iterator[Child]:
    """The children in order, or in reverse where the number of the round is odd."""
    for child in reversed(children) if number % 2 else children:
        time.sleep(0.02)  # threads that still wait in a loop for work have gone to sleep
        yield child


def race(
    name: str | None, ours: tuple[str, str], peer: str, programs: tuple[str, ...], script: str
) -> tuple[Figure, list[Child]]:
    """Seconds of ours / the peer's, in pairs that take turns; further programs of the peer are timed beside them.

    - `name`: of the peer's environment; None for our own.
    - `ours`: script and program of ours; `script`, `programs`: the peer's.
    """
    try:
        python = sys.executable if name is None else environment(name)
    except Unavailable as reason:
        return Figure(None, str(reason)), []
    with ExitStack() as stack:
        children = [Child("ours", sys.executable, *ours)]
        children += [Child(program, python, script, program) for program in programs]
        for child in children:
            stack.enter_context(child)
        for child in children:
            child.ready()
        times: dict[str, list[float]] = {child.label: [] for child in children}
        products = []
        for number in range(_PAIRS):
            products.append(matrix_product())
            for child in in_turn(children, number):
                times[child.label].append(child.seconds())
    ratios = [a / b for a, b in zip(times["ours"], times[programs[0]], strict=True)]
    others = "".join(
        f"\nto {name}: {spread([a / b for a, b in zip(times['ours'], times[name], strict=True)])}"
        for name in programs[1:]
    )
    seconds = [f"{child.label} {statistics.median(times[child.label]):.3f} s" for child in children]
    text = (
        f"{spread(ratios)} over {_PAIRS} pairs with {peer}{others}\n"
        f"{', '.join(seconds)}; fixed matrix product {spread([1e3 * p for p in products], 1)} ms\n"
        f"peak memory: {', '.join(child.memory() for child in children)}"
    )
    return Figure(statistics.median(ratios), text), children
