"""Is it an estimator at all? Methods, answers of the right form, and copies instead of changes in place."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist

from .._draws import Draws
from .._errors import PosteraxError, describe
from .._estimator import Estimator
from .._keys import named
from .._precision import precision
from ._answers import Answer, as_answer
from ._check import check
from ._form import LAWS, require_arguments, require_instance, said
from ._joint import JointModel
from ._problems import Gaussian
from ._run import Context
from ._verdict import Verdict, fault, fine, require, skip

_HOW = {"fits-target", "amortised"}
_DATA_SETS = 20  # discrete ones may come twice: two that differ are looked for


@check("estimator")
def interface(context: Context) -> Verdict:
    """Looks for `fit` and `infer`, their arguments, and tags that say what they promise."""
    estimator, tags = context.component, context.subject.tags
    lacking = [name for name in ("fit", "infer") if not callable(getattr(estimator, name, None))]
    require(
        not lacking,
        f"{type(estimator).__name__} has no method {', '.join(map(repr, lacking))}",
        "the methods fit, infer",
        f"Derive it from posterax.Estimator and write {', '.join(lacking)}.",
    )
    require_instance(estimator, Estimator)
    require_arguments(estimator, "fit", 1, needs_key=True)
    parameters = inspect.signature(estimator.infer).parameters
    require(
        {"prior", "key"} <= set(parameters) or any(p.kind is p.VAR_KEYWORD for p in parameters.values()),
        f"infer{inspect.signature(estimator.infer)}", "infer(observed=None, *, prior=None, key=None)",
    )  # fmt: skip
    require(
        estimator.infers in ("distribution", "draws"), f"infers = {estimator.infers!r}", "'distribution' or 'draws'"
    )
    require(len(LAWS & tags) == 1, f"the tags {sorted(tags)}", "one of the tags 'exact' and 'approximate'")
    require(
        "exact" in tags or context.subject.bias > 0, f"the tags {sorted(tags)}", "a tag such as 'bias=0.1'",
        "Declare how far posterior means and standard deviations may be off, in posterior sd.",
    )  # fmt: skip
    require(
        context.subject.case is not None or len(_HOW & tags) == 1, f"the tags {sorted(tags)}",
        "one of the tags 'fits-target' and 'amortised', or an `example` that gives an EstimatorCase",
        "`posterax.testing.TAGS` explains them.",
    )  # fmt: skip
    require(bool(inspect.getdoc(type(estimator))), "no docstring", "a docstring that says what the method is")
    return fine("methods, arguments and tags are in order")


def joint_of(context: Context) -> JointModel:
    """The problem the estimator is tried on: its author's, or the kit's."""
    case = context.subject.case
    return Gaussian() if case is None else case.joint


def parameter_like(joint: JointModel) -> dict[str, Any]:
    """Shapes of the parameter, by name."""
    return eqx.filter_eval_shape(lambda key: joint.simulate(key=key)[0], jr.key(0))


def fitted(context: Context, key=None) -> Any:
    """The estimator fitted to simulations, once a run unless a key is given; as it is where each data set is fitted."""
    if "fits-target" in context.subject.tags and context.subject.case is None:
        return context.component

    def make(key):
        with precision(context.component.precision):
            return _fit(context, key)

    return context.shared("fitted", make) if key is None else make(key)


class Simulator(eqx.Module):
    """A function of a key that gives one parameter and its observations: what an amortised estimator is fitted to."""

    joint: JointModel

    def __call__(self, key):
        """One (parameter, observations)."""
        return self.joint.simulate(key=key)


def _fit(context: Context, key) -> Any:
    case, joint = context.subject.case, joint_of(context)
    if case is not None and case.fit is not None:
        return case.fit(context.component, joint, key)
    return context.component.fit(Simulator(joint), key=key)


class Asking(eqx.Module):
    """A fitted estimator as a method: a function of (observed, key) that gives its answer.

    - `by`: the example's own function of (fitted, observed, key), if it has one.
    - `target_of`: the joint whose target is fitted for each data set; None where `infer` takes the observations.
    """

    known: Any
    by: Callable | None = None
    target_of: JointModel | None = None

    def __call__(self, observed: Any, key: Any) -> Any:
        """The distribution or draws of the parameter given `observed`."""
        if self.by is not None:
            return self.by(self.known, observed, key)
        if self.target_of is not None:
            key_fit, key = jr.split(key)
            return self.known.fit(self.target_of.target(observed), key=key_fit).infer(key=key)
        return self.known.infer(observed, key=key)


def asking(context: Context, known: Any) -> Asking:
    """How this estimator, fitted, is asked."""
    case = context.subject.case
    if case is not None:
        return Asking(known, by=case.infer)
    return Asking(known, target_of=joint_of(context) if "fits-target" in context.subject.tags else None)


def drawn(context: Context, known: Any, observed: Any, num: int, name: str) -> tuple[Any, Answer]:
    """What the estimator says to `observed`, and draws of it; `name` sets the keys."""
    with precision(context.component.precision):
        said = asking(context, known)(observed, named(context.key, f"infer {name}"))
        parameter = jax.tree.map(jnp.zeros_like, parameter_like(joint_of(context)))
        return said, as_answer(said, parameter, num, named(context.key, f"draw {name}"))[0]


def numbers(answer: Answer) -> np.ndarray:
    """All draws of an answer in one row."""
    return np.concatenate([np.asarray(value, float).ravel() for value in answer.draws.values()])


@check("estimator")
def shapes(context: Context) -> Verdict:
    """Fits, infers and draws: a copy of the same class, and draws of the parameter's form."""
    before = jax.tree.map(lambda leaf: np.array(leaf) if eqx.is_array(leaf) else leaf, context.component)
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    known = said("fit", lambda: fitted(context), "`{}` to work on the data that the tags name")
    expected = "`{}` to give draws of the parameter's names and shapes, and one log density each"
    answer, found = said("infer", lambda: drawn(context, known, observed, 7, "once"), expected)
    same = eqx.tree_equal(
        before, jax.tree.map(lambda leaf: np.array(leaf) if eqx.is_array(leaf) else leaf, context.component)
    )
    require(bool(same), "`fit` changed the estimator it was called on", "a fitted copy, and the original as it was")
    require(
        type(known) is type(context.component),
        f"`fit` gave a {type(known).__name__}",
        f"a {type(context.component).__name__}",
    )
    declared = "draws" if isinstance(answer, Draws) else "distribution"
    require(
        declared == context.component.infers,
        f"`infer` gave {type(answer).__name__}",
        f"{context.component.infers}, as `infers` says",
    )
    log_q = found.log_q
    require(np.isfinite(numbers(found)).all(), "draws that are not finite", "finite draws")
    require(
        log_q is None or np.isfinite(np.asarray(log_q)).all(), "log densities of its own draws that are not finite",
        "finite ones",
    )  # fmt: skip
    shapes = ", ".join(f"{name}{list(np.shape(value)[1:])}" for name, value in found.draws.items())
    return fine(f"infers {type(answer).__name__} of {shapes}")


@check("estimator")
def uses_data(context: Context) -> Verdict:
    """Infers from two data sets that differ, and twice from one: other data, other answers; same key, same bits."""
    joint, known = joint_of(context), fitted(context)
    simulated = (joint.simulate(key=named(context.key, f"data {i}"))[1] for i in range(_DATA_SETS))
    one = next(simulated)
    other = next((observed for observed in simulated if not eqx.tree_equal(observed, one)), None)
    if other is None:
        return skip(f"{_DATA_SETS} simulated data sets are all the same")
    answers = [numbers(drawn(context, known, observed, 50, "each")[1]) for observed in (one, one, other)]
    require(
        np.array_equal(answers[0], answers[1]),
        "two answers to one question under one key differ",
        "the same bits",
        "Keep no memory outside the fitted copy.",
    )
    require(
        not np.allclose(answers[0], answers[2], rtol=1e-5, atol=1e-6),
        "the answers to two different data sets are the same",
        "answers that depend on `observed`",
        "Look at what becomes of `observed`.",
    )
    return fine("same data, same bits; other data, another answer")


@check("estimator", level="standard")
def refitted(context: Context) -> Verdict:
    """Fits twice with one key, with another fit in between: the same bits; with another key it still runs."""
    _, observed = joint_of(context).simulate(key=context.key)
    once = lambda key: numbers(drawn(context, fitted(context, key), observed, 20, "refitted")[1])  # noqa: E731
    first, other, again = once(named(context.key, "a")), once(named(context.key, "b")), once(named(context.key, "a"))
    require(
        np.array_equal(first, again),
        "two fits under one key differ, with another fit in between",
        "the same bits",
        "Look for state in globals or class attributes.",
    )
    require(np.isfinite(other).all(), "a fit under another key gives draws that are not finite", "finite draws")
    return fine("same key, same bits")


@check("estimator", level="standard", unless={"missing-data"})
def nan_observed(context: Context) -> Verdict:
    """Infers from NaN: an error, or an answer that is NaN; never a number that looks like one."""
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    broken = jax.tree.map(
        lambda leaf: (
            jnp.full(jnp.shape(leaf), jnp.nan) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf
        ),
        observed,
    )
    if eqx.tree_equal(broken, observed):
        return skip("the observations have no floating numbers")
    try:
        found = drawn(context, fitted(context), broken, 20, "NaN")[1]
    except (PosteraxError, ValueError, TypeError) as error:
        return fine(f"refused: {describe(error)[:80]}")
    silent = np.isfinite(numbers(found)).all() and (found.log_q is None or np.isfinite(np.asarray(found.log_q)).all())
    require(
        not silent, "finite draws and densities from observations that are all NaN", "an error, or NaN",
        "Refuse NaN, or let it through; say so by the tag 'missing-data' where it has a meaning.",
    )  # fmt: skip
    return fine("NaN in, NaN out")


@check("estimator", level="standard")
def unfitted(context: Context) -> Verdict:
    """Infers before any fit: an answer, or an error that says to fit first."""
    joint = joint_of(context)
    _, observed = joint.simulate(key=context.key)
    try:
        context.component.infer(observed, key=context.key)
    except (PosteraxError, ValueError, TypeError) as error:
        return fine(f"refused: {describe(error)[:80]}")
    except Exception as error:
        return fault(describe(error)[:300], "a ValueError that says to call `fit` first")
    return fine("infers without a fit")


@check("estimator", level="standard", unless={"fits-target"})
def prior_heeded(context: Context) -> Verdict:
    """Infers under a prior far away: another answer, or an error that says that `prior` cannot be changed."""
    if context.subject.case is not None:
        return skip("made on the kit's own problem")
    joint, known = joint_of(context), fitted(context)
    _, observed = joint.simulate(key=context.key)
    far = dist.Normal(4.0, 0.1).expand([2]).to_event(1)
    like = jax.tree.map(jnp.zeros_like, parameter_like(joint))
    with precision(context.component.precision):
        usual = as_answer(known.infer(observed, key=context.key), like, 50, context.key)[0]
        try:
            other = known.infer(observed, prior=far, key=context.key)
        except (PosteraxError, ValueError, TypeError, NotImplementedError) as error:
            return fine(f"refused: {describe(error)[:80]}")
        other = as_answer(other, like, 50, context.key)[0]
    require(
        not np.allclose(numbers(usual), numbers(other), atol=1e-3), "the same answer under another prior",
        "another answer, or an error", "Use `prior`, or refuse it: a user who gives one counts on it.",
    )  # fmt: skip
    return fine("another prior, another answer")
