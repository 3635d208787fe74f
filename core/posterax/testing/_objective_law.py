"""Does training by the objective find the truth? Gradients, their mean at the truth, and where the minimum lies."""

import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from scipy import stats

from .._checkpoint import Checkpoint
from .._keys import named
from .._precision import precision
from .._train import train
from ._check import check
from ._objective_form import begin, case_of, parameter_names, perturbed
from ._process import _counting, compared
from ._run import Context
from ._statistics import mean_is_zero
from ._verdict import Verdict, fine, odds, require, skip

_ADAM = optax.adam(3e-2)  # made once: another one would compile anew


@check("objective", unless={"surrogate"})
def gradient(context: Context) -> Verdict:
    """Compares the gradient with finite differences in 64 bits, along random directions."""
    case, objective = case_of(context), context.component
    with precision(64):
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array(x) else x, tree)  # noqa: E731
        objective = wide(objective)
        batch = wide(case.batch(named(context.key, "batch")))
        worst = 0.0
        for i in range(4):
            key = jr.fold_in(context.key, i)
            model = wide(perturbed(case.model, None, 0.1, named(key, "model")))
            state = wide(objective.init(model, key=key))
            arrays, rest = eqx.partition(model, eqx.is_inexact_array)
            direction = perturbed(jax.tree.map(jnp.zeros_like, arrays), None, 1.0, named(key, "direction"))
            exact, slope = _slopes(objective, arrays, rest, batch, state, direction, key)
            require(np.isfinite(exact) and np.isfinite(slope), "a gradient that is not finite", "a finite gradient")
            worst = max(worst, abs(exact - slope) / (1e-3 + abs(exact) + abs(slope)))
    require(
        worst < 1e-3,
        f"gradient and finite difference differ by {worst:.2g}, relatively",
        "agreement to 1e-3",
        "Look at stop_gradient, custom derivatives and rounding; tag 'surrogate' where only the gradient counts.",
    )
    return fine(f"agrees with finite differences to {worst:.0e}")


def _slopes(objective, arrays, rest, batch, state, direction, key) -> tuple[float, float]:
    step, model = 1e-5, eqx.combine(arrays, rest)
    at = lambda t: _along(objective, model, batch, state, direction, key, jnp.asarray(t))  # noqa: E731
    slope = {s: float(at(s * step)[0]) for s in (-2, -1, 1, 2)}
    # Richardson's: the error is of fourth order in the step.
    difference = (8 * (slope[1] - slope[-1]) - (slope[2] - slope[-2])) / (12 * step)
    return float(at(0.0)[1]), difference


@eqx.filter_jit
def _along(objective, model, batch, state, direction, key, t):
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(t):
        there = eqx.combine(jax.tree.map(lambda a, d: a + t * d, arrays, direction), rest)
        return objective.loss(there, batch, state, key=key)[0]

    return jax.value_and_grad(loss)(t)


@eqx.filter_jit
def _gradients(objective, model, batch_of, state, keys, chosen):
    def one(key):
        def loss(model):
            return objective.loss(model, batch_of(named(key, "batch")), state, key=named(key, "loss"))[0]

        gradient = eqx.filter_grad(loss)(model)
        gradient = gradient if chosen is None else chosen(gradient)
        return jnp.concatenate(
            [jnp.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array))]
        )

    return jax.vmap(one)(keys)


@check("objective", needs={"proper"}, statistical=True)
def score(context: Context) -> Verdict:
    """Averages the gradient at the truth over simulated batches: zero."""
    case, objective = case_of(context), context.component
    num = 1000 * context.size
    with precision(objective.precision):
        state = begin(context, case, context.key)
        keys = jr.split(named(context.key, "batches"), num)
        rows = np.asarray(_gradients(objective, case.model, case.batch, state, keys, case.optimum), float)
    require(np.isfinite(rows).all(), "gradients at the truth that are not finite", "finite gradients")
    require(
        (rows.std(axis=0) > 0).any(),
        "a gradient at the truth that is always zero",
        "one that varies with the batch",
        "Look at stop_gradient.",
    )
    names = parameter_names(case.model) if case.optimum is None else [f"parameter {i}" for i in range(rows.shape[1])]
    tests = mean_is_zero([f"gradient of {name}" for name in names], rows)
    return odds(
        tests.p_value, f"{tests.words} ({num} batches)", "a gradient of mean zero at the truth",
        "Look at missing terms, at what is paired with what, and at averages of ratios.",
    )  # fmt: skip


@eqx.filter_jit
def _differences(objective, model, batch_of, state, keys, moves, chosen):
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def one(key):
        batch = batch_of(named(key, "batch"))
        value = lambda model: objective.loss(model, batch, state, key=named(key, "loss"))[0]  # noqa: E731
        moved = lambda move: value(_moved(model, arrays, rest, move, chosen))  # noqa: E731
        return jax.vmap(moved)(moves) - value(model)

    return jax.vmap(one)(keys)


def _moved(model, arrays, rest, move, chosen):
    there = eqx.combine(jax.tree.map(jnp.add, arrays, move), rest)
    return there if chosen is None else eqx.tree_at(chosen, model, chosen(there))


@check("objective", needs={"proper"}, statistical=True)
def truth_wins(context: Context) -> Verdict:
    """Compares the loss at the truth with that of models beside it, on the same batches: the truth is lower."""
    case, objective = case_of(context), context.component
    num, beside = 200 * context.size, 12
    with precision(objective.precision):
        state = begin(context, case, context.key)
        arrays = eqx.filter(case.model, eqx.is_inexact_array)
        draw = lambda key: perturbed(jax.tree.map(jnp.zeros_like, arrays), None, 0.4, key)  # noqa: E731
        moves = jax.vmap(draw)(jr.split(named(context.key, "moves"), beside))
        keys = jr.split(named(context.key, "batches"), num)
        rows = np.asarray(_differences(objective, case.model, case.batch, state, keys, moves, case.optimum), float)
    require(np.isfinite(rows).all(), "losses beside the truth that are not finite", "finite losses")
    require((rows != 0).any(), "a loss that is the same for all models", "one that tells them apart")
    z = np.sqrt(num) * rows.mean(axis=0) / np.maximum(rows.std(axis=0, ddof=1), 1e-30)
    p_values = stats.t.cdf(z, num - 1)
    lowest = int(np.argmin(z))
    return odds(
        min(1.0, beside * p_values[lowest]),
        f"beside the truth the loss is higher by {rows.mean(axis=0)[lowest]:.3g} at least "
        f"({z[lowest]:+.1f} standard errors, {num} batches)",
        "a loss that is not lower beside the truth",
        "Look at signs, missing terms, and what is paired with what.",
    )


@check("objective", needs={"stochastic"}, statistical=True)
def unbiased(context: Context) -> Verdict:
    """Averages the loss of a batch over keys: its exact value, where the example gives one."""
    case, objective = case_of(context), context.component
    if case.exact is None:
        return skip("the example gives no `exact`")
    from ._objective_form import losses

    with precision(objective.precision):
        model = perturbed(case.model, None, 0.2, named(context.key, "model"))
        state, batch = begin(context, case, context.key), case.batch(named(context.key, "batch"))
        rows = np.asarray(losses(objective, model, batch, state, jr.split(context.key, 1000 * context.size)), float)
        exact = float(case.exact(model, batch))
    tests = mean_is_zero(["mean loss"], (rows - exact)[:, None])
    return odds(
        tests.p_value,
        f"{tests.words}: {rows.mean():.5g} on average",
        f"{exact:.5g}",
        "Look at keys used twice, and at weights.",
    )


@check("objective", needs={"proper"}, level="standard")
def recovers(context: Context) -> Verdict:
    """Trains from a model beside the truth: it must come closer."""
    case = case_of(context)
    start = perturbed(case.model, case.optimum, 0.5, named(context.key, "start"))
    trained = train(
        start, context.component, case.batch, num_steps=400, optimiser=_ADAM, key=context.key, progress=False
    )
    before, after = _distance(start, case), _distance(trained.model, case)
    require(
        after < 0.5 * before,
        f"distance from the truth {before:.3g} before and {after:.3g} after 400 steps",
        "half as far, at most",
    )
    return fine(f"distance from the truth {before:.2f} before, {after:.2f} after 400 steps")


def _distance(model, case) -> float:
    pick = (lambda m: m) if case.optimum is None else case.optimum
    pairs = zip(
        jax.tree.leaves(eqx.filter(pick(model), eqx.is_inexact_array)),
        jax.tree.leaves(eqx.filter(pick(case.model), eqx.is_inexact_array)), strict=True,
    )  # fmt: skip
    return float(np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in pairs)))


def _trained(context: Context, where=None, num_steps: int = 20):
    case = case_of(context)
    model = perturbed(case.model, case.optimum, 0.2, named(context.key, "start"))
    return train(
        model, context.component, case.batch, num_steps=num_steps, optimiser=_ADAM, key=context.key, progress=False,
        checkpoint=where,
    )  # fmt: skip


@check("objective", level="standard")
def resumed(context: Context) -> Verdict:
    """Stops training with checkpoints half-way and resumes it: the bits of the uninterrupted run."""
    whole = _trained(context)
    with tempfile.TemporaryDirectory() as folder:
        where = Checkpoint(folder, every=0.0)
        _trained(context, where, 10)
        again = _trained(context, where)
    require(
        np.array_equal(whole.losses, again.losses) and bool(eqx.tree_equal(whole.model, again.model)),
        "resumed training differs from the uninterrupted one",
        "the same bits",
        "All that evolves belongs in the state.",
    )
    return fine("resumed to the same bits")


@check("objective", level="standard")
def compiled_once(context: Context) -> Verdict:
    """Counts compilations of training again with another key: none."""
    case = case_of(context)
    once = {"num_steps": 5, "optimiser": _ADAM, "progress": False}
    train(case.model, context.component, case.batch, key=context.key, **once)
    with _counting() as count:
        train(case.model, context.component, case.batch, key=named(context.key, "again"), **once)
    return compared(count)


def answer(context: Context) -> dict[str, np.ndarray]:
    """Losses of a short training, for comparison between processes."""
    return {"losses": np.asarray(_trained(context).losses)}
