"""Runs the checks that a component's tags call for, within the error budget."""

import time
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax.random as jr
from jaxtyping import PRNGKeyArray

from .._errors import PosteraxError, describe
from .._keys import check_key, describe_key, named
from . import _budget
from ._joint import JointModel
from ._levels import LEVELS, SIZES
from ._regression import OBSERVED, Regression
from ._report import ConformanceError, Outcome, Report
from ._subject import Subject, subject_of
from ._verdict import Fault, Verdict, fault


class Context:
    """What a check has at hand.

    - `subject`: the component and its tags.
    - `size`: how many times its own size the check is to use.
    - `key`: this check's own; other in the repetition.
    """

    def __init__(self, subject: Subject, size: int, key: PRNGKeyArray, shared_key: PRNGKeyArray, shared: dict):
        self.subject = subject
        self.size = size
        self.key = key
        self._shared_key, self._shared = shared_key, shared

    @property
    def component(self) -> Any:
        """The sampler, estimator or objective itself."""
        return self.subject.instance

    @property
    def own(self) -> bool:
        """Whether the component has brought a problem of its own."""
        return self.subject.case is not None

    @property
    def joint(self) -> JointModel:
        """The problem that a sampler is tried on: its own, or a regression with unknown noise."""
        return self.subject.case.joint if self.own else Regression()

    @property
    def observed(self) -> Any:
        """Observations of that problem, where one data set will do."""
        return self.joint.simulate(key=jr.key(2))[1] if self.own else OBSERVED

    @property
    def target(self) -> Any:
        """What the sampler is given, with those observations."""
        return self.joint.target(self.observed)

    def shared(self, name: str, make: Callable[[PRNGKeyArray], Any]) -> Any:
        """What several checks of a run use and none may be judged by, made once: a warmed-up or fitted component."""
        if name not in self._shared:
            self._shared[name] = make(named(self._shared_key, name))
        return self._shared[name]


def check_component(
    thing: Any,
    kind: str,
    *,
    key: PRNGKeyArray,
    level: str,
    tags: Collection[str] | None,
    only: Collection[str] | None,
    expected_failed_checks: Mapping[str, str] | None,
    throw: bool,
) -> Report:
    """The report of all checks that apply; see `posterax.testing.check_sampler`."""
    runner = Runner(thing, kind, key=key, level=level, tags=tags, only=only, expected=expected_failed_checks)
    report = runner.report([runner.run(check.name) for check in runner.checks])
    if throw and not report.passed:
        raise ConformanceError(report)
    return report


class Runner:
    """The checks of one component at one level, to be made one by one."""

    def __init__(self, thing, kind: str, *, key, level: str, tags=None, only=None, expected=None):
        from ._check import checks

        if level not in LEVELS:
            raise ValueError(f"`level` must be one of {', '.join(LEVELS)}; got {level!r}.")
        self._key = check_key(key, f"check_{kind}")
        self.subject = subject_of(thing, kind, tags)
        self.level = level
        self._size = SIZES[level]
        self._all = checks(kind)
        self._require_known("only", only)
        self.checks = [c for c in self._all if c.applies(self.subject.tags, level) and (not only or c.name in only)]
        self._num_tests = sum(check.statistical for check in self.checks)
        self._shared: dict = {}
        self._broken: str | None = None
        self._expected: dict[str, str] = {}
        self.expect(expected or {})

    def expect(self, failures: Mapping[str, str]) -> None:
        """Take these checks' failures for expected, with reasons by name. Raises `ValueError` for an unknown name."""
        self._require_known("expected_failed_checks", failures)
        self._expected = dict(failures)

    def _require_known(self, argument: str, given: Collection[str] | None) -> None:
        names = {check.name for check in self._all}
        if unknown := sorted(set(given or ()) - names):
            kind = self.subject.kind
            raise ValueError(f"`{argument}` names {unknown}; the checks of a {kind} are {sorted(names)}.")

    def run(self, name: str) -> Outcome:
        """Make one check, twice where chance may have spoken against the component."""
        check, began = self._check(name), time.monotonic()
        if self._broken is not None:
            verdict, stages = Verdict(None, None, f"{self._broken!r} failed, which this builds upon"), []
        else:
            verdict, stages = self._judged(check)
        status = "skipped" if verdict.skipped else "passed" if verdict.passed else "failed"
        if status == "failed" and name in _FIRST:
            self._broken = name
        reason = self._expected.get(name)
        if reason is not None and status != "skipped":
            status = "expected-failure" if status == "failed" else "unexpected-pass"
        return Outcome(
            check=name, component=self.subject.name, status=status, seen=verdict.seen, expected=verdict.expected,
            cure=verdict.cure, reason=reason, stages=tuple(stages), figures=dict(verdict.figures),
            summary=check.summary, statistical=check.statistical, seconds=time.monotonic() - began,
        )  # fmt: skip

    def screen(self, name: str) -> float | None:
        """The p-value of one check's first run, without judging by it; None where the check has none."""
        return self._once(self._check(name), "screen", self._size).p_value

    def report(self, outcomes: list[Outcome]) -> Report:
        """The report on outcomes of this component's checks."""
        component = self.subject.component
        return Report(
            component=self.subject.name,
            kind=self.subject.kind,
            distribution=None if component is None else component.distribution,
            version=None if component is None else component.version,
            tags=tuple(sorted(self.subject.tags)),
            level=self.level,
            key=describe_key(self._key),
            num_tests=self._num_tests,
            outcomes=tuple(outcomes),
        )

    def _check(self, name: str):
        (found,) = [check for check in self.checks if check.name == name]
        return found

    def _judged(self, check) -> tuple[Verdict, list[dict]]:
        stages = []
        verdict = Verdict(None, None, "")
        for stage, growth, level in (("screen", 1, _budget.SCREEN), ("repeat", _budget.GROWTH, None)):
            level = _budget.threshold(self._num_tests) if level is None else level
            size = self._size * growth
            verdict = self._once(check, stage, size)
            if verdict.p_value is None:
                return verdict, stages
            stages.append({"stage": stage, "size": size, "p_value": verdict.p_value, "threshold": level})
            if verdict.p_value > level:
                return verdict._replace(passed=True), stages
        return verdict._replace(passed=False), stages

    def _once(self, check, stage: str, size: int) -> Verdict:
        key = named(named(self._key, check.name), stage)
        context = Context(self.subject, size, key, named(self._key, "shared"), self._shared)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # short runs on hard problems warn; the checks judge by themselves
                return check.run(context)
        except Fault as found:
            return found.verdict
        except NotImplementedError as error:
            return fault(
                describe(error), "a component that does what its tags say", "Write the method, or drop the tag."
            )
        except Exception as error:
            return fault(
                f"{describe(error)[:600]}{_place(error)}",
                f"no error where the kit {_lower(check.summary)}",
                "Run that step by itself; the report's JSON has the traceback.",
                traceback="".join(traceback.format_exception(error))[-6000:],
            )


_FIRST = {"interface", "shapes", "ends"}  # without these nothing else can be tried


def _place(error: BaseException) -> str:
    """Where in the component's own code an error came from: the deepest frame outside libraries and this package."""
    ours = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith((ours, "<"))
    ]
    inner = frames[-1] if frames else None
    if inner is None or isinstance(error, PosteraxError):
        return ""
    return f" (in {inner.name}, {Path(inner.filename).name} line {inner.lineno}: `{inner.line}`)"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text else "makes this check"
