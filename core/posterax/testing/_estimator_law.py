"""Is what the estimator infers the posterior? Exact answers, calibration, and densities that agree with draws."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._keys import named
from .._precision import precision
from .._save import load, save
from ._check import check
from ._estimator_form import asking, fitted, infer, joint_of, parameter_like
from ._exact_start import scalars
from ._joint import simulate_many
from ._posterior import draws_of, many
from ._process import _counting, compared
from ._run import Context
from ._statistics import Tests, are_uniform, mean_is_zero
from ._verdict import Verdict, fine, odds, require, skip

_CURE = "Look at the scale of the answer, at which observations it was learned from, and at the order of names."
_EACH = 500


def _by_fits(context: Context) -> bool:
    return "fits-target" in context.subject.tags and context.subject.case is None


class _Answers(NamedTuple):
    """Simulated truths and data, and what the estimator says to each; leading axis the data sets."""

    parameter: dict[str, np.ndarray]
    observed: Any
    values: dict[str, np.ndarray]  # (s, each, *shape)
    log_q: np.ndarray | None  # (s, each)
    log_q_truth: np.ndarray | None  # (s,)


def _answers(context: Context, num: int, each: int) -> _Answers:
    parameter, observed = simulate_many(joint_of(context), num, key=named(context.key, "simulate"))
    key = named(context.key, "infer")
    with precision(context.component.precision):
        found = many(asking(context), fitted(context), parameter, observed, each, key=key)
    done = len(next(iter(found[0].values())))
    found = jax.tree.map(np.asarray, ((parameter, observed), *found))
    (parameter, observed), values, log_q, at_truth = found
    require(all(np.isfinite(value).all() for value in values.values()), "draws that are not finite", "finite draws")
    first = lambda tree: jax.tree.map(lambda leaf: leaf[:done], tree)  # noqa: E731
    return _Answers(first(parameter), first(observed), values, log_q, at_truth)


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
    found = _answers(context, num, each)
    names, u = joint.posterior_ranks(found.values, found.observed[:, None])  # pyright: ignore[reportAttributeAccessIssue]
    rows = u.reshape(-1, u.shape[-1])
    both = np.clip(rows, 1e-12, 1 - 1e-12)
    tests = are_uniform(names, both, slack=context.subject.bias) + _dependence(names, both, context.subject.bias)
    return odds(tests.p_value, f"{tests.words} ({num} data sets x {each} draws)", _expected(context), _CURE)


def _dependence(names, u: np.ndarray, slack: float) -> Tests:
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    first = np.sqrt(3.0) * (2 * u - 1)
    products = np.stack([first[:, i] * first[:, j] for i, j in pairs], axis=1) if pairs else np.zeros((len(u), 0))
    return mean_is_zero([f"dependence of {names[i]} and {names[j]}" for i, j in pairs], products, slack=slack)


def _expected(context: Context) -> str:
    bias = context.subject.bias
    return "the exact posterior" + (f", within {bias:g} of its sd" if bias else "")


@eqx.filter_jit
def _quantities(joint: Any, parameter, observed, values):
    """The parameter's scalars and its log-likelihood, of the truths and of the draws."""

    def of(parameter, observed):
        found = scalars(parameter)
        if joint.posterior is not None:
            target = joint.target(observed)
            terms = target.density.terms(target.unconstrain(parameter))
            found["log-likelihood"] = jnp.asarray(terms.log_likelihood)
        return found

    each = jax.vmap(jax.vmap(of, in_axes=(0, None)))
    return jax.vmap(of)(parameter, observed), each(values, observed)


def _uniforms(context: Context, found: _Answers) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ranks of the truth among draws as uniform numbers: those of calibration, and those of coverage."""
    tables = _quantities(joint_of(context), found.parameter, found.observed, found.values)
    truth, drawn = jax.tree.map(lambda leaf: np.asarray(leaf, float), tables)
    rng = np.random.default_rng(np.asarray(jr.key_data(context.key), np.uint32).ravel())
    sbc = {name: _rank(truth[name], drawn[name], rng) for name in truth}
    names = [name for name in truth if name != "log-likelihood"]
    true, draws = (np.stack([tree[name] for name in names], axis=-1) for tree in (truth, drawn))
    # TARP: distances from points that know nothing of the truth; here the truths of other data sets.
    point, spread = np.roll(true, 1 + len(true) // 3, axis=0), true.std(axis=0) + 1e-12
    far = np.sqrt(np.sum(((true - point) / spread) ** 2, axis=-1))
    of_draws = np.sqrt(np.sum(((draws - point[:, None]) / spread) ** 2, axis=-1))
    covered = {"distance to a random point (TARP)": _rank(far, of_draws, rng)}
    if found.log_q is not None and found.log_q_truth is not None:
        covered["highest-density regions"] = _rank(found.log_q_truth, found.log_q, rng)
    return sbc, covered


def _rank(truth: np.ndarray, drawn: np.ndarray, rng) -> np.ndarray:
    """The rank of each truth among its draws, as a uniform number; ties broken at random."""
    below = (drawn < truth[:, None]).sum(axis=1)
    ties = (drawn == truth[:, None]).sum(axis=1)
    return (below + rng.uniform(size=len(truth)) * (ties + 1)) / (drawn.shape[1] + 1)


def _calibrated(context: Context, coverage: bool) -> Verdict:
    num, each, bias = (10 if _by_fits(context) else 200) * context.size, 99, context.subject.bias
    columns = _uniforms(context, _answers(context, num, each))[coverage]
    u = np.stack(list(columns.values()), axis=1)
    tests = are_uniform(list(columns), u, slack=2 * bias if coverage else bias)
    expected = "uniform ranks of the truth" + (f", within a bias of {bias:g} sd" if bias else "")
    return odds(tests.p_value, f"{tests.words} ({len(u)} simulations x {each} draws)", expected, _CURE)


@check("estimator", statistical=True, unless={"fits-target"})
def sbc(context: Context) -> Verdict:
    """Simulation-based calibration: ranks of the truth among draws of the answer, and of its log-likelihood."""
    return _calibrated(context, coverage=False)


@check("estimator", statistical=True, unless={"fits-target"})
def coverage(context: Context) -> Verdict:
    """Expected coverage: highest-density regions, and regions around random points (TARP)."""
    return _calibrated(context, coverage=True)


@check("estimator", statistical=True, needs={"fits-target"}, level="standard")
def sbc_by_fits(context: Context) -> Verdict:
    """Simulation-based calibration with a fit to each simulated data set."""
    return _calibrated(context, coverage=False)


@check("estimator", statistical=True)
def density(context: Context) -> Verdict:
    """Compares `log_prob` with `sample`: the density must be normalised and that of its own draws."""
    joint = joint_of(context)
    if context.subject.case is not None:
        return skip("made on the kit's own problem, whose parameter is unbounded")
    if context.component.infers == "draws":
        return skip("infers draws, which have no density")
    num = 2000 * context.size
    like, columns, names = parameter_like(joint), [], []
    with precision(context.component.precision):
        known = fitted(context)
        for i in range(2):
            _, observed = joint.simulate(key=named(context.key, f"data {i}"))
            answer = infer(context, known, observed, named(context.key, "infer"))
            values, log_q = draws_of(answer, like, num + 400, key=named(context.key, f"draw {i}"))
            x = np.concatenate([np.asarray(v, float).reshape(num + 400, -1) for v in values.values()], axis=1)
            centre, spread = x[:400].mean(axis=0), 0.7 * np.cov(x[:400].T).reshape(x.shape[1], -1)
            columns += _ratios(x[400:], np.asarray(log_q, float)[400:], centre, spread, context.key)
            names += [f"data set {i}: mass under a smaller normal", f"data set {i}: its upper half"]
    tests = mean_is_zero(names, np.stack(columns, axis=1))
    return odds(
        tests.p_value, f"{tests.words} ({num} draws)", "E[r(x) / q(x)] = 1 for a normalised density r and draws x of q",
        "`log_prob` must be normalised, in the same coordinates as `sample`, Jacobian included.",
    )  # fmt: skip


def _ratios(x, log_q, centre, covariance, key) -> list[np.ndarray]:
    from scipy import stats

    log_r = stats.multivariate_normal.logpdf(x, centre, covariance)
    ratio = np.exp(np.clip(log_r - log_q, -50, 50))
    return [ratio - 1, ratio * np.where(x[:, 0] > centre[0], 1.0, -1.0)]


@check("estimator", level="standard")
def fitted_saved(context: Context) -> Verdict:
    """Writes the fitted estimator to a file and reads it back: the same answers."""
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    with precision(context.component.precision):
        known = fitted(context)
        if _by_fits(context):
            known = known.fit(joint.target(observed), key=context.key)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder) / "fitted.posterax", known)
            back = load(Path(folder) / "fitted.posterax", like=known)
        answers = []
        for one in (known, back):
            answer = one.infer(key=context.key) if _by_fits(context) else infer(context, one, observed, context.key)
            answers.append(draws_of(answer, parameter_like(joint), 10, key=context.key)[0])
    require(
        all(np.array_equal(answers[0][n], answers[1][n]) for n in answers[0]), "another answer after saving and loading", "the same bits"
    )
    return fine("came back with the same answers")


@check("estimator", level="standard")
def compiled_once(context: Context) -> Verdict:
    """Counts compilations of a second answer to data of equal shape: none."""
    joint = joint_of(context)
    like = parameter_like(joint)
    known = fitted(context)

    def run(name):
        _, observed = _simulated(context, joint, name)
        with precision(context.component.precision):
            draws_of(infer(context, known, observed, named(context.key, name)), like, 5, key=context.key)

    run("first")
    _simulated(context, joint, "second")
    with _counting() as count:
        run("second")
    return compared(count)


def _simulated(context, joint, name):
    return joint.simulate(key=named(context.key, name))


def answer(context: Context) -> dict[str, np.ndarray]:
    """Draws of an answer, for comparison between processes."""
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    with precision(context.component.precision):
        known = fitted(context, context.key)
        values, _ = draws_of(infer(context, known, observed, context.key), parameter_like(joint), 10, key=context.key)
    return {name: np.asarray(value) for name, value in values.items()}
