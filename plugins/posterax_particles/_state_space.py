"""State-space models written with NumPyro distributions."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._normal import normal


class StateSpaceModel(eqx.Module):
    """A hidden Markov process seen through noise: subclass it, with the parameters as fields.

    The methods return NumPyro distributions of one state or observation; batch axes of a distribution count as
    independent entries. t is a traced integer, so what depends on time is looked up: `self.trend[t]`.

        class LocalLevel(StateSpaceModel):
            level_sd: Array
            noise_sd: Array

            def initial(self):
                return dist.Normal(1000.0, 500.0)

            def transition(self, t, x):
                return dist.Normal(x, self.level_sd)

            def emission(self, t, x):
                return dist.Normal(x, self.noise_sd)
    """

    @abc.abstractmethod
    def initial(self) -> Any:
        """The law of the state at time 0."""

    @abc.abstractmethod
    def transition(self, t: Array, x: PyTree[Array]) -> Any:
        """The law of the state at time t >= 1, given the state x at time t - 1."""

    @abc.abstractmethod
    def emission(self, t: Array, x: PyTree[Array]) -> Any:
        """The law of the observation at time t, given the state x at that time."""

    @eqx.filter_jit
    def simulate(self, *, num_steps: int, key: PRNGKeyArray) -> tuple[PyTree[Array], PyTree[Array]]:
        """One draw of `num_steps` states and observations, both with a leading axis of time."""
        keys = jr.split(key, (num_steps, 2))
        x = self.initial().sample(keys[0, 0])
        first = self.emission(jnp.asarray(0), x).sample(keys[0, 1])

        def step(x, item):
            t, keys = item
            x = self.transition(t, x).sample(keys[0])
            return x, (x, self.emission(t, x).sample(keys[1]))

        _, rest = jax.lax.scan(step, x, (jnp.arange(1, num_steps), keys[1:]))
        return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), (x, first), rest)


def drawn(law: Callable, before: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
    """One draw of `law(x)` for each particle x, independently.

    Normal laws take their noise from one key, in one go: a key for each particle would cost as much again. Others are
    drawn one by one, since a NumPyro distribution made under `vmap` does not know its batch shape, and some would then
    give all particles the same noise.
    """
    num = jax.tree.leaves(before)[0].shape[0]
    try:
        like = jax.eval_shape(law, jax.tree.map(lambda leaf: leaf[0], before))
    except TypeError:  # no PyTree: a distribution of the user's own
        like = None
    if type(_innermost(like)) is not dist.Normal:
        return jax.vmap(lambda x, k: law(x).sample(k))(before, jr.split(key, num))

    def moments(x):
        at_x = _innermost(law(x))
        return jnp.broadcast_arrays(at_x.loc, at_x.scale)

    loc, scale = jax.vmap(moments)(before)
    return loc + scale * normal(key, loc.shape, loc.dtype)


def _innermost(law: Any) -> Any:
    """The law whose last batch axes `law` takes for its event."""
    return law.base_dist if isinstance(law, dist.Independent) else law


def total(law: Any, x: PyTree[Array]) -> Float[Array, ""]:
    """Log density of x, independent entries summed."""
    try:
        return jnp.sum(law.log_prob(x))
    except (NotImplementedError, AttributeError) as error:
        raise TypeError(
            f"{type(law).__name__} has no density (`log_prob`), but is to be weighted by it. A proposal, and a "
            "transition that is not proposed from, need one; `Bootstrap` does without that of the transition."
        ) from error


def listed(law: Any) -> tuple[Array, Float[Array, " K"]]:
    """All values of a law of one number that has finitely many, and their log probabilities."""
    if not getattr(law, "has_enumerate_support", False) or law.batch_shape or law.event_shape:
        raise TypeError(
            "All moves can be listed where their law is one of a single number with finitely many values, such as "
            f"Categorical; got {type(law).__name__} of shape {(*law.batch_shape, *law.event_shape)}. Else a guess can "
            "choose ancestors alone: `Auxiliary(model, ahead=log_twist)`."
        )
    values = law.enumerate_support(expand=False)
    return values, law.log_prob(values)


def log_emission(law: Any, observed: PyTree[Array]) -> Float[Array, ""]:
    """Log density of one observation; what is NaN counts as missing and adds nothing.

    Entries that are not independent can only be missing together: else NaN.
    """
    if not isinstance(observed, jax.Array):
        missing = jnp.all(jnp.stack([jnp.all(_absent(leaf)) for leaf in jax.tree.leaves(observed)]))
        return jnp.where(missing, 0.0, total(law, observed))
    absent = _absent(observed)
    terms = law.log_prob(jnp.where(absent, jnp.zeros((), observed.dtype), observed))
    event = tuple(range(-max(0, jnp.ndim(observed) - jnp.ndim(terms)), 0))
    gone = jnp.all(absent, axis=event)
    return jnp.sum(jnp.where(jnp.any(absent, axis=event) & ~gone, jnp.nan, jnp.where(gone, 0.0, terms)))


def _absent(leaf: Array) -> Array:
    return jnp.isnan(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.zeros(leaf.shape, bool)
