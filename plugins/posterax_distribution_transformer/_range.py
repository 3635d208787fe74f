"""Whether a prior and data look like those of the training: where they do not, an answer is a guess."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._algebra import mixture_moments
from ._mixture import Components
from ._spec import Encoded, Scales, Spec

_MARGIN = 0.05  # of the width of what was seen, on both sides


class Outside(NamedTuple):
    """What is outside of the training's range, of one problem or of many.

    - `figures`: `(..., f)`, which figures of prior and data are.
    - `together`: `(...)`, whether they are an unseen combination though each alone may have been seen.
    """

    figures: Bool[Array, "... f"]
    together: Bool[Array, "..."]

    @property
    def anywhere(self) -> Bool[Array, "..."]:
        """Whether anything is."""
        return self.figures.any(-1) | self.together


class Range(eqx.Module):
    """What prior and data looked like in training: the extremes of some figures, and how they went together.

    - `names`: of the figures. `low`, `high`: `(f,)`, their extremes among simulated problems, widened by a twentieth.
    - `centre`, `whiten`, `radius`: the largest distance (Mahalanobis) from the mean of the figures, likewise.
    - `num`: how many problems were looked at: about 2 in `num` problems like those are outside for each figure.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    low: Float[Array, " f"]
    high: Float[Array, " f"]
    centre: Float[Array, " f"]
    whiten: Float[Array, "f f"]
    radius: Float[Array, ""]
    num: int = eqx.field(static=True)

    @staticmethod
    def of(names: tuple[str, ...], figures: np.ndarray) -> "Range":
        """The range of simulated problems, `(n, f)`; NaN is a figure that a problem does not have."""
        rows = np.asarray(figures, float)
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        margin = _MARGIN * (high - low) + 1e-6
        centre = np.nanmean(rows, axis=0)
        off = np.nan_to_num(rows - centre)
        covariance = np.cov(off.T).reshape(len(names), len(names)) + 1e-6 * np.eye(len(names))
        sd = np.sqrt(np.diag(covariance))
        values, vectors = np.linalg.eigh(covariance / np.outer(sd, sd))
        whiten = (vectors / np.sqrt(np.maximum(values, 1e-3))).T / sd
        radius = np.sqrt(((off @ whiten.T) ** 2).sum(-1)).max() * (1 + _MARGIN)
        low, high, centre, whiten, radius = (
            jnp.asarray(array, jnp.float32) for array in (low - margin, high + margin, centre, whiten, radius)
        )
        return Range(names, low, high, centre, whiten, radius, len(rows))

    def __call__(self, figures: Float[Array, "... f"]) -> Outside:
        """Which figures are outside; one that a problem does not have is not."""
        out = (figures < self.low) | (figures > self.high)
        off = jnp.nan_to_num(figures - self.centre)
        distance = jnp.linalg.norm(off @ self.whiten.T, axis=-1)
        return Outside(out, distance > self.radius)

    def words(self, outside: Outside, figures: Any) -> str:
        """What is outside, in words; empty where nothing is."""
        out, anywhere = np.asarray(outside.figures), np.asarray(outside.anywhere)
        if not anywhere.any():
            return ""
        values = np.asarray(figures, float)
        said = []
        for i, name in enumerate(self.names):
            if out[..., i].any():
                worst = values[..., i][out[..., i]]
                worst = worst[np.argmax(np.abs(worst - float(self.centre[i])))]
                said.append(f"{name} is {worst:.4g}, in training {self.low[i]:.4g} to {self.high[i]:.4g}")
        if not said:
            said.append("prior and data are a combination that training did not have")
        count = f" ({int(anywhere.sum())} of {anywhere.size} problems)" if anywhere.size > 1 else ""
        return "; ".join(said) + count


def figures_of(spec: Spec, scales: Scales, encoded: Encoded) -> tuple[tuple[str, ...], Float[Array, "... f"]]:
    """Names and values of the figures by which problems are compared, in standard units (logarithms of scales)."""
    named: list[tuple[str, Array]] = []
    if isinstance(encoded.prior, Components):
        named += _of_mixture(encoded.prior, scales)
    else:
        assert scales.parameters is not None
        numbers = scales.parameters(encoded.prior)
        named += [(f"parameter {i} of the prior", numbers[..., i]) for i in range(numbers.shape[-1])]
    for (name, columns, rows, _), units, values, present in zip(
        spec.sources, scales.sources, encoded.values, encoded.present, strict=True
    ):
        there, x = present[..., None], jnp.arcsinh(units(values))
        many = rows > 1
        for what, reduce, empty in (("smallest", jnp.min, jnp.inf), ("largest", jnp.max, -jnp.inf)):
            extreme = reduce(jnp.where(there, x, empty), axis=-2)
            extreme = jnp.where(jnp.isfinite(extreme), extreme, jnp.nan)
            for column in range(columns):
                label = f"column {column} of " if columns > 1 else ""
                named.append((f"{what} {label}{name!r}" if many else f"{label}{name!r}", extreme[..., column]))
            if not many:
                break
        if many:
            named.append((f"number of rows of {name!r}", present.sum(-1).astype(float)))
    return tuple(name for name, _ in named), jnp.stack([value for _, value in named], -1)


def _of_mixture(parts: Components, scales: Scales) -> list[tuple[str, Array]]:
    mean, covariance = mixture_moments(parts)
    units = scales.latent
    middle, spread = units(mean), jnp.log(jnp.sqrt(jnp.diagonal(covariance, axis1=-2, axis2=-1)) / units.size)
    live = jnp.exp(parts.log_weights)[..., None] > 1e-3
    sd = jnp.log(jnp.sqrt(jnp.diagonal(parts.covariance, axis1=-2, axis2=-1)) / units.size)
    narrow = jnp.min(jnp.where(live, sd, jnp.inf), (-1, -2))
    found = [(f"mean of the prior, coordinate {i},", middle[..., i]) for i in range(parts.size)]
    found += [(f"log sd of the prior, coordinate {i},", spread[..., i]) for i in range(parts.size)]
    return [
        *found,
        ("effective number of components of the prior", parts.effective_num),
        ("least log sd of a component", narrow),
    ]
