"""What one run of one check finds: in words, and where chance plays a part, a p-value."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """What a check has seen.

    - `passed`: True or False where the answer is certain; None where `p_value` decides, or the check does not apply.
    - `p_value`: probability of something at least as odd from a correct component; None where nothing is random.
    - `seen`, `expected`, `cure`: in words.
    - `figures`: numbers worth keeping, plain data.
    """

    passed: bool | None
    p_value: float | None
    seen: str
    expected: str = ""
    cure: str = ""
    figures: Mapping[str, Any] = {}

    @property
    def skipped(self) -> bool:
        """Whether the check does not apply; `seen` says why."""
        return self.passed is None and self.p_value is None


def fine(seen: str, **figures: Any) -> Verdict:
    """All as it should be."""
    return Verdict(True, None, seen, figures=figures)


def fault(seen: str, expected: str, cure: str = "", **figures: Any) -> Verdict:
    """A fault that no chance explains."""
    return Verdict(False, None, seen, expected, cure, figures)


def odds(p_value: float, seen: str, expected: str, cure: str = "", **figures: Any) -> Verdict:
    """What only a p-value can judge; one that is NaN counts as zero."""
    return Verdict(None, float(p_value) if p_value == p_value else 0.0, seen, expected, cure, figures)


def skip(reason: str) -> Verdict:
    """The check does not apply to this component."""
    return Verdict(None, None, reason)


class Fault(Exception):
    """Raised within a check where something is found that ends it; carries the verdict."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict.seen)
        self.verdict = verdict


def require(condition: Any, seen: str, expected: str, cure: str = "") -> None:
    """End the check with a fault unless `condition` holds."""
    if not condition:
        raise Fault(fault(seen, expected, cure))
