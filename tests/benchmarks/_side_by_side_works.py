"""The works of the side-by-side: who does them, at which sizes, what is measured, and whether answers agree."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Side(NamedTuple):
    """Who does a work: `program` of `_side_by_side_programs`, in an environment of its own or in ours."""

    name: str
    program: str
    environment: str | None = None


class Measure(NamedTuple):
    """A figure of one run; less is better."""

    unit: str
    of: Callable[[dict[str, float]], float]  # of a run's seconds and what else it told
    briefly: str = ""  # in the README's table


class Work(NamedTuple):
    """What is done alike by posterax, the first of the sides, and by its peers.

    - `base`: the sizes, by their letters, in the order in which programs take them.
    - `grown`: the sizes that one letter takes while the others stay at the base.
    - `check`: says how far the answers are from what is known or from each other, and raises where that is too far.
    - `served`: the sides ask a server, whose port is told to them after the sizes.
    """

    name: str
    title: str
    sides: tuple[Side, ...]
    base: Mapping[str, int]
    grown: Mapping[str, tuple[int, ...]]
    measures: tuple[Measure, ...]
    check: Callable[[Mapping[str, int], Mapping[str, float]], str]
    served: bool = False

    def points(self, quick: bool) -> list[dict[str, int]]:
        """The sizes to measure at, each once; the least two of each letter where it must be quick."""
        found = []
        for letter, sizes in self.grown.items():
            for size in sizes[:2] if quick else sizes:
                point = {**self.base, letter: size}
                if point not in found:
                    found.append(point)
        return found


def _seconds(times: float = 1.0):
    return lambda run: times * run["seconds"]


def _relative(at, values):
    ours, *theirs = values.values()
    off = max((abs(value / ours - 1) for value in theirs), default=0.0)
    _least(off, 1e-8, "answers differ")
    return f"answers differ by {off:.1e} at most"


def _near_one(at, values):
    for value in values.values():
        _least(abs(value - 1), 0.2, "variance off 1")
    return "mean square (1 is true): " + _named(values, "{:.3f}")


def _near_kalman(at, values):
    from _particles_peers import exact

    known = exact(at["T"])
    variance = 0.4 * at["T"] / at["N"]  # of the log evidence, roughly; its mean is half of that too low
    for value in values.values():
        _least(abs(value - known), 10 * math.sqrt(variance) + variance, "log evidence is off the exact one")
    return f"log evidence less Kalman's {known:.2f}: " + _named({k: v - known for k, v in values.items()}, "{:+.2f}")


def _same_process(at, values):
    """The peers' Gaussian process is the same; ours has the network's kernel."""
    theirs = [value for name, value in values.items() if name != "posterax"]
    off = max((abs(value / theirs[0] - 1) for value in theirs), default=0.0)
    _least(off, 1e-4, "the peers' log evidences differ")
    return "log evidence (two models): " + _named(values, "{:.2f}")


def _finite(what: str):
    def check(at, values):
        for value in values.values():
            if not math.isfinite(value):
                raise RuntimeError(f"an answer is {value}")
        return f"{what}: {_named(values, '{:.4g}')}"

    return check


def _whole_texts(at, values):
    from _its_hub_server import STEPS

    for value in values.values():
        _least(abs(value - at["N"] * STEPS), 0, "not all particles were written to the end")
    return f"{at['N'] * STEPS} steps of text each"


def _least(off: float, most: float, what: str) -> None:
    if not off <= most:
        raise RuntimeError(f"{what}: {off:.3g} where at most {most:.3g} is right")


def _named(values: Mapping[str, float], shape: str) -> str:
    return ", ".join(f"{name} {shape.format(value)}" for name, value in values.items())


WORKS = (
    Work(
        "nuts",
        "NUTS on D correlated normals (autoregression, 0.7), 300 steps of warm-up and 500 draws a chain",
        (Side("posterax", "nuts"), Side("NumPyro", "nuts-numpyro"), Side("BlackJAX", "nuts-blackjax", "blackjax")),
        {"D": 100, "chains": 4},
        {"D": (10, 100, 1000), "chains": (1, 4, 16)},
        (
            Measure("ms an effective draw (the worst mean)", lambda run: 1e3 * run["execution"] / run["ess"],
                    "NUTS, an effective draw"),
            Measure("µs a leapfrog step of the draws", lambda run: 1e6 * run["execution"] / run["leapfrogs"],
                    "NUTS, a leapfrog step"),
        ),
        _near_one,
    ),
    Work(
        "filter",
        "Bootstrap filter of a scalar linear-Gaussian model, N particles, T steps, systematic resampling at each",
        (
            Side("posterax", "filter"), Side("particles", "filter-particles", "particles"),
            Side("BlackJAX resampling", "filter-blackjax", "blackjax"),
        ),
        {"N": 10_000, "T": 250},
        {"N": (1_000, 10_000, 100_000), "T": (250, 1_000, 4_000)},
        (Measure("s a run", _seconds(), "bootstrap particle filter"),),
        _near_kalman,
    ),
    Work(
        "gram",
        "Gram matrix (NNGP) of a ReLU network of depth 3, n rows of 8 inputs, float64",
        (Side("posterax", "gram"), Side("neural-tangents", "gram-neural-tangents", "neural-tangents")),
        {"n": 250},
        {"n": (250, 500, 1_000, 2_000)},
        (Measure("ms", _seconds(1e3), "NNGP Gram matrix"),),
        _relative,
    ),
    Work(
        "evidence",
        "Log evidence with gradient, n rows of 8 inputs, float64; our kernel a network's, theirs Matern 5/2",
        (
            Side("posterax", "evidence"), Side("GPyTorch", "evidence-gpytorch", "gpytorch"),
            Side("tinygp", "evidence-tinygp", "gpjax-tinygp"), Side("GPJax", "evidence-gpjax", "gpjax-tinygp"),
        ),
        {"n": 250},
        {"n": (250, 500, 1_000, 2_000)},
        (Measure("ms", _seconds(1e3), "log evidence with gradient"),),
        _same_process,
    ),
    Work(
        "gaps",
        "Slopes of the log-likelihood of snapshots of a jump process of 6 states, so many different gaps, float64",
        (Side("posterax", "gaps"), Side("SciPy expm in a loop", "gaps-scipy")),
        {"gaps": 10},
        {"gaps": (10, 100, 1_000, 10_000)},
        (Measure("ms", _seconds(1e3), "jump process, likelihood with gradient"),),
        _relative,
    ),
    Work(
        "marginal",
        "Log marginals of D binary variables of 300 rows: the marginal network, or a chain of conditionals one by one",
        (Side("posterax", "marginal"), Side("chain of passes", "marginal-chain")),
        {"D": 16},
        {"D": (16, 64, 256)},
        (Measure("ms", _seconds(1e3), "log marginals of 300 rows"),),
        _finite("sum of log marginals, before training, when the two need not agree"),
    ),
    Work(
        "training",
        "50 training steps of the order-agnostic loss, D binary variables, batches of 128, the same network",
        (Side("posterax", "training"), Side("PyTorch", "training-torch", "gpytorch")),
        {"D": 16},
        {"D": (16, 64, 256)},
        (Measure("s", _seconds(), "50 order-agnostic training steps"),),
        _finite("last loss"),
    ),
    Work(
        "language",
        "Particle filter over 6 steps of text, N particles, a local server with fixed times of its answers",
        (Side("posterax", "language"), Side("its-hub", "language-its-hub", "its-hub")),
        {"N": 4},
        {"N": (4, 16)},
        (Measure("s a run", _seconds(), "language filter on a paced server"),),
        _whole_texts,
        served=True,
    ),
)  # fmt: skip
