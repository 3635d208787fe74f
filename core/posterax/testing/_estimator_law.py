"""Is what the estimator infers the posterior? Exact answers, calibration, and densities that agree with draws."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._keys import named
from .._precision import precision
from .._save import load, save
from ._answers import as_answer
from ._calibration import Round, over_simulations
from ._check import check
from ._coverage import coverage as coverage_of
from ._estimator_form import asking, drawn, fitted, joint_of, numbers, parameter_like
from ._process import _counting, compared
from ._run import Context
from ._sbc import sbc as sbc_of
from ._statistics import Functions, are_uniform, mean_is_zero
from ._verdict import Verdict, fine, odds, require, skip

_CURE = "Look at the scale of the answer, at which observations it was learned from, and at the order of names."
_EACH = 500  # draws of each fit
_DRAWS = 99  # to rank the truth among


def _by_fits(context: Context) -> bool:
    return "fits-target" in context.subject.tags and context.subject.case is None


def _over(context: Context, reduce: Any, num: int, each: int, title: str) -> dict[str, np.ndarray]:
    with precision(context.component.precision):
        return over_simulations(
            asking(context, fitted(context)), joint_of(context), reduce, num_simulations=num, num_draws=each,
            key=context.key, progress=False, title=title,
        )  # fmt: skip


@check("estimator", statistical=True)
def known_answer(context: Context) -> Verdict:
    """Ranks draws of the answer in the exact posterior: uniform, within the declared bias."""
    joint = joint_of(context)
    if not hasattr(joint, "posterior_ranks"):
        return skip("the example's joint has no exact posterior (`posterior_ranks`)")
    if _by_fits(context):
        num, each = 2 * context.size, _EACH
    else:
        num, each = 1000 * context.size, 1
    names: list[str] = []

    def ranks(made: Round, keys: Any) -> dict[str, np.ndarray]:
        names[:], u = joint.posterior_ranks(made.draws, np.asarray(made.observed)[:, None])  # pyright: ignore
        return {"u": u}

    u = _over(context, ranks, num, each, "known-answer")["u"]
    rows = u.reshape(-1, u.shape[-1])
    functions, bias = Functions(names), context.subject.bias
    pairs = slice(2 * len(names), None)  # the marginals have exact tests of their own
    dependence = mean_is_zero(functions.labels[pairs], functions(rows)[:, pairs], slack=bias)
    tests = are_uniform(names, rows, slack=bias) + dependence
    return odds(tests.p_value, f"{tests.words} ({num} data sets x {each} draws)", _expected(context), _CURE)


def _expected(context: Context) -> str:
    bias = context.subject.bias
    return "the exact posterior" + (f", within {bias:g} of its sd" if bias else "")


def _calibrated(context: Context, test: Any) -> Verdict:
    num, bias = (10 if _by_fits(context) else 200) * context.size, context.subject.bias
    with precision(context.component.precision):
        found = test(
            asking(context, fitted(context)), joint_of(context), num_simulations=num, num_draws=_DRAWS,
            key=context.key, progress=False,
        )  # fmt: skip
    u = np.stack(list(found.u.values()), axis=1)
    tests = are_uniform(list(found.u), u, slack=2 * bias if test is coverage_of else bias)
    expected = "uniform ranks of the truth" + (f", within a bias of {bias:g} sd" if bias else "")
    return odds(tests.p_value, f"{tests.words} ({len(u)} simulations x {_DRAWS} draws)", expected, _CURE)


@check("estimator", statistical=True, unless={"fits-target"})
def sbc(context: Context) -> Verdict:
    """Simulation-based calibration: ranks of the truth among draws of the answer, and of its log-likelihood."""
    return _calibrated(context, sbc_of)


@check("estimator", statistical=True, unless={"fits-target"})
def coverage(context: Context) -> Verdict:
    """Expected coverage: highest-density regions, and regions around random points (TARP)."""
    return _calibrated(context, coverage_of)


@check("estimator", statistical=True, needs={"fits-target"}, level="standard")
def sbc_by_fits(context: Context) -> Verdict:
    """Simulation-based calibration with a fit to each simulated data set."""
    return _calibrated(context, sbc_of)


@check("estimator", statistical=True)
def density(context: Context) -> Verdict:
    """Compares `log_prob` with `sample`: the density must be normalised and that of its own draws."""
    joint = joint_of(context)
    if context.subject.case is not None:
        return skip("made on the kit's own problem, whose parameter is unbounded")
    if context.component.infers == "draws":
        return skip("infers draws, which have no density")
    num = 2000 * context.size
    columns, names = [], []
    for i in range(2):
        _, observed = joint.simulate(key=named(context.key, f"data {i}"))
        found = drawn(context, fitted(context), observed, num + 400, f"density {i}")[1]
        x = np.concatenate([np.asarray(v, float).reshape(num + 400, -1) for v in found.draws.values()], axis=1)
        centre, spread = x[:400].mean(axis=0), 0.7 * np.cov(x[:400].T).reshape(x.shape[1], -1)
        columns += _ratios(x[400:], np.asarray(found.log_q, float)[400:], centre, spread)
        names += [f"data set {i}: mass under a smaller normal", f"data set {i}: its upper half"]
    tests = mean_is_zero(names, np.stack(columns, axis=1))
    return odds(
        tests.p_value, f"{tests.words} ({num} draws)", "E[r(x) / q(x)] = 1 for a normalised density r and draws x of q",
        "`log_prob` must be normalised, in the same coordinates as `sample`, Jacobian included.",
    )  # fmt: skip


def _ratios(x, log_q, centre, covariance) -> list[np.ndarray]:
    from scipy import stats

    log_r = stats.multivariate_normal.logpdf(x, centre, covariance)
    ratio = np.exp(np.clip(log_r - log_q, -50, 50))
    return [ratio - 1, ratio * np.where(x[:, 0] > centre[0], 1.0, -1.0)]


@check("estimator", level="standard")
def fitted_saved(context: Context) -> Verdict:
    """Writes the fitted estimator to a file and reads it back: the same answers."""
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    known = fitted(context)
    with precision(context.component.precision), tempfile.TemporaryDirectory() as folder:
        if _by_fits(context):
            known = known.fit(joint.target(observed), key=context.key)
        save(Path(folder) / "fitted.posterax", known)
        back = load(Path(folder) / "fitted.posterax", like=known)
    first, second = (_rows(context, one, observed) for one in (known, back))
    require(np.array_equal(first, second), "another answer after saving and loading", "the same bits")
    return fine("came back with the same answers")


def _rows(context: Context, known: Any, observed: Any) -> np.ndarray:
    if not _by_fits(context):
        return numbers(drawn(context, known, observed, 10, "saved")[1])
    parameter = jax.tree.map(jnp.zeros_like, parameter_like(joint_of(context)))
    with precision(context.component.precision):
        return numbers(as_answer(known.infer(key=context.key), parameter, 10, context.key)[0])


@check("estimator", level="standard")
def compiled_once(context: Context) -> Verdict:
    """Counts compilations of a second answer to data of equal shape: none."""
    joint, known = joint_of(context), fitted(context)
    first, second = (joint.simulate(key=named(context.key, name))[1] for name in ("first", "second"))
    drawn(context, known, first, 5, "first")
    with _counting() as count:
        drawn(context, known, second, 5, "second")
    return compared(count)


def answer(context: Context) -> dict[str, np.ndarray]:
    """Draws of an answer, for comparison between processes."""
    _, observed = joint_of(context).simulate(key=context.key)
    found = drawn(context, fitted(context, context.key), observed, 10, "process")[1]
    return {name: np.asarray(value) for name, value in found.draws.items()}
