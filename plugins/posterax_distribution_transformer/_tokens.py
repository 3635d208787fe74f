"""What the network is shown: numbers of moderate size for each component of the prior and each row of the data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._mixture import Components, inverse_lower

LIMITS = (-11.0, 11.0)  # of the logarithms of scales
_NO_WEIGHT = -14.0


class Tokens(eqx.Module):
    """Prior and data of one problem, as the network sees them.

    - `prior`: `(K, f)`, a row for each component; one row for parameters.
    - `live`: `(K,)`, which tokens take part.
    - `sources`: `(rows, features)` for each source. `present`: `(rows,)`, which of its rows there are.
    """

    prior: Float[Array, "K f"]
    live: Bool[Array, " K"]
    sources: tuple[Array, ...]
    present: tuple[Bool[Array, " m"], ...]


class Units(eqx.Module):
    """Centre and size of numbers, column by column."""

    centre: Float[Array, " c"]
    size: Float[Array, " c"]

    @staticmethod
    def of(rows: Float[Array, "n c"], there: Bool[Array, " n"] | None = None) -> "Units":
        """Median and interquartile range over 1.35 of the rows that are there; 1 for columns that do not vary."""
        kept = np.asarray(rows, float) if there is None else np.asarray(rows, float)[np.asarray(there)]
        if not len(kept):
            raise ValueError("A source has no row in any of the simulated problems.")
        low, centre, high = np.quantile(kept, [0.25, 0.5, 0.75], axis=0)
        spread, sd = (high - low) / 1.35, kept.std(axis=0)
        size = np.where(spread > 1e-3 * sd, spread, sd)
        return Units(jnp.asarray(centre, jnp.float32), jnp.asarray(np.where(size > 0, size, 1.0), jnp.float32))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """In these units."""
        return (x - self.centre) / self.size


def row_features(units: Units, rows: Float[Array, "... c"]) -> Float[Array, "... f"]:
    """Two numbers for each column: one nearly linear near the centre and logarithmic far out; one of its size alone."""
    x = units(rows)
    return jnp.concatenate([jnp.arcsinh(x), 0.3 * jnp.log(x**2 + 1e-4)], -1)


def component_features(parts: Components, units: Units, diagonal: bool) -> Float[Array, "... K f"]:
    """The numbers that a head would give for each component: log weight, mean, logarithms of scales, below B."""
    tril = parts.scale_tril / units.size[:, None]
    size = parts.size
    white = inverse_lower(tril)
    sharp = jnp.diagonal(white, axis1=-2, axis2=-1)
    numbers = [
        jnp.maximum(parts.log_weights, _NO_WEIGHT)[..., None],
        units(parts.mean),
        jnp.clip(-jnp.log(sharp), *LIMITS),
    ]
    if size > 1 and not diagonal:
        rows, columns = jnp.tril_indices(size, -1)
        numbers.append((white / sharp[..., :, None])[..., rows, columns])
    return jnp.concatenate(numbers, -1)


def to_components(mixture: Any, units: Units) -> Components:
    """Components in the units of the latent, of a `Whitened` mixture in standard ones."""
    tril = units.size[:, None] * inverse_lower(mixture.lower) * jnp.exp(mixture.log_scale)[..., None, :]
    return Components(mixture.log_weights, units.centre + units.size * mixture.mean, tril)
