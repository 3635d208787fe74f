"""Models that come trained: files and cards in the package, nothing downloaded."""

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from posterax_models import IsingLattice
from posterax_models._weights import read_weights

from ._architectures import Lattice
from ._columns import Columns
from ._energy import Energy
from ._estimator import MarginalizationModel
from ._marginals import Marginals

PRETRAINED = ("ising-10x10-0", "ising-10x10-1", "ising-10x10-2", "ising-10x10-critical")


def weights_folder() -> Path:
    """Where files and cards lie."""
    return Path(str(resources.files("posterax_marginalization") / "weights"))


@functools.cache
def pretrained(name: str) -> MarginalizationModel:
    """A fitted model that is part of the package.

    - "ising-10x10-0", "-1", "-2": 100 spins on a torus, coupling 0.2, field 0.2, three seeds of the training.
    - "ising-10x10-critical": the same at coupling 0.4407 without a field.

    Raises `ValueError` for another name. `card(name)` tells how it was trained and how good it is.
    """
    facts = card(name)
    law = IsingLattice(facts["rows"], facts["columns"], facts["coupling"], facts["field"])
    values = (2,) * law.num_sites
    like = Marginals.init(values, architecture_of(facts), key=jr.key(0))
    columns = Columns(tuple(f"x{d}" for d in range(law.num_sites)), ((0, 1),) * law.num_sites, table=False)
    model = read_weights(weights_folder() / f"{name}.posterax", like)
    return MarginalizationModel(
        architecture_of(facts), num_steps=facts["steps"], model=model,
        columns=columns, energy=Energy(law.log_weight, values), least=np.array(facts["least"]),
        report={"scores": facts["scores"]},
    )  # fmt: skip


def card(name: str) -> dict[str, Any]:
    """How a pretrained model came about: law, settings, seed, device, versions, scores, SHA-256 of its file."""
    if name not in PRETRAINED:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, PRETRAINED))}; got {name!r}.")
    return json.loads((weights_folder() / f"{name}.json").read_text())


def architecture_of(facts: dict[str, Any]) -> Lattice:
    """The architecture that a card describes."""
    sizes = {name: facts[name] for name in ("rows", "columns", "width", "depth")}
    return Lattice(**sizes, periodic=True)
