"""What kind of network, and how large: settings that make networks for given variables."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._networks import DenseNetwork, LatticeNetwork, PartialNetwork, SequenceNetwork
from ._validation import check_integer


class Architecture(eqx.Module):
    """Makes networks of one kind; plugins and users may bring their own.

    Those of ours have `dropout`: the share of the numbers within a layer that is left out at random in training from
    data.
    """

    @abc.abstractmethod
    def make(self, num_values: tuple[int, ...], pooled: bool, rng: np.random.Generator) -> PartialNetwork:
        """A network for variables of so many values each; `pooled`: it gives one number."""


class Dense(Architecture):
    """A residual perceptron on all variables at once: for tables and whatever has no order of its own.

    - `width`, `depth`: of the layers.
    """

    width: int = eqx.field(static=True, default=256)
    depth: int = eqx.field(static=True, default=2)
    dropout: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check_sizes(self, "width", "depth")

    def make(self, num_values, pooled, rng):
        """See `Architecture`."""
        size, wide, deep = len(num_values), self.width, self.depth
        seen = size * (1 + max(num_values))
        out = 1 if pooled else size * max(num_values)
        return DenseNetwork(
            num_values, self.dropout, _normal(rng, seen, wide, scale=math.sqrt(seen / size)), _zeros(wide),
            _normal(rng, deep, wide, wide, scale=math.sqrt(2)), _zeros(deep, wide),
            _normal(rng, deep, wide, wide, scale=1 / math.sqrt(deep)), _normal(rng, wide, out, scale=0.1), _zeros(out),
            _zeros(seen, out), _zeros(seen, seen) if pooled else None,
        )  # fmt: skip


class Lattice(Architecture):
    """Convolutions on a lattice with weights that its sites share.

    - `rows`, `columns`: of the lattice, whose sites are counted row by row. `periodic`: whether it is a torus; if not,
      each site has numbers of its own added.
    - `width`, `depth`: of the layers, of which each sees one step farther.
    """

    rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True, default=False)
    width: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=2)
    dropout: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check_sizes(self, "width", "depth", "rows", "columns")

    def make(self, num_values, pooled, rng):
        """See `Architecture`; raises `ValueError` where the lattice has another number of sites."""
        size, wide, deep = len(num_values), self.width, self.depth
        if size != self.rows * self.columns:
            raise ValueError(
                f"`Lattice({self.rows}, {self.columns})` has {self.rows * self.columns} sites; got {size}."
            )
        seen, out, own = 1 + max(num_values), 1 if pooled else max(num_values), 1 if self.periodic else size
        return LatticeNetwork(
            num_values, self.dropout, (self.rows, self.columns), self.periodic,
            _normal(rng, seen, wide, scale=math.sqrt(seen)), 0.1 * _normal(rng, own, wide, scale=math.sqrt(own)),
            _normal(rng, deep, 9 * wide, wide, scale=math.sqrt(2)), _zeros(deep, wide),
            _normal(rng, deep, wide, wide, scale=1 / math.sqrt(deep)),
            _normal(rng, wide, out, scale=0.1 / math.sqrt(size if pooled else 1)), _zeros(own, out),
            _zeros(9 * seen, out), _zeros(seen, 9 * seen) if pooled else None,
        )  # fmt: skip


class Sequence(Architecture):
    """A transformer over the variables in their order.

    - `width`, `heads`, `depth`: of its layers; `width` is a multiple of `heads`.
    """

    width: int = eqx.field(static=True, default=64)
    heads: int = eqx.field(static=True, default=4)
    depth: int = eqx.field(static=True, default=2)
    dropout: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check_sizes(self, "width", "heads", "depth")
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`; got {self.width} and {self.heads}.")

    def make(self, num_values, pooled, rng):
        """See `Architecture`."""
        size, wide, deep = len(num_values), self.width, self.depth
        seen, out, inside = 1 + max(num_values), 1 if pooled else max(num_values), 4 * wide
        return SequenceNetwork(
            num_values, self.dropout, self.heads, pooled, _normal(rng, seen, wide, scale=math.sqrt(seen)),
            _normal(rng, size, wide, scale=math.sqrt(size)), _normal(rng, deep, wide, 3 * wide),
            _normal(rng, deep, wide, wide, scale=1 / math.sqrt(deep)),
            _normal(rng, deep, wide, inside, scale=math.sqrt(2)), _zeros(deep, inside),
            _normal(rng, deep, inside, wide, scale=1 / math.sqrt(deep)), _normal(rng, wide, out, scale=0.1),
            _zeros(size, out),
        )  # fmt: skip


def _check_sizes(settings: Any, *names: str) -> None:
    for name in names:
        check_integer(name, getattr(settings, name), 1)
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"`dropout` must be at least 0 and below 1; got {settings.dropout!r}.")


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return jnp.asarray(scale / math.sqrt(shape[-2]) * rng.normal(size=shape), jnp.float32)


def _zeros(*shape: int) -> Array:
    return jnp.zeros(shape, jnp.float32)
