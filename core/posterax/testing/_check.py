"""What a check is, and which checks a component's tags call for."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module

from ._levels import LEVELS
from ._run import Context
from ._verdict import Verdict


@dataclass(frozen=True)
class Check:
    """One named check.

    - `name`: lower-case words joined by hyphens.
    - `kind`: of components, "sampler", "estimator" or "objective".
    - `run`: function of a `Context`, a `Verdict`.
    - `level`: the first level that makes it.
    - `needs`: tags without which it does not apply; `unless`: tags with which it does not.
    - `statistical`: whether it can blame a correct component by chance, and so is counted in the error budget.
    """

    name: str
    kind: str
    run: Callable[[Context], Verdict]
    level: str
    needs: frozenset[str]
    unless: frozenset[str]
    statistical: bool

    @property
    def summary(self) -> str:
        """The first line of its docstring: what it makes sure of."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    def applies(self, tags: Collection[str], level: str) -> bool:
        """Whether a component with these tags is to pass it at that level."""
        known = {tag.partition("=")[0] for tag in tags}
        early = LEVELS.index(self.level) <= LEVELS.index(level)
        return early and self.needs <= known and not self.unless & known


_CHECKS: dict[str, dict[str, Check]] = {"sampler": {}, "estimator": {}, "objective": {}}
_HOMES = {
    "sampler": ("_sampler_form", "_sampler_steps", "_sampler_law", "_population_law", "_process"),
    "estimator": ("_estimator_form", "_estimator_law", "_process"),
    "objective": ("_objective_form", "_objective_law", "_process"),
}


def check(
    *kinds: str,
    level: str = "smoke",
    needs: Collection[str] = (),
    unless: Collection[str] = (),
    statistical: bool = False,
) -> Callable:
    """Make a function of a `Context` a check, named after the function."""

    def enter(function: Callable[[Context], Verdict]) -> Callable[[Context], Verdict]:
        name = function.__name__.replace("_", "-")
        for kind in kinds:
            _CHECKS[kind][name] = Check(name, kind, function, level, frozenset(needs), frozenset(unless), statistical)
        return function

    return enter


def checks(kind: str) -> list[Check]:
    """All checks of a kind of component, in the order in which they are made."""
    for module in _HOMES[kind]:
        import_module(f".{module}", __package__)
    return sorted(_CHECKS[kind].values(), key=lambda c: LEVELS.index(c.level))
