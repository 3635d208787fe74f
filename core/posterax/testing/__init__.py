"""The conformance kit: any component, ours or a stranger's, is tried statistically; and calibration tests for users.

For authors: `check_sampler`, `check_estimator`, `check_objective` make the checks that a component's tags call for, and
`parametrize_with_checks` makes one pytest case of each. On the command line: `posterax check PLUGIN[:NAME]`.

For everybody: `sbc`, `coverage`, `geweke` and `exact_start` say whether a method's uncertainty can be believed, on any
model that can be simulated from (`JointModel`).

**How often a correct component is blamed.** A run has m statistical checks. One with a p-value below 1e-3 (the screen)
is made again with fresh keys and four times the size, and fails only below 1e-3 / m. The two share no random number, so
a run blames a correct component with a probability of at most m x 1e-3 x 1e-3 / m = 1e-6, as far as p-values are right.
Screens that rang for correct components (`FULL=1 make bench NAME=testing`; 10 of 10,000 are expected):

| check | runs | rang at 1e-3 | below 0.05 |
|---|---|---|---|
| `score` (objective) | 10,000 | 14 | 526 |
| `truth-wins` (one-sided, far from its limit) | 10,000 | 0 | 0 |

The statistics that the other checks rest on ring as often as they say in 10,000 repetitions each, in the slow tests.

**What a check can see.** The smallest of the faults tried that rang the screen at `standard` in 99 of 100 runs:

| check | fault | smallest |
|---|---|---|
| `known-answer` (sampler) | acceptance by p^(1 - x) | 0.10 |
| `exact-start-regression` | the same | 0.15 |
| `exact-start-funnel` | the same | 0.20 |
| `exact-start-two-modes` | the same | 0.20 |
| `exact-start-path` | the same | 0.25 |
| `known-answer` (estimator) | posterior sd (1 - x) times the right one | 0.07 |
| `sbc` | the same | 0.14 |
| `coverage` | the same | 0.12 |
| `density` | log density too high by x | 0.02 |
| `score` | data moved by x (their sd is 1.5) | 0.02 |
| `truth-wins` | data moved by x | 2.5 |
| `unbiased` | loss too high by x | 0.05 |

Not measured: `evidence`, `geweke-cycles`, `known-answer-within-bias`, `sbc-by-fits`.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from ._case import EstimatorCase as EstimatorCase
    from ._case import ObjectiveCase as ObjectiveCase
    from ._case import SamplerCase as SamplerCase
    from ._check import Check as Check
    from ._check import checks as checks
    from ._conformance import TAGS as TAGS
    from ._conformance import check_estimator as check_estimator
    from ._conformance import check_objective as check_objective
    from ._conformance import check_sampler as check_sampler
    from ._coverage import Coverage as Coverage
    from ._coverage import coverage as coverage
    from ._exact_start import exact_start as exact_start
    from ._geweke import geweke as geweke
    from ._invariance import Invariance as Invariance
    from ._joint import JointModel as JointModel
    from ._pytest import parametrize_with_checks as parametrize_with_checks
    from ._report import ConformanceError as ConformanceError
    from ._report import Outcome as Outcome
    from ._report import Report as Report
    from ._sbc import SBC as SBC
    from ._sbc import sbc as sbc

_HOMES = {
    "_case": ("EstimatorCase", "ObjectiveCase", "SamplerCase"),
    "_check": ("Check", "checks"),
    "_conformance": ("TAGS", "check_estimator", "check_objective", "check_sampler"),
    "_coverage": ("Coverage", "coverage"),
    "_exact_start": ("exact_start",),
    "_geweke": ("geweke",),
    "_invariance": ("Invariance",),
    "_joint": ("JointModel",),
    "_pytest": ("parametrize_with_checks",),
    "_report": ("ConformanceError", "Outcome", "Report"),
    "_sbc": ("SBC", "sbc"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)
