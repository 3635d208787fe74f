"""Plain functions as a density."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree
from numpyro.distributions import biject_to, constraints

from ._density import AbstractDensity, Structure, Terms
from ._errors import TargetError
from ._tree import as_jax, by_name, names_of


class PlainDensity(AbstractDensity):
    """A log density, or a log prior and a log likelihood, written as functions of constrained values and data."""

    log_density: Callable | None
    log_prior: Callable | None
    log_likelihood: Callable | None
    prior_sampler: Callable | None
    simulate: Callable | None
    data: tuple
    like: PyTree[Array]
    support: dict[str, Any]

    def structure(self) -> Structure:
        latent = {name: jnp.shape(leaf) for name, leaf in by_name(self.like).items()}
        return Structure(latent, {}, {}, {})

    def _transforms(self) -> PyTree:
        return jax.tree.map(lambda name: biject_to(self.support.get(name, constraints.real)), names_of(self.like))

    def _value(self, function: Callable, name: str, *args) -> Array:
        value = jnp.asarray(function(*args, *as_jax(self.data)))
        if value.shape != ():
            raise TargetError(
                f"`{name}` must return one number; it returned an array of shape {value.shape}. "
                "Sum over the observations."
            )
        return value

    def terms(self, u) -> Terms:
        transforms = self._transforms()
        is_leaf = _is_transform
        x = jax.tree.map(lambda t, leaf: t(leaf), transforms, u, is_leaf=is_leaf)
        log_det = jax.tree.map(lambda t, a, b: jnp.sum(t.log_abs_det_jacobian(a, b)), transforms, u, x, is_leaf=is_leaf)
        jacobian = sum(jax.tree.leaves(log_det), start=0.0)
        values = by_name(x)
        if self.log_density is not None:
            return Terms(None, self._value(self.log_density, "log_density", x), {}, jacobian, values, {})
        prior = self._value(self.log_prior, "log_prior", x)  # pyright: ignore[reportArgumentType]
        pointwise = self.log_likelihood(x, *as_jax(self.data))  # pyright: ignore[reportOptionalCall]
        if not isinstance(pointwise, Mapping):
            pointwise = {"observed": jnp.asarray(pointwise)}
        likelihood = sum((jnp.sum(term) for term in pointwise.values()), start=0.0)
        return Terms(prior, likelihood, dict(pointwise), jacobian, values, {})

    def _from_values(self, values: Mapping[str, Any]) -> PyTree[Array]:
        def pick(name, leaf):
            value = jnp.asarray(values[name], dtype=jnp.result_type(float))
            return jnp.broadcast_to(value, jnp.shape(leaf)) if value.ndim < jnp.ndim(leaf) else value

        return jax.tree.map(pick, names_of(self.like), self.like)

    def unconstrain(self, values) -> PyTree[Array]:
        x = self._from_values(values)
        return jax.tree.map(lambda t, leaf: t.inv(leaf), self._transforms(), x, is_leaf=_is_transform)

    def example(self) -> PyTree[Array]:
        return self.unconstrain(by_name(self.like))

    def sample_prior(self, key: PRNGKeyArray) -> PyTree[Array]:
        if self.prior_sampler is None:
            raise TargetError(
                "This target cannot draw from its prior. Pass `sample_prior=`, a function of `key`, when you make it; "
                "or write the model in NumPyro and use `Target.from_numpyro`."
            )
        return self.unconstrain(by_name(self.prior_sampler(key)))

    def predictive(self, values, key: PRNGKeyArray) -> dict[str, Array]:
        if self.simulate is None:
            raise TargetError(
                "This target cannot simulate observations. Pass `simulate=`, a function of the values and `key`, when "
                "you make it; or write the model in NumPyro and use `Target.from_numpyro`."
            )
        simulated = self.simulate(self._from_values(values), key)
        return dict(simulated) if isinstance(simulated, Mapping) else {"observed": simulated}

    def observations(self) -> dict[str, Array]:
        return {}


def _is_transform(node) -> bool:
    return hasattr(node, "log_abs_det_jacobian")
