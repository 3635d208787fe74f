"""States and parameters of a state-space model as one target: what particle MCMC samples, and gradients can."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree
from numpyro.handlers import block, seed, substitute
from posterax import AbstractDensity, Structure, Target, TargetError, Terms
from posterax._numpyro_density import NumpyroDensity
from posterax._tree import as_data, as_jax

from ._feynman_kac import FeynmanKac
from ._forms import Bootstrap, check_observed
from ._state_space import StateSpaceModel, log_emission, total


class StateSpaceDensity(AbstractDensity):
    """The joint density of parameters, states and observations."""

    model: Callable | StateSpaceModel
    args: tuple
    observed: PyTree[Array]
    to_filter: Callable

    def parameters(self) -> NumpyroDensity | None:
        """The prior of the parameters; None where there are none."""
        return None if isinstance(self.model, StateSpaceModel) else NumpyroDensity(self.model, self.args, {})

    def state_space(self, values: Mapping[str, Any]) -> StateSpaceModel:
        """The model at these parameters."""
        if isinstance(self.model, StateSpaceModel):
            return self.model
        with block():
            found = seed(substitute(self.model, data=dict(values)), jr.key(0))(*as_jax(self.args))
        if not isinstance(found, StateSpaceModel):
            raise TargetError(
                f"The model {getattr(self.model, '__qualname__', self.model)!r} must return the StateSpaceModel of the "
                f"parameters it has sampled; it returned {type(found).__name__}."
            )
        return found

    def feynman_kac(self, values: Mapping[str, Any]) -> FeynmanKac:
        """What particles run on at these parameters."""
        return self.to_filter(self.state_space(values), self.observed)

    @property
    def num_steps(self) -> int:
        """The number of observations."""
        return np.shape(jax.tree.leaves(self.observed)[0])[0]

    def structure(self) -> Structure:
        parameters = self.parameters()
        known = Structure({}, {}, {}, {}) if parameters is None else parameters.structure()
        if "states" in known.latent or known.observed:
            raise TargetError(
                "The model of the parameters must sample parameters alone: no site named 'states', and none observed "
                f"(the observations are `observed`). It has {sorted(known.latent)} and {sorted(known.observed)}."
            )
        states = jax.eval_shape(self._prior_states, jr.key(0))
        if len(leaves := jax.tree.leaves(states)) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
            raise TargetError(
                "States must be one array of real numbers to be part of a Target; these are "
                f"{states}. For others, run `conditional_sweep` or a filter."
            )
        latent = {**known.latent, "states": leaves[0].shape}
        observed = {"observed": np.shape(self.observed)} if hasattr(self.observed, "shape") else {}
        return Structure(latent, observed, known.derived, known.dims)

    def terms(self, u) -> Terms:
        parameters = self.parameters()
        states = u["states"]
        if parameters is None:
            known = Terms(0.0, 0.0, {}, 0.0, {}, {})
        else:
            known = parameters.terms({name: leaf for name, leaf in u.items() if name != "states"})
        model = self.state_space(known.values)
        times = jnp.arange(1, self.num_steps)
        moves = jax.vmap(lambda t, before, x: total(model.transition(t, before), x))(times, states[:-1], states[1:])
        seen = jax.vmap(lambda t, x, y: log_emission(model.emission(t, x), y))
        terms = seen(jnp.arange(self.num_steps), states, jax.tree.map(jnp.asarray, self.observed))
        prior = known.log_joint + total(model.initial(), states[0]) + jnp.sum(moves)
        values = {**known.values, "states": states}
        return Terms(prior, jnp.sum(terms), {"observed": terms}, known.log_jacobian, values, known.derived)

    def unconstrain(self, values) -> dict:
        parameters = self.parameters()
        u = {} if parameters is None else parameters.unconstrain({k: v for k, v in values.items() if k != "states"})
        return {**u, "states": jnp.asarray(values["states"], dtype=jnp.result_type(float))}

    def example(self) -> dict:
        return self.sample_prior(jr.key(0))

    def sample_prior(self, key) -> dict:
        key_parameters, key_states = jr.split(key)
        parameters = self.parameters()
        u = {} if parameters is None else parameters.sample_prior(key_parameters)
        values = {} if parameters is None else parameters.terms(u).values
        states, _ = self.state_space(values).simulate(num_steps=self.num_steps, key=key_states)
        return {**u, "states": states}

    def predictive(self, values, key) -> dict:
        model, states = self.state_space(values), values["states"]
        draw = jax.vmap(lambda t, x, key: model.emission(t, x).sample(key))
        return {"observed": draw(jnp.arange(self.num_steps), states, jr.split(key, self.num_steps))}

    def observations(self) -> dict:
        return {"observed": jnp.asarray(self.observed)} if hasattr(self.observed, "shape") else {}

    def _prior_states(self, key):
        parameters = self.parameters()
        values = {} if parameters is None else parameters.terms(parameters.sample_prior(key)).values
        return self.state_space(values).simulate(num_steps=self.num_steps, key=key)[0]


def state_space_target(
    model: Callable | StateSpaceModel,
    observed: PyTree[Array],
    *args: Any,
    to_filter: Callable = Bootstrap,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
) -> Target:
    """The posterior of the states, named "states", and of the parameters of a state-space model.

        def model():
            level_sd = numpyro.sample("level_sd", dist.HalfNormal(100.0))
            return LocalLevel(level_sd, noise_sd=120.0)

        target = state_space_target(model, observed)
        draws = sample(ParticleGibbs(50), target, key=key)

    Every sampler for a `Target` runs on it, gradient ones too; `ParticleGibbs` and `ParticleMarginal` know how it is
    made. Missing observations are NaN.

    - `model`: a NumPyro model that samples the parameters and returns the `StateSpaceModel`; or a `StateSpaceModel`,
      where there are no parameters.
    - `observed`: as in `Bootstrap`.
    - `*args`: passed to `model`.
    - `to_filter`: function of (state-space model, observed), the `FeynmanKac` model for particles.
    - `dims`, `coords`: as in `Target`.
    """
    observed = as_data(observed, "observed")
    check_observed(observed)
    density = StateSpaceDensity(model, as_data(args, "args"), observed, to_filter)
    target = Target.from_density(density, dims, coords)
    try:  # the observations must fit the emission: only the filter's own check knows
        jax.eval_shape(
            lambda: density.feynman_kac(_example_values(density)).log_start(target.density.example()["states"][0])
        )
    except ValueError as error:
        raise ValueError(f"`observed` does not fit the model: {error}") from error
    return target


def _example_values(density: StateSpaceDensity) -> dict:
    parameters = density.parameters()
    return {} if parameters is None else parameters.terms(parameters.example()).values


def require_state_space(target: Any, what: str) -> StateSpaceDensity:
    """The density of a target made by `state_space_target`, or a `TypeError` in the name of `what`."""
    density = getattr(target, "density", None)
    if not isinstance(density, StateSpaceDensity):
        raise TypeError(
            f"{what} samples the target of a state-space model, made by `state_space_target(model, observed)`; got "
            f"{type(target).__name__} of {type(density).__name__}."
        )
    return density
