"""Estimators that come trained: files and cards in the package, nothing downloaded."""

import functools
from typing import Any

from posterax import load
from posterax_models._weights import check_name, read_card, weights_folder

from ._estimator import DistributionTransformer

PRETRAINED = (
    "bearing-range",
    "gaussian-mixture-1d",
    "gaussian-mixture-2d",
    "length-scale",
    "normal-variance",
    "quantum-parameter",
)
"""Names that `pretrained` and `card` take."""


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
    check_name(PRETRAINED, name)
    return load(weights_folder("posterax_distribution_transformer") / f"{name}.posterax")


def card(name: str) -> dict[str, Any]:
    """How a pretrained estimator came about: problem, settings, seed, device, versions, scores, SHA-256 of its file."""
    return read_card("posterax_distribution_transformer", PRETRAINED, name)
