"""What a trained network expects: its prior, its sources, its latent; and how these are brought before it."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._bijection import Bijection, inverse
from ._mixture import SUM_TOLERANCE, Components, components_of, describe, is_mixture
from ._problem import InferenceProblem, Rows, as_rows
from ._tokens import Tokens, Units, component_features, row_features


class Encoded(eqx.Module):
    """Prior and data as arrays, any number of problems in front.

    - `prior`: components, or parameters `(..., p)` as real numbers.
    - `values`: `(..., rows, columns)` for each source. `present`: `(..., rows)`.
    """

    prior: Components | Float[Array, "... p"]
    values: tuple[Array, ...]
    present: tuple[Array, ...]

    def sound(self) -> Array:
        """Whether the numbers of each problem are finite, and weights sum to 1."""
        if isinstance(self.prior, Components):
            log_weights, mean, tril = self.prior
            fine = jnp.abs(jax.nn.logsumexp(log_weights, -1)) < SUM_TOLERANCE
            fine &= jnp.isfinite(mean).all((-1, -2)) & jnp.isfinite(tril).all((-1, -2, -3))
            fine &= (jnp.diagonal(tril, axis1=-2, axis2=-1) > 0).all((-1, -2))
        else:
            fine = jnp.isfinite(self.prior).all(-1)
        for values in self.values:
            fine &= jnp.isfinite(values).all((-1, -2))
        return fine


class Spec(eqx.Module):
    """What the network was made for.

    - `family`: "mixture"; else the class name of the prior, or "numbers" for a PyTree of these.
    - `num_components`: tokens in training.
    - `num_parameters`: real numbers that describe a prior that is no mixture. `leaf_axes`: of the leaves of a PyTree.
    - `size`: n, coordinates of the latent. `scalar`: whether it is a number.
    - `diagonal`: components have diagonal covariances.
    - `sources`: (name, columns, rows, axes) of each: the most rows in training; axes of its arrays.
    - `bijection`: from real numbers to the latent, by coordinate.
    """

    family: str = eqx.field(static=True)
    num_components: int = eqx.field(static=True)
    num_parameters: int = eqx.field(static=True)
    leaf_axes: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    scalar: bool = eqx.field(static=True)
    diagonal: bool = eqx.field(static=True)
    sources: tuple[tuple[str, int, int, int], ...] = eqx.field(static=True)
    bijection: Bijection

    @property
    def is_mixture(self) -> bool:
        """Whether priors are mixtures of normals."""
        return self.family == "mixture"

    def encode(self, prior: Any, observed: Mapping[str, Rows]) -> Encoded:
        """Arrays of a prior and data that have been checked."""
        first = components_of(prior) if self.is_mixture else numbers_of(prior, self.leaf_axes)
        lead = self.lead(first)
        values, present = [], []
        for name, columns, _, axes in self.sources:
            if name in observed:
                found, there = observed[name]
                if axes < 2:  # one row
                    found = found.reshape(*lead, 1, columns)
                    there = None if there is None else there[..., None]
                there = jnp.ones(found.shape[:-1], bool) if there is None else there
            else:
                found, there = jnp.zeros((*lead, 1, columns)), jnp.zeros((*lead, 1), bool)
            values.append(jnp.where(jnp.broadcast_to(there, found.shape[:-1])[..., None], found, 0.0))
            present.append(jnp.broadcast_to(there, found.shape[:-1]))
        return Encoded(first, tuple(values), tuple(present))

    @staticmethod
    def lead(prior: Components | Array) -> tuple[int, ...]:
        """The batch shape of a prior."""
        return (prior.log_weights if isinstance(prior, Components) else prior).shape[:-1]

    def real(self, latent: Array) -> Array:
        """Real numbers `(n,)` of a latent."""
        return inverse(self.bijection, latent.reshape(self.size))

    def check_prior(self, prior: Any) -> tuple[int, ...]:
        """The batch shape of a prior; raises where it is none of the trained family."""
        if self.is_mixture:
            if not isinstance(prior, dist.Distribution) or not is_mixture(prior):
                got = describe(prior)
                raise TypeError(f"`prior` must be a normal or a mixture of normals; got {got}. See gaussian_mixture.")
            size = 1 if tuple(prior.event_shape) == () else prior.event_shape[-1]
            if size != self.size or (tuple(prior.event_shape) == ()) != self.scalar:
                shape = () if self.scalar else (self.size,)
                raise ValueError(f"`prior` must be of values of shape {shape}; got {tuple(prior.event_shape)}.")
            return tuple(prior.batch_shape)
        if self.family != "numbers" and type(prior).__name__ != self.family:
            raise TypeError(f"`prior` must be the {self.family} that it was trained for; got {describe(prior)}.")
        if self.family != "numbers":
            return tuple(prior.batch_shape)
        shapes = [tuple(jnp.asarray(leaf).shape) for leaf in jax.tree.leaves(prior)]
        if len(shapes) != len(self.leaf_axes) or any(len(s) < a for s, a in zip(shapes, self.leaf_axes, strict=True)):
            raise ValueError(f"`prior` must have {len(self.leaf_axes)} arrays as in training; got shapes {shapes}.")
        lead = [shape[: len(shape) - axes] for shape, axes in zip(shapes, self.leaf_axes, strict=True)]
        return max(lead, key=len)

    def explain(self, prior: Any, observed: Mapping[str, Rows]) -> None:
        """Raises `ValueError` that says which numbers of prior or data are not to be had."""
        if self.is_mixture:
            check_components(components_of(prior))
        elif not np.isfinite(np.asarray(numbers_of(prior, self.leaf_axes))).all():
            raise ValueError(f"`prior` must have finite parameters within their range; got {prior!r}.")
        for name, (values, _) in observed.items():
            if not np.isfinite(np.asarray(values)).all():
                raise ValueError(
                    f"`observed` of {name!r} has values that are not finite. Leave out what is missing: the source "
                    "from the dictionary, or rows by Rows(values, present)."
                )

    def check_observed(self, observed: Any, lead: tuple[int, ...]) -> dict[str, Rows]:
        """Data by source. Raises `ValueError` for unknown names and shapes that do not fit.

        - `lead`: the prior's batch shape, which the data must have in front.
        """
        if observed is None:
            return {}
        if not isinstance(observed, Mapping):
            if len(self.sources) > 1:
                raise ValueError(f"`observed` must be a dictionary of sources: {self._names()}.")
            observed = {name: observed for name, *_ in self.sources}
        found = as_rows(observed)
        if unknown := sorted(set(found) - {source[0] for source in self.sources}):
            raise ValueError(f"`observed` has unknown sources {unknown}; known are {self._names()}.")
        checked = {}
        for name, columns, _, axes in self.sources:
            if name not in found:
                continue
            values, present = found[name]
            event = {0: (), 1: (columns,)}.get(axes)
            fits = values.shape[: len(lead)] == lead and values.ndim == len(lead) + axes
            if (
                not fits
                or (event is not None and values.shape[len(lead) :] != event)
                or (axes == 2 and values.shape[-1] != columns)
            ):
                wanted = (*lead, *(("rows", columns) if event is None else event))
                raise ValueError(f"`observed` of {name!r} must have shape {wanted}; got {values.shape}.")
            checked[name] = Rows(values, present)
        return checked

    def _names(self) -> str:
        return ", ".join(repr(source[0]) for source in self.sources)


class Scales(eqx.Module):
    """Units of everything that the network sees or tells.

    - `latent`: `(n,)`, in real numbers. `parameters`: of priors that are no mixtures. `sources`: of each source.
    """

    latent: Units
    parameters: Units | None
    sources: tuple[Units, ...]

    def tokens(self, spec: Spec, encoded: Encoded) -> Tokens:
        """What the network sees of one problem."""
        if isinstance(encoded.prior, Components):
            prior = component_features(encoded.prior, self.latent, spec.diagonal)
            live = encoded.prior.live
        else:
            assert self.parameters is not None
            prior, live = self.parameters(encoded.prior)[None], jnp.ones(spec.num_components, bool)
        rows = tuple(row_features(units, values) for units, values in zip(self.sources, encoded.values, strict=True))
        return Tokens(prior, live, rows, encoded.present)


def numbers_of(prior: Any, leaf_axes: tuple[int, ...]) -> Float[Array, "... p"]:
    """The parameters of a prior as real numbers: logarithms of positive ones, logits of those in (0, 1).

    - `leaf_axes`: for a PyTree, how many axes its leaves have for one problem.
    """
    if not isinstance(prior, dist.Distribution):
        leaves = [jnp.asarray(leaf, float) for leaf in jax.tree.leaves(prior)]
        lead = [leaf.shape[: leaf.ndim - axes] for leaf, axes in zip(leaves, leaf_axes, strict=True)]
        return jnp.concatenate([leaf.reshape(*front, -1) for leaf, front in zip(leaves, lead, strict=True)], -1)
    numbers = []
    for name, constraint in sorted(prior.arg_constraints.items()):
        value = jnp.asarray(getattr(prior, name), float)
        numbers.append(dist.biject_to(constraint).inv(value))
    return jnp.stack(jnp.broadcast_arrays(*numbers), -1)


def check_components(parts: Components) -> None:
    """Raises `ValueError` for components that are no mixture of normals."""
    weights, mean, tril = (np.asarray(part) for part in (np.exp(parts.log_weights), parts.mean, parts.scale_tril))
    if not np.isfinite(weights).all() or not (np.abs(weights.sum(-1) - 1) < SUM_TOLERANCE).all():
        raise ValueError(f"`prior` has weights that are not finite or do not sum to 1: {weights}.")
    if not np.isfinite(mean).all():
        raise ValueError(f"`prior` has means that are not finite: {mean}.")
    if not np.isfinite(tril).all() or not (np.diagonal(tril, axis1=-2, axis2=-1) > 0).all():
        raise ValueError("`prior` has a covariance that is not positive definite.")


def spec_of(problem: InferenceProblem, num_components: int, diagonal: bool, *, key: Any) -> Spec:
    """What a network for this problem must expect, by one draw."""
    prior, latent, observed = eqx.filter_jit(problem.draw)(key=key)
    if latent.ndim > 1:
        raise ValueError(f"The latent must be a number or a vector; got shape {latent.shape}. Ravel it.")
    if isinstance(prior, dist.Distribution) and is_mixture(prior):
        family, num, count, axes = "mixture", components_of(prior).num, 0, ()
    else:
        named = isinstance(prior, dist.Distribution)
        axes = () if named else tuple(jnp.ndim(leaf) for leaf in jax.tree.leaves(prior))
        family = type(prior).__name__ if named else "numbers"
        num, count = num_components, numbers_of(prior, axes).shape[-1]
    sources = tuple(
        (name, values.shape[-1] if values.ndim else 1, len(values) if values.ndim == 2 else 1, values.ndim)
        for name, (values, _) in sorted(observed.items())
    )
    return Spec(
        family, num, count, axes, latent.size, latent.ndim == 0, diagonal, sources,
        problem.to_latent(prior, latent.size),
    )  # fmt: skip
