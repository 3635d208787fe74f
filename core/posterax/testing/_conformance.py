"""check_sampler(), check_estimator(), check_objective(): is a component what its tags say?"""

from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from ._report import Report
from ._run import check_component

TAGS = {
    "exact": "leaves its target as it is once warmed up (sampler); gives the exact posterior (estimator)",
    "approximate": "does not quite; says by how much, as 'bias=0.1'",
    "bias=...": "by how much at most means are off, in posterior standard deviations, and these, relatively",
    "population": "a PopulationSampler: weighted particles instead of a chain",
    "auxiliary": "the state holds more than the position by design (momentum), so steps depend on more than it",
    "host": "is stepped from Python and talks to the outside world: nothing of it is traced",
    "fits-target": "an estimator whose `fit` takes a `Target`; it is fitted anew to each data set",
    "amortised": "an estimator whose `fit` takes a simulator, a function of a key that gives one (parameter, "
    "observations), and whose `infer` then takes any observations",
    "missing-data": "NaN in the observations has a meaning",
    "density-model": "an objective for models with `log_prob(x)` and batches of rows x",
    "regression-model": "an objective for models that are functions of x and batches (x, y)",
    "proper": "the objective is smallest on average where the model is the truth",
    "stochastic": "the loss of one batch is random, by its key",
}
"""The tags that promise something, and what. Components may have others, which the kit passes over."""


def check_sampler(
    component: Any,
    *,
    key: PRNGKeyArray,
    level: str = "smoke",
    tags: Collection[str] | None = None,
    only: Collection[str] | None = None,
    expected_failed_checks: Mapping[str, str] | None = None,
    throw: bool = True,
) -> Report:
    """Make all checks that a sampler's tags call for.

    - `component`: a registered name such as "numpyro:nuts", a class that can be called without arguments, an instance,
      or a `Case`.
    - `key`: every number of the run follows from it.
    - `level`: "smoke" (half a minute), "standard" (minutes), "nightly".
    - `tags`: what the component promises, see `TAGS`; by default those it is registered with.
    - `only`: names of checks, to make these alone.
    - `expected_failed_checks`: reasons by name of check. Strict: one that passes nevertheless counts as a failure.
    - `throw`: raise where a check failed; else only the report says so.

    Raises `ConformanceError`, which names check and component, what was seen and what was expected, with the report in
    `.report`; `ValueError` for a component without tags or one that cannot be made.
    """
    return check_component(
        component, "sampler", key=key, level=level, tags=tags, only=only,
        expected_failed_checks=expected_failed_checks, throw=throw,
    )  # fmt: skip


def check_estimator(
    component: Any,
    *,
    key: PRNGKeyArray,
    level: str = "smoke",
    tags: Collection[str] | None = None,
    only: Collection[str] | None = None,
    expected_failed_checks: Mapping[str, str] | None = None,
    throw: bool = True,
) -> Report:
    """Make all checks that an estimator's tags call for; arguments as in `check_sampler`."""
    return check_component(
        component, "estimator", key=key, level=level, tags=tags, only=only,
        expected_failed_checks=expected_failed_checks, throw=throw,
    )  # fmt: skip


def check_objective(
    component: Any,
    *,
    key: PRNGKeyArray,
    level: str = "smoke",
    tags: Collection[str] | None = None,
    only: Collection[str] | None = None,
    expected_failed_checks: Mapping[str, str] | None = None,
    throw: bool = True,
) -> Report:
    """Make all checks that an objective's tags call for; arguments as in `check_sampler`."""
    return check_component(
        component, "objective", key=key, level=level, tags=tags, only=only,
        expected_failed_checks=expected_failed_checks, throw=throw,
    )  # fmt: skip
