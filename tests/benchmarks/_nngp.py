"""What posterax_nngp must reach: the speed of neural-tangents, GPyTorch, tinygp and GPJax, each in its environment."""

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import _nngp_digits
import _nngp_peers
import _nngp_uci
import _study
from _nngp_peers import BIAS_VARIANCE, DEPTH, NOISE, WEIGHT_VARIANCE, D, N
from _timing import HERE, ROOT, Failed, Figure, fresh, matrix_product, rows, spread, started

_PAIRS = 15
_ENVIRONMENTS = {
    "neural-tangents": ("neural-tangents==0.6.5", "jax==0.4.36", "jaxlib==0.4.36", "numpy<2"),
    "gpytorch": ("gpytorch==1.15.2", "torch==2.13.0"),
    "gpjax-tinygp": ("gpjax==1.0.0", "tinygp==0.3.1", "jax==0.10.2"),
}


# What posterax computes, in a process of its own: `python _nngp.py PROGRAM`


def our_gram():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from posterax_nngp import MLPKernel

    jax.config.update("jax_enable_x64", True)
    kernel = MLPKernel(depth=DEPTH, weight_variance=WEIGHT_VARIANCE, bias_variance=BIAS_VARIANCE)
    gram = eqx.filter_jit(lambda kernel, x: kernel.nngp(x))
    x = jnp.asarray(_nngp_peers.data()[0])
    return lambda: jax.block_until_ready(gram(kernel, x))


def our_evidence():
    import jax

    once = log_evidence_and_gradient(*_nngp_peers.data())
    return lambda: jax.block_until_ready(once())


def log_evidence_and_gradient(x, y):
    """ADAPTER, the one place that knows the regression's interface.

    Returns a function without arguments: (log evidence, gradient in weight variance, bias variance, noise and the
    prior's two parameters) of a ReLU network under an inverse gamma prior of the scale and tied noise, compiled once.
    """
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from posterax_nngp import MLPKernel
    from posterax_nngp._parameters import LEARNABLE, Hyper, unconstrained
    from posterax_nngp._regression_fit import value_and_gradient

    jax.config.update("jax_enable_x64", True)
    kernel = MLPKernel(depth=DEPTH, weight_variance=WEIGHT_VARIANCE, bias_variance=BIAS_VARIANCE)
    hyper = Hyper(kernel, NOISE, dist.InverseGamma(2.0, 2.0)).widened()
    free, x, y = unconstrained(hyper, LEARNABLE), jnp.asarray(x), jnp.asarray(y)[:, None]
    return lambda: value_and_gradient(free, hyper, x, y, None, True, False)


_OURS = {"gram": our_gram, "evidence": our_evidence}


# Environments


class Unavailable(Exception):
    """An environment that could not be made; the message says why."""


def environment(name: str) -> Path:
    """The Python of a peer's environment under .cache/peers, which is made where it is not there yet.

    Raises `Unavailable` with what pip said.
    """
    wanted = "\n".join(_ENVIRONMENTS[name]) + "\n"
    folder = ROOT / ".cache" / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another benchmark may be at it: it is waited for
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            _said_by(name, sys.executable, "-m", "venv", "--clear", str(folder))
            _said_by(name, str(python), "-m", "pip", "install", "--quiet", *_ENVIRONMENTS[name])
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

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def ready(self) -> None:
        """Waits until the program has been set up and run once."""
        self.before = self._answer()["before"]

    def seconds(self) -> float:
        print(file=self._process.stdin, flush=True)
        answer = self._answer()
        self.peak, self.value = answer["peak"], answer["value"]
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


def race(name: str, ours: str, peer: str, programs: tuple[str, ...]) -> tuple[Figure, list[Child]]:
    """Seconds of ours / the peer's, in pairs that take turns; further programs of the peer are timed beside them."""
    try:
        python = environment(name)
    except Unavailable as reason:
        return Figure(None, str(reason)), []
    with ExitStack() as stack:
        children = [Child("ours", sys.executable, "_nngp.py", ours)]
        children += [Child(program, python, "_nngp_peers.py", program) for program in programs]
        for child in children:
            stack.enter_context(child)
        for child in children:
            child.ready()
        times: dict[str, list[float]] = {child.label: [] for child in children}
        products = []
        for number in range(_PAIRS):
            products.append(matrix_product())
            for child in reversed(children) if number % 2 else children:
                time.sleep(0.02)  # threads that still wait in a loop for work have gone to sleep
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


@rows("gram")
def gram():
    figure, children = race("neural-tangents", "gram", "neural-tangents 0.6.5", ("neural-tangents-gram",))
    if children:
        ours, theirs = (child.value for child in children)
        if not abs(ours / theirs - 1) < 1e-10:
            raise RuntimeError(f"the two Gram matrices are not the same: sums {ours!r} and {theirs!r}")
    yield "gram", figure


@rows("evidence-gpytorch")
def evidence_gpytorch():
    """Its exact evidence, by Cholesky factor. At this size its default is an estimate by conjugate gradients and
    stochastic Lanczos quadrature, some nats off, which is timed beside it.
    """
    programs = ("gpytorch-cholesky-evidence", "gpytorch-evidence")
    yield "evidence-gpytorch", _evidence("gpytorch", "GPyTorch 1.15.2", programs)


@rows("evidence-tinygp")
def evidence_tinygp():
    yield "evidence-tinygp", _evidence("gpjax-tinygp", "tinygp 0.3.1", ("tinygp-evidence",))


@rows("evidence-gpjax")
def evidence_gpjax():
    yield "evidence-gpjax", _evidence("gpjax-tinygp", "GPJax 1.0.0", ("gpjax-evidence",))


def _evidence(name: str, peer: str, programs: tuple[str, ...]) -> Figure:
    figure, children = race(name, "evidence", peer, programs)
    if not children:
        return figure
    values = ", ".join(f"{child.label} {child.value:.3f}" for child in children)
    return Figure(figure.value, f"{figure.text}\nlog evidence at n = {N}, d = {D} (two models): {values}")


# Regression on UCI data: quality, not speed


def uci(name: str, row: str):
    """A row for one data set: how far the mean NLL is above that of the specification's simpler search, at most.

    Where the specification has none, the number of splits.
    """

    @rows(row)
    def measure():
        if _nngp_uci.folder() is None:
            yield row, Figure(None, "no uci/ in POSTERAX_DATA, shared/data or ../shared/data")
            return
        splits, *sanity = _nngp_uci.SANITY.get(name, (2,))
        if _study.FULL:
            python = environment("gpytorch")
            results = _study.study(f"nngp-uci-{name}", range(20), lambda number: _whole(python, name, number))
        else:
            models = ("s by ML", "inverse gamma")
            halves = [
                started("nngp_uci", "on_splits", core, name, list(range(core, splits, 2)), models) for core in (0, 1)
            ]
            results = [result for half in halves for result in half()]
        means = [statistics.mean(result[m]["nll"] for result in results[:splits]) for m in ("s by ML", "inverse gamma")]
        excess = [mean - known for mean, known in zip(means, sanity, strict=False)]
        yield row, Figure(max(excess, default=len(results)), _nngp_uci.table(name, results))

    return measure


def _whole(python: Path, name: str, number: int) -> dict:
    rows_of_split = _nngp_uci.split(name, number)
    return {**_nngp_uci.ours(*rows_of_split), **_nngp_uci.peers(python, *rows_of_split)}


@rows("shift-tail")
def shift_tail():
    """The upper tail of an input held out, about a tenth of the rows; up to three inputs of each data set."""
    if _nngp_uci.folder() is None:
        yield "shift-tail", Figure(None, "no uci/ in POSTERAX_DATA, shared/data or ../shared/data")
        return
    names = ("yacht", "bostonHousing", "energy", *(["concrete"] if _study.FULL else []))
    pairs = [(name, column) for name in names for column in _nngp_uci.columns(name)]
    halves = [started("nngp_uci", "on_tails", core, pairs[core::2]) for core in (0, 1)]
    results = [result for half in halves for result in half()]
    yield "shift-tail", Figure(len(results), _nngp_uci.table("held-out tails", results))


@rows("shift-digits")
def shift_digits():
    """Trained on clean digits, asked about corrupted ones. Without FULL=1 a small version of one seed."""
    small = not _study.FULL
    results = _study.study("nngp-digits", _study.seeds(1, 5), lambda seed: fresh("nngp_digits", "one", seed, small))
    yield "shift-digits", Figure(len(results), _nngp_digits.table(_nngp_digits.summary(results)))


@rows("large-memory")
def large_memory():
    """41,157 rows of 9 inputs, 500 inducing points; RMSE to the noiseless function, whose standard deviation is 1."""
    said = fresh("nngp_large", "fit")
    text = ", ".join(f"{name} {value:.3g}" for name, value in said.items())
    yield "large-memory", Figure(said["gib"], text)


MEASURES = (
    gram, evidence_gpytorch, evidence_tinygp, evidence_gpjax, uci("yacht", "uci-yacht"),
    uci("bostonHousing", "uci-boston"), uci("energy", "uci-energy"), uci("concrete", "uci-concrete"),
    uci("wine-quality-red", "uci-wine"), shift_tail, shift_digits, large_memory,
)  # fmt: skip


if __name__ == "__main__":
    _nngp_peers.serve(_OURS[sys.argv[1]])
