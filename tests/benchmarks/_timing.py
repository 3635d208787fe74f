"""What the measurements share: clocks, the compiler's share of the time, fresh processes, and facts on the machine."""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Figure(NamedTuple):
    """What one row measured."""

    value: float | None  # None: not measured, and `text` is the reason
    text: str


class Failed(Exception):
    """A process that a measurement needs ended badly; the message is the last line it said."""


def rows(*names: str) -> Callable:
    """Mark a generator of (row id, Figure) with the ids that it will yield."""

    def mark(measure):
        measure.rows = names
        return measure

    return mark


def spread(samples: Iterable[float], digits: int = 3) -> str:
    """The median and the quartiles, in words."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return f"{middle:.{digits}f} (quartiles {low:.{digits}f} to {high:.{digits}f})"


def matrix_product(size: int = 1024) -> float:
    """Seconds for a fixed product of two float32 matrices in NumPy: how fast the machine is at this moment."""
    import numpy as np

    left = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    began = time.perf_counter()
    left @ left
    return time.perf_counter() - began


class Stopwatch:
    """Wall time of a block, and the part of it that JAX says went into tracing, lowering and compiling.

    JAX reports the seconds of each such event when it ends. Events nest (a traced function calls jitted ones), so the
    compiler's part is the length of the union of their intervals.
    """

    _events: list[tuple[str, float, float]] | None = None

    def __init__(self):
        if Stopwatch._events is None:
            import jax.monitoring

            Stopwatch._events = events = []
            jax.monitoring.register_event_duration_secs_listener(
                lambda name, seconds, **_: events.append((name, time.perf_counter(), seconds))
            )

    def __enter__(self):
        self._first = len(Stopwatch._events)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.wall = time.perf_counter() - self._began
        mine = [e for e in Stopwatch._events[self._first :] if e[0].startswith("/jax/core/compile/")]
        self.compiled = sum(name.endswith("backend_compile_duration") for name, _, _ in mine)
        self.traced = sum(name.endswith("jaxpr_trace_duration") for name, _, _ in mine)
        self.compile = _union([(end - seconds, end) for _, end, seconds in mine])
        self.execution = self.wall - self.compile


def _union(intervals: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def fresh(name: str, function: str, *arguments: Any, **environment: str) -> Any:
    """What `function` of the module `_name` returns in a process of its own; the persistent compilation cache is off.

    - `environment`: variables to set, or to unset where empty.
    """
    return started(name, function, *arguments, **environment)()


def started(name: str, function: str, *arguments: Any, **environment: str) -> Callable[[], Any]:
    """As `fresh`, but returns at once; the call of what it returns waits for the answer."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "POSTERAX_DISABLE", "POSTERAX_PLUGINS"))}
    child = subprocess.Popen(
        [sys.executable, str(HERE / "bench.py"), "--in-child", name, function, json.dumps(arguments)],
        env={**clean, "JAX_PLATFORMS": "cpu", **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def answer():
        try:
            out, err = child.communicate()
        finally:
            child.kill()
        if child.returncode != 0:
            said = err.strip().splitlines() or [f"exit status {child.returncode}"]
            raise Failed(said[-1])
        return json.loads(out.splitlines()[-1])

    return answer


def answer_as_child(name: str, function: str, arguments: str) -> None:
    """The other side of `fresh`: prints the result as the last line."""
    result = getattr(module(name), function)(*json.loads(arguments))
    print(json.dumps(result))


def data_folder(name: str) -> Path | None:
    """The folder of that name in POSTERAX_DATA, else in shared/data; None where there is none."""
    named = os.environ.get("POSTERAX_DATA")
    places = [Path(named)] if named else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    return next((place / name for place in places if (place / name).is_dir()), None)


def module(name: str) -> Any:
    """The module that measures `name`."""
    return load(HERE / f"_{name}.py")


def load(path: Path) -> Any:
    """A module from a file, under the file's own name."""
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def machine() -> str:
    """Which machine and versions, in a few lines."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = next(iter(named), processor)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    product = spread([1e3 * matrix_product() for _ in range(15)], 1)
    said = " ".join(f"{name} {number}" for name, number in versions().items())
    return f"{cores} cores ({processor}), load {load}; 1024 x 1024 float32 product {product} ms\n{said}"


def versions() -> dict[str, str]:
    """Python's and the packages' versions that decide what is measured."""
    found = {"python": platform.python_version()}
    for name in ("posterax", "jax", "jaxlib", "numpyro", "equinox", "arviz"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
