"""Does the sampler draw from the target? Invariance, mixing, known answers, and what happens at the border."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._arviz import bulk_ess, rhat
from .._draws import Draws
from .._errors import SamplingError
from .._keys import named
from .._precision import precision
from .._sample import sample
from ._check import check
from ._exact_start import exact_start, run_exact
from ._geweke import geweke
from ._invariance import CHAINS, Invariance
from ._joint import simulate_many
from ._problems import Funnel, Path, Signs
from ._regression import OBSERVED, Regression
from ._run import Context
from ._sampler_steps import frozen
from ._statistics import Functions, mean_is_zero
from ._verdict import Verdict, fault, fine, odds, require, skip

_OWN = "the sampler takes a problem of its own"
_MOST = 5  # scalars of each value that are looked at
_CURE = (
    "Look at the acceptance ratio, at Jacobians of changes of variables, at keys used twice, and at whatever is kept "
    "from a rejected proposal."
)


def _invariant(found: Invariance, problem: str) -> Verdict:
    figures = {"problem": problem, "replicates": found.num_replicates, "moved": found.moved}
    return odds(
        found.p_value, f"{found.tests.words} ({problem}, {found.num_replicates} replicates)",
        "the joint law of parameter and observations unchanged by the transitions", _CURE, **figures,
    )  # fmt: skip


@check("sampler", needs={"exact"}, unless={"host", "population"}, statistical=True)
def exact_start_regression(context: Context) -> Verdict:
    """Moves exact draws of a regression's posterior by ten steps: their law must not change."""
    found = exact_start(
        frozen(context, context.joint), context.joint, num_replicates=2000 * context.size, num_steps=10, key=context.key
    )
    return _invariant(found, "its own problem" if context.own else "regression with unknown noise")


@check("sampler", needs={"exact"}, unless={"host", "population"}, statistical=True, level="standard")
def exact_start_funnel(context: Context) -> Verdict:
    """Moves exact draws from a funnel, whose scale changes by orders of magnitude, by twenty steps."""
    if context.own:
        return skip(_OWN)
    found = exact_start(
        frozen(context, Funnel()), Funnel(), num_replicates=1000 * context.size, num_steps=20, key=context.key
    )
    return _invariant(found, "funnel")


@check("sampler", needs={"exact"}, unless={"host", "population"}, statistical=True, level="standard")
def exact_start_two_modes(context: Context) -> Verdict:
    """Moves exact draws from posteriors with two modes of unequal weight by twenty steps."""
    if context.own:
        return skip(_OWN)
    found = exact_start(
        frozen(context, Signs()), Signs(), num_replicates=1000 * context.size, num_steps=20, key=context.key
    )
    return _invariant(found, "two modes")


@check("sampler", needs={"exact"}, unless={"host", "population"}, statistical=True, level="standard")
def exact_start_path(context: Context) -> Verdict:
    """Moves exact draws of the ten dependent states of a hidden random walk by twenty steps."""
    if context.own:
        return skip(_OWN)
    found = exact_start(
        frozen(context, Path()), Path(), num_replicates=1000 * context.size, num_steps=20, key=context.key
    )
    return _invariant(found, "hidden path")


@check("sampler", needs={"exact"}, unless={"host", "population"}, statistical=True, level="standard")
def geweke_cycles(context: Context) -> Verdict:
    """Alternates transitions and fresh observations fifty times: small faults add up."""
    found = geweke(
        frozen(context, context.joint), context.joint, num_chains=100 * context.size, num_cycles=50, key=context.key
    )
    return _invariant(found, "successive conditionals")


def _exact_draws(key, num: int) -> dict[str, np.ndarray]:
    """Independent draws from the posterior of `Regression` at `OBSERVED`."""
    rng = np.random.default_rng(np.asarray(jr.key_data(key), np.uint32).ravel())
    u = rng.uniform(size=(num, 3))
    return Regression().posterior_draws(u, OBSERVED)


def _averages(context: Context) -> tuple[Draws, list[str], np.ndarray]:
    """A run from exact posterior draws on; names and averages, by chain, of functions with posterior mean zero."""
    draws = _run(context, context.component, named(context.key, "run"), init=_exact_draws(context.key, CHAINS))
    names, u = Regression().posterior_ranks(draws.values, OBSERVED)
    functions = Functions(names)
    return draws, functions.labels, np.stack([functions(chain).mean(axis=0) for chain in u])


@check("sampler", needs={"exact"}, unless={"population"}, statistical=True)
def known_answer(context: Context) -> Verdict:
    """Runs `sample` from exact posterior draws on: averages over chains against the exact posterior."""
    if context.own:
        return skip(_OWN)
    draws, names, averages = _averages(context)
    tests = mean_is_zero(names, averages)
    return odds(
        tests.p_value, f"{tests.words} ({draws.num_chains} chains x {draws.num_draws} draws)",
        "the exact posterior of the regression", _CURE,
    )  # fmt: skip


@check("sampler", needs={"approximate"}, unless={"population"}, statistical=True)
def known_answer_within_bias(context: Context) -> Verdict:
    """Runs `sample` from exact posterior draws on: averages within the bias that the tag declares."""
    require(
        context.subject.bias > 0,
        f"the tags {sorted(context.subject.tags)}",
        "a tag such as 'bias=0.1', in posterior sd",
        "Declare how far means and standard deviations may be off; without it nothing can be tested.",
    )
    if context.own:
        return skip(_OWN)
    _, names, averages = _averages(context)
    # A shift or relative widening by b moves these functions' means by at most 0.98 b and 1.1 b.
    tests = mean_is_zero(names, averages, slack=1.1 * context.subject.bias)
    return odds(tests.p_value, tests.words, f"means and spreads within {context.subject.bias:g} posterior sd", _CURE)


def _run(context: Context, sampler: Any, key, *, init=None, num_draws: int | None = None) -> Draws:
    chains = 4 if "host" in context.subject.tags else CHAINS
    if init is not None:
        init = {name: value[:chains] for name, value in init.items()}
    return sample(
        sampler, context.target, num_draws=num_draws or 250 * context.size, num_chains=chains,
        key=key, init=init, progress=False, throw=False,
    )  # fmt: skip


@check("sampler", unless={"population"})
def mixing(context: Context) -> Verdict:
    """Starts chains at draws from the prior: every coordinate must move, and they must forget where they started."""
    starts, _ = simulate_many(context.joint, jr.split(named(context.key, "starts"), CHAINS))
    num_draws = 250
    while True:
        try:
            draws = _run(context, context.component, named(context.key, "run"), init=starts, num_draws=num_draws)
        except SamplingError as error:
            return fault(str(error), "a run that reaches its end")
        require(
            draws.result.value == "successful" and draws.num_draws == num_draws,
            draws.result.words,
            "a run that reaches its end",
        )
        half = draws.replace(
            values={n: v[:, num_draws // 2 :] for n, v in draws.values.items()}, stats={}, log_density=None,
        )  # fmt: skip
        columns = _columns(half)
        still = [name for name, x in columns.items() if np.all(x == x[:, :1])]
        require(
            not still,
            f"{', '.join(still)} never moved in {num_draws // 2} steps of {half.num_chains} chains",
            "every coordinate and combination to move",
            "Look at the proposal's scale, at shared keys, at what `step` returns.",
        )
        half = half.replace(values=columns)
        worst, r_hat = max(((name, float(v)) for name, v in rhat(half).items()), key=lambda pair: pair[1])
        if r_hat < 1.01 or num_draws == 16_000:
            break
        num_draws *= 4
    share = min(float(v) for v in bulk_ess(half).values()) / (half.num_chains * half.num_draws)
    if r_hat < 1.01:
        return fine(f"R-hat {r_hat:.4f}, {share:.2g} effective draws a step", r_hat=r_hat, ess_per_step=share)
    return fault(
        f"R-hat {r_hat:.3f} for {worst} after 8000 dropped and 8000 kept steps ({share:.1g} effective draws a step)",
        "below 1.01 on an easy posterior",
        "Chains stay where they started, or adapt away from the target: look at scales, and at what is frozen when.",
        r_hat=r_hat, ess_per_step=share,
    )  # fmt: skip


def _columns(draws: Draws) -> dict[str, np.ndarray]:
    base = {}
    for name, value in draws.values.items():
        value = np.asarray(value, float)
        if name == "variance":
            name, value = "log variance", np.log(value)
        rows = value.reshape(*value.shape[:2], -1)[..., :_MOST]
        base |= {f"{name}[{i}]" if value.ndim > 2 else name: rows[..., i] for i in range(rows.shape[-1])}
    names = list(base)
    sums = {f"{a} {sign} {b}": base[a] + (1 if sign == "+" else -1) * base[b]
            for i, a in enumerate(names) for b in names[:i] for sign in "+-"}  # fmt: skip
    return {**base, **{name: np.round(value, 5) for name, value in sums.items()}}


@check("sampler", unless={"population"})
def reproducible(context: Context) -> Verdict:
    """Runs `sample` twice with one key and once with another; looks at the result."""
    first = _run(context, context.component, context.key, num_draws=50)
    again = _run(context, context.component, context.key, num_draws=50)
    other = _run(context, context.component, named(context.key, "other"), num_draws=50)
    same = all(np.array_equal(first[name], again[name]) for name in first.values)
    require(same, "two runs with one key differ", "the same bits", "Nothing but the key may be random.")
    differ = any(not np.array_equal(first[name], other[name]) for name in first.values)
    require(differ, "another key gave the same draws", "other draws", "Use the `key` that `step` is given.")
    chains = {name: value for name, value in first.values.items() if len(np.unique(value.round(7), axis=0)) == 1}
    require(not chains, "all chains are the same", "chains that differ")
    odd = {name: value.shape for name, value in first.stats.items() if value.shape[:2] != first.shape}
    require(not odd, f"statistics of shapes {odd}", f"leading axes {first.shape}")
    rate = first.stats.get("acceptance_rate")
    require(
        rate is None or (np.isfinite(rate).all() and rate.min() >= 0 and rate.max() <= 1 + 1e-6),
        "a statistic `acceptance_rate` outside [0, 1]", "a probability",
    )  # fmt: skip
    tree = first.to_datatree()
    lengths = {name: tree["posterior"][name].shape[:2] for name in first.values}
    require(set(lengths.values()) == {first.shape}, f"a DataTree of leading axes {lengths}", f"{first.shape}")
    return fine(f"same key, same bits; statistics: {', '.join(first.stats) or 'none'}")


@check("sampler", unless={"host", "population"})
def outside(context: Context) -> Verdict:
    """Cuts the density off, by zero and by NaN: no chain may enter, and none may break."""
    if context.own:
        return skip(_OWN)
    sampler, edge = frozen(context, Regression()), 0.3
    for value in (-np.inf, np.nan):
        joint = Regression(edge, value)
        with precision(sampler.precision):
            run = run_exact(sampler, joint, Regression().quantities, context.key, 2000 * context.size, jnp.asarray(5))
        values = {name: np.asarray(leaf, float) for name, leaf in run[-1].items()}
        broken = ~np.isfinite(values["variance"]) | ~np.isfinite(values["beta"]).all(axis=1)
        require(
            not broken.any(),
            f"{broken.sum()} of {len(broken)} positions not finite, beside a region where the log density is {value}",
            "finite positions: a proposal that leads there is to be rejected", "Compare so that NaN counts as -inf.",
        )  # fmt: skip
        beyond = float(np.mean(values["beta"][:, 0] > edge))
        require(
            beyond == 0, f"{beyond:.1%} of the chains where the log density is {value}", "none",
            "Reject such proposals: `jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)`.",
        )  # fmt: skip
    return fine("chains stay inside")
