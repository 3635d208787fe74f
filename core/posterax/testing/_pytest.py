"""parametrize_with_checks(): one pytest case a check."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._report import ConformanceError
from ._run import Runner
from ._subject import KINDS

Expected = Mapping[str, Mapping[str, str]] | Callable[[str], Mapping[str, str]]


class _Case:
    """One check of one component, to be called by the test."""

    def __init__(self, runner: Runner, name: str):
        self.component, self.name, self._runner = runner.subject.name, name, runner

    def __call__(self) -> None:
        import pytest

        outcome = self._runner.run(self.name)
        if outcome.status == "skipped":
            pytest.skip(outcome.seen)
        if outcome.status == "failed":
            raise ConformanceError(self._runner.report([outcome]))
        if outcome.status == "expected-failure":  # for xfail to see
            raise AssertionError(str(outcome))

    def __repr__(self):
        return f"{self.component}-{self.name}"


def parametrize_with_checks(
    components: Iterable[Any],
    *,
    seed: int = 0,
    level: str = "smoke",
    expected_failed_checks: Expected | None = None,
) -> Any:
    """A pytest decorator that makes one case of each check of each component.

        @parametrize_with_checks(["slice:elliptical-slice"])
        def test_conforms(check):
            check()

    - `components`: registered names ("plugin:name"), or pairs of what `check_sampler` takes and its tags.
    - `seed`: of the keys; the same cases find the same.
    - `level`: as in `check_sampler`.
    - `expected_failed_checks`: by component name, reasons by check; or a function of the component's name. The cases
      are marked as strict xfail: one that passes fails.

    Raises `ValueError` for a component without tags, `UnknownComponentError` for a name that is not registered.
    """
    import jax.random as jr
    import pytest

    cases = []
    for given in components:
        thing, tags = given if isinstance(given, tuple) else (given, None)
        runner = Runner(thing, _kind_of(thing), key=jr.key(seed), level=level, tags=tags)
        expected = _expected(expected_failed_checks, runner.subject.name)
        runner.expect(expected)
        for check in runner.checks:
            reason = expected.get(check.name)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            case = _Case(runner, check.name)
            cases.append(pytest.param(case, id=repr(case), marks=marks))
    return pytest.mark.parametrize("check", cases)


def _expected(given: Expected | None, name: str) -> dict[str, str]:
    if given is None:
        return {}
    return dict(given(name) if callable(given) else given.get(name, {}))


def _kind_of(thing: Any) -> str:
    """Which kind of component this is."""
    from .._estimator import Estimator
    from .._objective import Objective
    from .._registry import current
    from .._sampler import PopulationSampler, Sampler

    if isinstance(thing, str):
        kind = current().find(thing).spec.kind
    else:
        inner = getattr(thing, "component", thing)
        cls = inner if isinstance(inner, type) else type(inner)
        bases = {Sampler: "sampler", PopulationSampler: "sampler", Estimator: "estimator", Objective: "objective"}
        kind = next((kind for base, kind in bases.items() if issubclass(cls, base)), "none of them")
    if kind not in KINDS:
        raise ValueError(f"{thing!r} is of kind {kind!r}; there are checks for {', '.join(KINDS)}.")
    return kind
