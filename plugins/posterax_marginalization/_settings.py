"""The settings of a marginalization model, checked."""

import dataclasses
from typing import Any

from posterax import Objective

from ._architectures import Architecture
from ._energy_objectives import DetailedBalance, KullbackLeibler
from ._objectives import SelfConsistency
from ._validation import check_integer

_SPAN = 8  # steps of an order in a window, for data
ENERGY_OBJECTIVES = {"db": DetailedBalance, "kl": KullbackLeibler}


def check_settings(model: Any) -> None:
    """Raise `ValueError` or `TypeError` for settings out of place."""
    for name in ("num_steps", "marginal_steps", "batch_size", "num_imagined"):
        check_integer(name, getattr(model, name), 1)
    for name in ("architecture", "marginal_architecture"):
        value = getattr(model, name)
        if not isinstance(value, Architecture) and not (value is None and name != "architecture"):
            raise TypeError(f"`{name}` must be Dense(...), Lattice(...), Sequence(...) or such; got {value!r}.")
    kind = model.objective
    if not (kind is None or kind in ENERGY_OBJECTIVES or isinstance(kind, Objective)):
        raise ValueError(f'`objective` must be None, "db", "kl" or an Objective; got {kind!r}.')
    if not model.learning_rate > 0:
        raise ValueError(f"`learning_rate` must be positive; got {model.learning_rate!r}.")
    if not model.weight_decay >= 0:
        raise ValueError(f"`weight_decay` must be 0 or more; got {model.weight_decay!r}.")


def consistency_of(model: Any) -> SelfConsistency:
    """The objective of the marginals, for data; raises `ValueError` for one that is for energies."""
    if model.objective is None:
        return SelfConsistency(span=_SPAN, freeze=not model.joint)
    if not isinstance(model.objective, SelfConsistency):
        raise ValueError(f"`objective` must be a SelfConsistency for data; got {model.objective!r}.")
    if model.joint == model.objective.freeze:
        raise ValueError("`objective.freeze` must be False for `joint=True`, and True for two stages.")
    return model.objective


def energy_objective_of(model: Any, energy: Any, floor: float) -> DetailedBalance | KullbackLeibler:
    """The objective for this energy; raises `ValueError` for one that is for data."""
    kind = model.objective
    if isinstance(kind, (DetailedBalance, KullbackLeibler)):
        return dataclasses.replace(kind, energy=energy, floor=floor)
    if isinstance(kind, Objective):
        raise ValueError(f'`objective` must be "db", "kl" or an instance of theirs for an Energy; got {kind!r}.')
    return ENERGY_OBJECTIVES[kind or "db"](energy, floor)
