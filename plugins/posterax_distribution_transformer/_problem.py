"""What is to be learned: priors that are drawn, latents that they give, data that a simulator makes of these."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._bijection import Bijection, as_bijection


class Rows(NamedTuple):
    """Data of one source of which some may be missing.

    - `values`: `(rows, columns)`; or `(columns,)` or `()` for a source that gives one row.
    - `present`: `(rows,)`, or `()` for one row: False where a row is missing, and what stands there is never looked at.
      None where all are present.
    """

    values: Float[Array, "..."]
    present: Bool[Array, "..."] | None = None


class InferenceProblem(eqx.Module):
    """A family of inference problems: draws of (prior, latent, data) are all that training needs.

    - `prior`: a function of a key that draws a prior from the meta-prior: a mixture of normals, any other NumPyro
      distribution of one family, or a PyTree of real numbers (then `latent` says what they mean).
    - `simulate`: `simulate(latent, key=key)` gives the data: an array, or a dictionary of arrays or `Rows`, one for
      each source. An array `(rows, columns)` is a set of rows, in any order; one of fewer axes is a single row.
    - `latent`: `latent(prior, key=key)`, a number or a vector `(n,)`; by default `prior.sample(key)`.
    - `bijection`: from real numbers to the latent: a transform of NumPyro's, or a tuple of one for each coordinate; by
      default that of the prior's support.

    Both functions are compiled and mapped: write them with `jax.numpy`, for one problem.
    """

    prior: Callable[[PRNGKeyArray], Any]
    simulate: Callable[..., Any]
    latent: Callable[..., Any] | None = None
    bijection: Any = None

    def draw(self, *, key: PRNGKeyArray) -> tuple[Any, Array, dict[str, Rows]]:
        """A prior, a latent from it, and data given that."""
        key_prior, key_latent, key_data = jax.random.split(key, 3)
        prior = self.prior(key_prior)
        draw = _sample if self.latent is None else self.latent
        latent = jnp.asarray(draw(prior, key=key_latent))
        return prior, latent, as_rows(self.simulate(latent, key=key_data))

    def to_latent(self, prior: Any, size: int) -> Bijection:
        """The bijection from real numbers to latents."""
        if self.bijection is not None:
            return as_bijection(self.bijection, size)
        if not isinstance(prior, dist.Distribution):
            raise ValueError(
                "`bijection` is needed where the prior is no NumPyro distribution: one transform for each coordinate, "
                "such as (IdentityTransform(), ExpTransform()) of numpyro.distributions.transforms."
            )
        return as_bijection(dist.biject_to(prior.support), size)


def as_rows(observed: Any) -> dict[str, Rows]:
    """Data by source; an array alone is the source "observed"."""
    if not isinstance(observed, Mapping):
        observed = {"observed": observed}
    return {name: _rows(value) for name, value in observed.items()}


def _rows(value: Any) -> Rows:
    if isinstance(value, Rows):
        return Rows(jnp.asarray(value.values), None if value.present is None else jnp.asarray(value.present))
    return Rows(jnp.asarray(value))


def _sample(prior: Any, *, key: PRNGKeyArray) -> Array:
    return prior.sample(key)
