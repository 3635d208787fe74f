"""Models that come trained: files and cards in the package, nothing downloaded."""

import functools
from typing import Any

import jax.random as jr
import numpy as np
from posterax_models import IsingLattice
from posterax_models._weights import read_card, read_weights, weights_folder

from ._architectures import Architecture, Dense, Lattice
from ._columns import Columns
from ._energy import Energy
from ._estimator import MarginalizationModel
from ._marginals import Marginals
from ._networks import values_of
from ._support import Support

PRETRAINED = (
    *("digits-0", "digits-1", "digits-2"),
    *("ising-10x10-0", "ising-10x10-1", "ising-10x10-2", "ising-10x10-critical"),
)
"""Names that `pretrained` and `card` take."""


@functools.cache
def pretrained(name: str) -> MarginalizationModel:
    """A fitted model that is part of the package.

    - "ising-10x10-0", "-1", "-2": 100 spins on a torus, coupling 0.2, field 0.2, three seeds of the training.
    - "ising-10x10-critical": the same at coupling 0.4407 without a field.
    - "digits-0", "-1", "-2": handwritten digits of 8 by 8 pixels, ink or none; three seeds.

    Raises `ValueError` for another name. `card(name)` tells how it was trained and how good it is.
    """
    facts = card(name)
    values, energy = (2,) * facts["num_variables"], None
    if "coupling" in facts:
        law = IsingLattice(facts["rows"], facts["columns"], facts["coupling"], facts["field"])
        energy = Energy(law.log_weight, values)
    kinds = architectures_of(facts)
    skeleton = Marginals.init(values, *kinds, key=jr.key(0))
    file = weights_folder("posterax_marginalization") / f"{name}.posterax"
    return MarginalizationModel(
        *kinds, num_steps=facts["steps"], columns=Columns.of_integers(values), energy=energy,
        report={"scores": facts["scores"]},
        model=read_weights(file, skeleton),
        support=Support(np.array(facts["least"]), np.array(facts.get("seen", values_of(values)), bool)),
    )  # fmt: skip


def card(name: str) -> dict[str, Any]:
    """How a pretrained model came about: law, settings, seed, device, versions, scores, SHA-256 of its file."""
    return read_card("posterax_marginalization", PRETRAINED, name)


def architectures_of(facts: dict[str, Any]) -> tuple[Architecture, Architecture]:
    """Those of conditionals and marginals that a card describes."""
    if "coupling" in facts:
        sizes = {name: facts[name] for name in ("rows", "columns", "width", "depth")}
        lattice = Lattice(**sizes, periodic=True)
        return lattice, lattice
    conditional = Dense(facts["width"], facts["depth"], dropout=facts["dropout"])
    return conditional, Dense(facts["marginal_width"], facts["depth"])
