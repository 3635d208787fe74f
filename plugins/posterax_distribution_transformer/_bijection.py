"""The map between real numbers, where mixtures of normals live, and the latent."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    IdentityTransform,
    SigmoidTransform,
    SoftplusTransform,
    Transform,
)

_ELEMENTWISE = (AffineTransform, ComposeTransform, ExpTransform, IdentityTransform, SigmoidTransform, SoftplusTransform)
Bijection = tuple[Transform, ...]


def as_bijection(given: Any, size: int) -> Bijection:
    """One transform for each coordinate.

    Raises `TypeError` for what is no transform of single numbers, `ValueError` for a wrong number of them.
    """
    each = tuple(given) if isinstance(given, (tuple, list)) else (given,) * size
    if len(each) != size:
        raise ValueError(f"`bijection` has {len(each)} transforms; the latent has {size} coordinates.")
    return tuple(_elementwise(transform) for transform in each)


def _elementwise(transform: Any) -> Transform:
    if hasattr(transform, "base_transform"):  # of an independent support: the same for each coordinate
        return _elementwise(transform.base_transform)
    if not isinstance(transform, _ELEMENTWISE) or transform.domain.event_dim:
        raise TypeError(
            f"`bijection` must be transforms of single numbers, such as ExpTransform(); got "
            f"{type(transform).__name__}. For latents on a simplex or in a matrix, write the problem in other "
            "coordinates."
        )
    return transform


def forward(bijection: Bijection, y: Array) -> Array:
    """Latents `(..., n)` of real numbers `(..., n)`."""
    return jnp.stack([transform(y[..., i]) for i, transform in enumerate(bijection)], -1)


def inverse(bijection: Bijection, x: Array) -> Array:
    """Real numbers `(..., n)` of latents `(..., n)`."""
    return jnp.stack([transform.inv(x[..., i]) for i, transform in enumerate(bijection)], -1)


def transformed(law: Any, bijection: Bijection, scalar: bool) -> Any:
    """The law of the latent, where `law` is that of the real numbers behind it."""
    if all(isinstance(transform, IdentityTransform) for transform in bijection):
        return law
    if scalar or all(transform == bijection[0] for transform in bijection):
        return dist.TransformedDistribution(law, bijection[0])
    return dist.TransformedDistribution(law, Coordinatewise(bijection))


class Coordinatewise(Transform):
    """A transform for each coordinate of a vector."""

    domain = dist.constraints.real_vector  # pyright: ignore[reportAssignmentType]

    def __init__(self, each: Bijection):
        self.each = tuple(each)

    @property
    def codomain(self):
        """Of vectors; which ones, each transform knows."""
        return dist.constraints.real_vector

    def __call__(self, x):
        return forward(self.each, x)

    def _inverse(self, y):
        return inverse(self.each, y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        """Summed over coordinates."""
        del intermediates
        return sum(t.log_abs_det_jacobian(x[..., i], y[..., i]) for i, t in enumerate(self.each))

    def tree_flatten(self):
        """The transforms are children."""
        return (self.each,), (("each",), {})

    def __eq__(self, other):
        return isinstance(other, Coordinatewise) and self.each == other.each
