"""Networks that come trained: files and cards in the package, nothing downloaded."""

import dataclasses
import functools
from typing import Any

import jax.random as jr
from posterax_models._weights import read_card, read_weights, weights_folder

from ._foundation import MJPFoundation
from ._prior import ProcessPrior
from ._prior_grids import LabelFlips

PRETRAINED = ("pairs", "bilstm")


def pretrained(name: str = "pairs", **settings: Any) -> MJPFoundation:
    """A trained network that is part of the package.

    - "pairs": 2 to 8 states, any number of paths, 0 to 10 % wrong labels, rates up to 100 per horizon.
    - "bilstm": the paper's architecture, trained small: 2 to 6 states, 1 % wrong labels, rates below 10 per horizon.
    - `settings`: of `MJPFoundation` that do not change the network: `polish`, `noise`, `edge_threshold`, `prior` (of
      what is polished).

    Raises `ValueError` for another name. `card(name)` tells how it was trained and how good it is.
    """
    for setting in settings:
        if setting not in ("polish", "noise", "edge_threshold", "prior"):
            raise ValueError(f"`{setting}` belongs to the training of a network; to train one, call `MJPFoundation`.")
    return dataclasses.replace(_read(name), **settings)


def card(name: str = "pairs") -> dict[str, Any]:
    """How a network came about: prior, settings, seed, device, versions, scores, SHA-256 of its file."""
    return read_card("posterax_mjp", PRETRAINED, name)


def untrained_as(facts: dict[str, Any]) -> MJPFoundation:
    """The estimator that a card describes, without weights."""
    sizes = {name: facts[name] for name in _SETTINGS if name in facts}
    if facts["encoder"] == "bilstm":
        sizes |= {"prior": ProcessPrior(noise=LabelFlips((0.01,))), "noise": 0.01}
    return MJPFoundation(**{**sizes, "num_states": tuple(facts["num_states"])})


@functools.cache
def _read(name: str) -> MJPFoundation:
    facts = card(name)
    model = untrained_as(facts)
    network = read_weights(weights_folder("posterax_mjp") / f"{name}.posterax", model.untrained(key=jr.key(0)))
    return dataclasses.replace(model, network=network, report={"scores": facts["scores"]})


_SETTINGS = (
    "encoder", "width", "depth", "num_components", "num_states", "num_examples", "most_paths", "num_steps",
    "batch_size", "learning_rate",
)  # fmt: skip
