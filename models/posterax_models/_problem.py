"""The shape that every problem with a known answer keeps."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from posterax import Target


@runtime_checkable
class Problem(Protocol):
    """A posterior, and what is exactly true of it."""

    @property
    def target(self) -> Target:
        """The posterior's unnormalised density, as a sampler takes it."""
        ...

    @property
    def observed(self) -> Any:
        """The data, or None where the density is given without any."""
        ...

    @property
    def mean(self) -> Mapping[str, Any]:
        """Exact posterior means by site name, shaped as the site."""
        ...

    @property
    def sd(self) -> Mapping[str, Any]:
        """Exact posterior standard deviations by site name, shaped as the site."""
        ...

    @property
    def log_evidence(self) -> Any:
        """Log of the integral of prior times likelihood, in nats."""
        ...

    @property
    def source(self) -> str:
        """Where the problem and its answer come from."""
        ...


class ExactAnswers(NamedTuple):
    """What is exactly true of a posterior, in float64.

    - `mean`, `sd`: posterior means and standard deviations by site name, shaped as the site.
    - `log_evidence`: log of the integral of prior times likelihood, in nats.
    """

    mean: Mapping[str, Any]
    sd: Mapping[str, Any]
    log_evidence: float
