"""What posterax_nngp must reach: the speed of neural-tangents, GPyTorch, tinygp and GPJax, each in its environment."""

import statistics
import sys
from pathlib import Path

import _nngp_digits
import _nngp_peers
import _nngp_uci
import _serve
import _study
from _nngp_peers import BIAS_VARIANCE, DEPTH, NOISE, WEIGHT_VARIANCE, D, N
from _race import environment, race
from _timing import Figure, fresh, rows, started

# What posterax computes, in a process of its own: `python _nngp.py PROGRAM`


def our_gram(num: int = N):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from posterax_nngp import MLPKernel

    jax.config.update("jax_enable_x64", True)
    kernel = MLPKernel(depth=DEPTH, weight_variance=WEIGHT_VARIANCE, bias_variance=BIAS_VARIANCE)
    gram = eqx.filter_jit(lambda kernel, x: kernel.nngp(x))
    x = jnp.asarray(_nngp_peers.data(num)[0])
    return lambda: jax.block_until_ready(gram(kernel, x))


def our_evidence(num: int = N):
    import jax

    once = log_evidence_and_gradient(*_nngp_peers.data(num))
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


OURS = {"gram": our_gram, "evidence": our_evidence}


# Rows


@rows("gram")
def gram():
    figure, children = race(
        "neural-tangents", ("_nngp.py", "gram"), "neural-tangents 0.6.5", ("neural-tangents-gram",), "_nngp_peers.py"
    )
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
    figure, children = race(name, ("_nngp.py", "evidence"), peer, programs, "_nngp_peers.py")
    if not children:
        return figure
    values = ", ".join(f"{child.label} {child.value:.3f}" for child in children)
    return Figure(figure.value, f"{figure.text}\nlog evidence at n = {N}, d = {D} (two models): {values}")


# Regression on UCI data: quality, not speed

_NO_DATA = Figure(None, "no uci/ in POSTERAX_DATA, shared/data or ../shared/data")
_JUDGED = ("s by ML", "inverse gamma")


def uci(name: str, row: str, anew: tuple[int, ...]):
    """A row for one data set: how far the mean NLL is above that of the specification's simpler search, at most.

    Where the specification has none, the number of splits. With FULL=1 all splits are computed. Without, the splits
    `anew` are, which must agree with what FULL=1 once wrote to results/; the means are those of what it wrote, since
    the splits differ too much from each other for a mean over a few to be compared with one over all.
    """

    @rows(row)
    def measure():
        if _nngp_uci.folder() is None:
            yield row, _NO_DATA
            return
        splits, *sanity = _nngp_uci.SANITY.get(name, (len(anew),))
        if _study.FULL:
            python = environment("gpytorch")
            results = _study.study(f"nngp-uci-{name}", range(20), lambda number: _whole(python, name, number))
            said = f"all {len(results)} splits by FULL=1"
        else:
            kept = _study.kept(f"nngp-uci-{name}", range(20))
            here = dict(
                zip(anew, _by_model("nngp_uci", "on_splits", (_JUDGED[:1], _JUDGED[1:]), name, anew), strict=True)
            )
            results, said = _nngp_uci.checked(kept, here, _nngp_uci.LOOSE.get(name, _nngp_uci.AGREE))
            if sanity and not set(range(splits)) <= set(kept):
                text = f"{said}; FULL=1 makes the others of the {splits} splits that the target is for"
                yield row, Figure(None, text)
                return
        means = [statistics.mean(result[m]["nll"] for result in results[:splits]) for m in _JUDGED]
        excess = [mean - known for mean, known in zip(means, sanity, strict=False)]
        above = ", ".join(f"{model} {off:+.4f}" for model, off in zip(_JUDGED, excess, strict=False))
        text = "\n".join(line for line in (above, said, _nngp_uci.table(name, results)) if line)
        yield row, Figure(max(excess, default=len(results)), text)

    return measure


def _by_model(module: str, function: str, halves: tuple[tuple[str, ...], ...], *arguments) -> list[dict]:
    """What a function says of some cases: some of the models on each core, so that each is compiled once."""
    waiting = [started(module, function, core, models, *arguments) for core, models in enumerate(halves)]
    return [{**first, **second} for first, second in zip(*(answer() for answer in waiting), strict=True)]


def _whole(python: Path, name: str, number: int) -> dict:
    rows_of_split = _nngp_uci.split(name, number)
    return {**_nngp_uci.ours(*rows_of_split), **_nngp_uci.peers(python, *rows_of_split)}


@rows("shift-tail")
def shift_tail():
    """The upper tail of an input held out, about a tenth of the rows; three inputs of each data set.

    Of each 250 rows at random are trained on, and as many held-out rows asked about as the smallest of the data set's
    three tails has.
    """
    if _nngp_uci.folder() is None:
        yield "shift-tail", _NO_DATA
        return
    names = ("yacht", "bostonHousing", "energy", *(["concrete"] if _study.FULL else []))
    halves = _nngp_uci.OURS[:3], _nngp_uci.OURS[3:]  # that one compiles for as long as the others together
    results = _by_model("nngp_tails", "on_tails", halves, names)
    sets = {f"held-out tails of {name}": results[3 * i : 3 * i + 3] for i, name in enumerate(names)}
    tables = [_nngp_uci.table(*one) for one in [*sets.items(), ("all held-out tails", results)]]
    yield "shift-tail", Figure(len(results), "\n".join(tables).replace(" splits", ""))


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
    gram, evidence_gpytorch, evidence_tinygp, evidence_gpjax, uci("yacht", "uci-yacht", (0, 9, 19)),
    uci("bostonHousing", "uci-boston", (0, 9, 19)), uci("energy", "uci-energy", (0, 9, 19)),
    uci("concrete", "uci-concrete", (0, 2, 4)), uci("wine-quality-red", "uci-wine", (0,)),
    uci("wine-quality-red" + _nngp_uci.DISTINCT, "uci-wine-distinct", (0,)), shift_tail, shift_digits, large_memory,
)  # fmt: skip


if __name__ == "__main__":
    _serve.serve(OURS[sys.argv[1]])
