"""Does a weighted population stand for the target? Its evidence, its weighted averages, and its end."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from .._draws import Draws
from .._errors import PosteraxError
from .._keys import named
from .._precision import precision
from .._sample import sample
from .._tree import strengthen
from ._check import check
from ._regression import OBSERVED, regression_target
from ._run import Context
from ._statistics import Functions, mean_is_zero
from ._verdict import Verdict, fault, fine, odds, require, skip

_CURE = (
    "Look at weights set back (or not) after resampling, at the constant in the evidence, at biased resampling, and at "
    "the temperature of the last step."
)


def _populations(context: Context, key, *, edge=np.inf, outside=-np.inf) -> Draws:
    # As many in all checks of a level: one program then serves them all.
    num = 200 * context.size
    target = context.target if context.own else regression_target(OBSERVED, edge, outside)
    return sample(context.component, target, num_chains=num, key=key, progress=False, throw=False)


_MOST_STEPS = 10_000


@check("sampler", needs={"population"}, unless={"host"})
def ends(context: Context) -> Verdict:
    """Steps one population until it is done."""
    sampler = context.component
    with precision(sampler.precision):
        steps, done = _until_done(sampler, context.target, context.key)
    require(
        bool(done), f"`done` is still False after {_MOST_STEPS} steps", "a population that reaches its target",
        "Let `done` say True once the population stands for the target.",
    )  # fmt: skip
    return fine(f"done after {int(steps)} steps")


@eqx.filter_jit
def _until_done(sampler, target, key):
    first = strengthen(sampler.init(target, key=named(key, "init")))

    def step(carry):
        i, state = carry
        return i + 1, strengthen(sampler.step(target, state, key=jr.fold_in(key, i))[0])

    steps, state = jax.lax.while_loop(lambda c: ~sampler.done(c[1]) & (c[0] < _MOST_STEPS), step, (0, first))
    return steps, sampler.done(state)


@check("sampler", needs={"population"}, statistical=True)
def evidence(context: Context) -> Verdict:
    """Runs many independent populations: their evidence must be right on average, and so must what it weights."""
    draws = _populations(context, named(context.key, "run"))
    num = draws.num_chains
    log_weights = _log_weights(draws)
    require(np.isfinite(log_weights).any(axis=1).all(), "populations without any finite weight", "weights")
    names, functions, ratio = _weighted(context, draws)
    if ratio is None:
        ess = _ess(log_weights)  # self-normalised averages are biased by order 1 / particles
        tests = mean_is_zero(names, functions, slack=5 / ess)
        expected = f"the exact posterior, within the bias of self-normalised weights ({5 / ess:.2g})"
    else:
        columns = np.concatenate([ratio[:, None] - 1, ratio[:, None] * functions], axis=1)
        tests = mean_is_zero(["evidence", *names], columns)
        expected = "E[Z] = Z, and E[Z f] = 0 for functions of posterior mean zero: both unbiased whatever the particles"
    seen = f"{tests.words} ({num} populations of {draws.num_draws})"
    return odds(tests.p_value, seen, expected, _CURE, relative_sd=None if ratio is None else float(ratio.std()))


def _first_scalar(draws: Draws) -> np.ndarray:
    value = np.asarray(draws["variance"] if "variance" in draws.values else next(iter(draws.values.values())))
    return value.reshape(*value.shape[:2], -1)[..., -1]


def _log_weights(draws: Draws) -> np.ndarray:
    return np.zeros(draws.shape) if draws.log_weights is None else np.asarray(draws.log_weights, float)


def _ess(log_weights: np.ndarray) -> float:
    """The effective sample size, on average over populations; NaN where one has no weight at all."""
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return float(np.mean(weights.sum(axis=1) ** 2 / np.sum(weights**2, axis=1)))


def _weighted(context: Context, draws: Draws) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Weighted averages of functions with posterior mean zero, by population; evidence over the exact one."""
    names, u = context.joint.posterior_ranks(draws.values, context.observed)  # pyright: ignore[reportAttributeAccessIssue]
    of = Functions(names)
    log_weights = _log_weights(draws)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    usable = np.where(weights[..., None] > 0, u, 0.5)
    functions = np.stack([w @ of(row) for w, row in zip(weights, usable, strict=True)])
    if draws.log_evidence is None:
        return of.labels, functions, None
    exact = context.joint.log_evidence(context.observed)  # pyright: ignore[reportAttributeAccessIssue]
    return of.labels, functions, np.exp(np.asarray(draws.log_evidence, float) - exact)


@check("sampler", needs={"population"})
def weights(context: Context) -> Verdict:
    """Looks at one population's weights on an easy posterior: finite, and not carried by a few particles."""
    draws = _populations(context, context.key)
    require(draws.result.value == "successful", draws.result.words, "a population that reaches its target")
    log_weights = _log_weights(draws)
    require(
        not np.isnan(log_weights).any() and not np.isposinf(log_weights).any(),
        "weights that are NaN or +inf",
        "weights",
    )
    values = np.concatenate([np.ravel(value) for value in draws.values.values()])
    require(np.isfinite(values).all(), "positions that are not finite", "finite positions")
    ess = _ess(log_weights)
    require(
        ess >= 10,
        f"an effective sample size of {ess:.1f} of {draws.num_draws}",
        "10 or more on an easy posterior",
    )
    distinct = np.mean([len(np.unique(row)) for row in _first_scalar(draws)])
    require(distinct >= 10, f"{distinct:.0f} distinct particles of {draws.num_draws}", "10 or more")
    return fine(f"effective sample size {ess:.0f} of {draws.num_draws}, {distinct:.0f} distinct particles")


@check("sampler", needs={"population"})
def reproducible_population(context: Context) -> Verdict:
    """Runs `sample` twice with one key and once with another."""
    first, again = (_populations(context, context.key) for _ in range(2))
    other = _populations(context, named(context.key, "other"))
    for name in first.values:
        require(np.array_equal(first[name], again[name]), "two runs with one key differ", "the same bits")
        require(not np.array_equal(first[name], other[name]), "another key gave the same particles", "other particles")
    require(
        len(np.unique(_first_scalar(first).round(7), axis=0)) == first.num_chains, "independent populations are equal",
        "populations that differ",
    )  # fmt: skip
    if first.log_evidence is not None and again.log_evidence is not None:
        require(
            np.array_equal(first.log_evidence, again.log_evidence), "evidence differs under one key", "the same bits"
        )
    tree = first.to_datatree(key=context.key)
    require("posterior" in tree.children, "a DataTree without `posterior`", "one with it")
    return fine("same key, same bits")


@check("sampler", needs={"population"})
def outside_population(context: Context) -> Verdict:
    """Cuts the density off, by zero and by NaN: particles there must carry no weight, and none may break."""
    if context.own:
        return skip("the sampler takes a problem of its own")
    for value in (-np.inf, np.nan):
        try:
            draws = _populations(context, context.key, edge=0.5, outside=value)
        except PosteraxError as error:
            return fault(str(error), f"populations that avoid where the density is {value}")
        log_weights = _log_weights(draws)
        beyond = (np.asarray(draws["beta"])[..., 0] > 0.5) & (log_weights > -np.inf)
        require(
            not np.isnan(log_weights).any(), f"weights that are NaN where the log density is {value}", "no weight",
            "Give such particles the log-weight -inf.",
        )  # fmt: skip
        share = float(np.mean(beyond))
        require(share == 0, f"{share:.1%} of the particles weighted where the log density is {value}", "none")
        broken = ~np.isfinite(np.asarray(draws["variance"])) & (log_weights > -np.inf)
        require(not broken.any(), "weighted positions that are not finite", "finite positions")
    return fine("no weight outside")
