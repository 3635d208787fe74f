"""The whole hidden path of a linear Gaussian series as a posterior to be sampled."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from posterax import Target

from ._checks import as_float, require_shape
from ._kalman import update
from ._state_space import LinearGaussianStateSpace


class _StatePath(dist.Distribution):
    """Prior of the path of states, event shape `(time, d)`."""

    support = constraints.real_matrix  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("model",)
    pytree_aux_fields = ("num_steps",)

    def __init__(self, model: LinearGaussianStateSpace, num_steps: int):
        self.model, self.num_steps = model, num_steps
        super().__init__((), (num_steps, model.initial_mean.size))

    def sample(self, key: Any, sample_shape=()):
        draw = jax.vmap(lambda k: self.model.simulate(num_steps=self.num_steps, key=k)[0])
        paths = draw(jr.split(key, sample_shape).reshape(-1))
        return paths.reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value):
        model = self.model
        first = dist.MultivariateNormal(model.initial_mean, model.initial_cov).log_prob(value[0])
        moves = value[1:] - value[:-1] @ model.transition_matrix.T
        origin = jnp.zeros_like(model.initial_mean)
        return first + dist.MultivariateNormal(origin, model.transition_cov).log_prob(moves).sum()


class _Emissions(dist.Distribution):
    """Law of each observation given its state, batch shape `(time,)`, event shape `(p,)`; NaN is missing."""

    support = constraints.real_vector  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("model", "states")

    def __init__(self, model: LinearGaussianStateSpace, states: Array):
        self.model, self.states = model, states
        super().__init__(states.shape[:-1], (model.emission_matrix.shape[0],))

    def sample(self, key: Any, sample_shape=()):
        means = self.states @ self.model.emission_matrix.T
        return dist.MultivariateNormal(means, self.model.emission_cov).sample(key, sample_shape)

    def log_prob(self, value):
        model = self.model
        known = jnp.zeros_like(model.initial_cov)  # the state is given, so all spread is the emission's

        def one(state, y):
            return update(state, known, model.emission_matrix, model.emission_cov, y)[2]

        return jax.vmap(one)(self.states, value)


def state_space_model(model, observed):
    """The NumPyro model of `StateSpacePosterior`."""
    states = numpyro.sample("state", _StatePath(model, observed.shape[0]))
    with numpyro.plate("time", observed.shape[0]):
        numpyro.sample("y", _Emissions(model, states), obs=observed)


class StateSpacePosterior(eqx.Module):
    """The path of states given a series, whose law is the smoother's: a Gaussian of any dimension one likes.

    - `model`: a `LinearGaussianStateSpace` whose covariances are all positive definite (else the path has no
      density).
    - `observed`: shape `(time, p)`; NaN entries are missing.

    The one latent site is `state` of shape `(time, d)`.

    Source: Rauch, Tung and Striebel (1965), doi:10.2514/3.3166.
    """

    model: LinearGaussianStateSpace
    observed: Float[Array, "time p"] = eqx.field(converter=as_float)

    def __check_init__(self):
        require_shape("observed", self.observed, ("time", self.model.emission_matrix.shape[0]))
        for name in ("initial_cov", "transition_cov"):
            cov = getattr(self.model, name)
            if not isinstance(cov, Tracer) and jnp.isnan(jnp.linalg.cholesky(cov)).any():
                raise ValueError(
                    f"`model.{name}` must be positive definite for the path of states to have a density; "
                    f"got {cov}. The model's own methods (`smooth`, `sample_path`) need no density."
                )

    @property
    def source(self) -> str:
        """Where the answer comes from."""
        return "Rauch, Tung and Striebel (1965), doi:10.2514/3.3166"

    @property
    def target(self) -> Target:
        """The posterior of the path."""
        return Target.from_numpyro(state_space_model, self.model, self.observed, dims={"state": ["time", "component"]})

    @property
    def mean(self) -> dict[str, Array]:
        """Exact posterior mean, `(time, d)` for `state`."""
        return {"state": self.model.smooth(self.observed).mean}

    @property
    def sd(self) -> dict[str, Array]:
        """Exact posterior standard deviation, `(time, d)` for `state`."""
        variances = jnp.diagonal(self.model.smooth(self.observed).cov, axis1=1, axis2=2)
        return {"state": jnp.sqrt(variances)}

    @property
    def log_evidence(self) -> Float[Array, ""]:
        """Exact log density of all that was observed, in nats."""
        return self.model.log_likelihood(self.observed)

    def sample(self, *, key: PRNGKeyArray) -> dict[str, Array]:
        """One exact, independent draw from the posterior."""
        return {"state": self.model.sample_path(self.observed, key=key)}
