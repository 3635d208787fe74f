"""What a target is made of: one density, evaluated in one pass."""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Scalar = Float[Array, ""]


class Terms(NamedTuple):
    """Everything that one evaluation at an unconstrained point gives. Logarithms are natural."""

    log_prior: Scalar | float | None  # log density of the constrained values; None where no split is known
    log_likelihood: Scalar | float  # all the rest of the log density of the constrained values
    pointwise: dict[str, Array]  # log-likelihood of each observation, by observed site
    log_jacobian: Scalar | float  # log |d constrained / d unconstrained|
    values: dict[str, Array]  # constrained, by name
    derived: dict[str, Array]  # deterministic quantities, by name

    @property
    def log_joint(self) -> Scalar:
        """Log density of the constrained values: prior and likelihood together."""
        return jnp.asarray(self.log_likelihood if self.log_prior is None else self.log_prior + self.log_likelihood)


class Structure(NamedTuple):
    """Shapes by name, and the axis names that the model itself knows."""

    latent: Mapping[str, tuple[int, ...]]
    observed: Mapping[str, tuple[int, ...]]
    derived: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, list[str | None]]

    def __hash__(self):
        return hash(repr(self))


class AbstractDensity(eqx.Module):
    """An unnormalised density on constrained values, with its bijection from unconstrained space.

    All methods act on one unbatched point and can be traced.
    """

    @abc.abstractmethod
    def structure(self) -> Structure: ...

    @abc.abstractmethod
    def terms(self, u: PyTree[Array]) -> Terms: ...

    @abc.abstractmethod
    def unconstrain(self, values: Mapping[str, Any]) -> PyTree[Array]: ...

    @abc.abstractmethod
    def example(self) -> PyTree[Array]: ...  # some position; only its structure and shapes are of interest

    @abc.abstractmethod
    def sample_prior(self, key: PRNGKeyArray) -> PyTree[Array]: ...

    @abc.abstractmethod
    def predictive(self, values: Mapping[str, Any], key: PRNGKeyArray) -> dict[str, Array]: ...

    @abc.abstractmethod
    def observations(self) -> dict[str, Array]: ...
