"""What the kit says: one outcome a check, and the report of them all, to read and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .._errors import PosteraxError
from .._version import __version__
from . import _budget

_MARKS = {
    "passed": "ok",
    "failed": "FAILED",
    "skipped": "skipped",
    "expected-failure": "xfail",
    "unexpected-pass": "XPASS",
}


@dataclass(frozen=True)
class Outcome:
    """How a component fared in one check.

    - `status`: "passed", "failed", "skipped", "expected-failure", or "unexpected-pass" (which counts as a failure).
    - `seen`, `expected`, `cure`: in words; `reason`: why the failure was expected.
    - `stages`: for statistical checks, size, p-value and threshold of the screen and of the repetition.
    - `figures`: further numbers.
    """

    check: str
    component: str
    status: str
    seen: str
    expected: str
    cure: str
    reason: str | None
    stages: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, Any]
    summary: str
    statistical: bool
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it does not speak against the component."""
        return self.status not in {"failed", "unexpected-pass"}

    def __str__(self):
        if self.status == "unexpected-pass":
            return (
                f"{self.component} passed the check {self.check!r}, which was expected to fail: {self.reason}\n"
                "  to do:    take it out of `expected_failed_checks`."
            )
        lines = [f"{self.component} {self.status} the check {self.check!r}: {self.summary}", f"  seen:     {self.seen}"]
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines += [f"  to do:    {self.cure}"] if self.cure else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """The outcomes of all checks that one component's tags call for at one level.

    `print(report)` to read it, `report.to_json()` for machines; `report.passed` sums it up.
    """

    component: str
    kind: str
    distribution: str | None
    version: str | None
    tags: tuple[str, ...]
    level: str
    key: Mapping[str, Any]
    num_tests: int
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and none passed that was expected to fail."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that speak against the component."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def __getitem__(self, check: str) -> Outcome:
        for outcome in self.outcomes:
            if outcome.check == check:
                return outcome
        raise KeyError(f"No check {check!r} was made; there were {[o.check for o in self.outcomes]}.")

    def to_dict(self) -> dict:
        """The report as plain data."""
        return {
            "posterax": __version__,
            "passed": self.passed,
            **{name: value for name, value in asdict(self).items() if name != "outcomes"},
            "false_alarm_bound": _budget.family_wise(self.num_tests),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }

    def to_json(self) -> str:
        """The report as JSON; numbers that JSON does not know are null."""
        return json.dumps(_strict(self.to_dict()), indent=2, ensure_ascii=False)

    def __str__(self):
        owner = f" ({self.distribution} {self.version})" if self.distribution else ""
        count = {status: sum(o.status == status for o in self.outcomes) for status in _MARKS}
        told = ", ".join(f"{n} {status.replace('-', ' ')}" for status, n in count.items() if n) or "no check applies"
        lines = [
            f"{self.kind} {self.component}{owner}, level {self.level}, tags {', '.join(self.tags) or 'none'}",
            "",
        ]
        width = max((len(outcome.check) for outcome in self.outcomes), default=0)
        for outcome in self.outcomes:
            seen = outcome.seen if outcome.passed else "see below"
            seen = outcome.reason or "" if outcome.status == "expected-failure" else seen
            lines.append(
                f"  {_MARKS[outcome.status]:8}{outcome.check:{width}}  {outcome.seconds:5.1f} s  {seen}".rstrip()
            )
        lines += ["", f"{told}; {sum(o.seconds for o in self.outcomes):.0f} s"]
        if self.num_tests:
            lines.append(
                f"{self.num_tests} statistical checks; a correct component fails such a run by chance with "
                f"probability below {_budget.family_wise(self.num_tests):.0e}"
            )
        for outcome in self.failures:
            lines += ["", str(outcome)]
        return "\n".join(lines)


class ConformanceError(PosteraxError, AssertionError):
    """A component that does not do what its tags promise.

    - `report`: the whole report.
    """

    def __init__(self, report: Report):
        super().__init__("\n\n".join(map(str, report.failures)))
        self.report = report


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _strict(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_strict(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value - value != 0:
        return None
    return value
