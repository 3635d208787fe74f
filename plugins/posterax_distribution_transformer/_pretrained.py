"""Estimators that come trained: files and cards in the package, nothing downloaded."""

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from posterax import load

from ._estimator import DistributionTransformer

PRETRAINED = (
    "bearing-range",
    "gaussian-mixture-1d",
    "gaussian-mixture-2d",
    "length-scale",
    "normal-variance",
    "quantum-parameter",
)


def weights_folder() -> Path:
    """Where files and cards lie."""
    return Path(str(resources.files("posterax_distribution_transformer") / "weights"))


@functools.cache
def pretrained(name: str) -> DistributionTransformer:
    """A trained estimator that is part of the package.

    - "normal-variance": the variance of one centred normal number, inverse gamma priors (`NormalVariance()`).
    - "gaussian-mixture-1d": mixture priors on the line, seen in noise of variance 1 (`LinearGaussian`).
    - "gaussian-mixture-2d": mixture priors in the plane, each coordinate seen in noise of variance 1.
    - "quantum-parameter": beta priors, ten binary outcomes (`QuantumParameter()`).
    - "length-scale": of a Gaussian process on a line, up to ten noisy values, inverse gamma priors (`LengthScale()`).
    - "bearing-range": a position in the plane, mixture priors, two sensors (`BearingRange()`).

    Raises `ValueError` for another name. `card(name)` tells how it was trained and how good it is.
    """
    _check(name)
    return load(weights_folder() / f"{name}.posterax")


def card(name: str) -> dict[str, Any]:
    """How a pretrained estimator came about: problem, settings, seed, device, versions, scores, SHA-256 of its file."""
    _check(name)
    return json.loads((weights_folder() / f"{name}.json").read_text())


def _check(name: str) -> None:
    if name not in PRETRAINED:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, PRETRAINED))}; got {name!r}.")
