"""Plan: where a run computes and in which precision."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ._hosts import put

AXIS = "chain"


class Plan(eqx.Module):
    """Where a run computes, and in which precision. The same plan, key and versions give the same bits.

    Chains of one device run together under `jax.vmap`; over several devices they are divided evenly, each device with a
    loop of its own (`jax.shard_map`), so that none waits for the slowest chain of another.

    - `devices`: None for the default device, a number of devices, or the devices themselves. After
      `jax.distributed.initialize()` those of all processes count, and each process gets the whole result.
    - `divide`: what is divided over the devices. "chains": chains, populations, draws that are moved, cases of a study,
      rows of training batches. "particles": the particles of each population, for populations too large for one device.
      Devices then talk to each other in every step, and sums are taken in another order than on one device: the bits
      differ from those of one device, the law does not.
    - `precision`: 32 or 64 bits for the whole run, None for what JAX is set to. Data handed over as NumPy arrays keep
      their digits.

    Raises `ValueError` for a number of devices that is not there, or another precision.
    """

    devices: tuple[Any, ...] | None = eqx.field(static=True)
    precision: int | None = eqx.field(static=True)
    divide: Literal["chains", "particles"] = eqx.field(static=True, default="chains")

    def __init__(
        self, devices: int | Sequence[Any] | None = None, precision: int | None = None,
        divide: Literal["chains", "particles"] = "chains",
    ):  # fmt: skip
        if precision not in {None, 32, 64}:
            raise ValueError(f"`precision` must be 32, 64 or None; got {precision!r}.")
        if isinstance(devices, int):
            available = jax.devices()
            if not 1 <= devices <= len(available):
                raise ValueError(
                    f"`devices` asks for {devices}; JAX sees {len(available)}. For several on one CPU, set "
                    f"XLA_FLAGS=--xla_force_host_platform_device_count={max(devices, 1)} before Python starts."
                )
            devices = available[:devices]
        if divide not in ("chains", "particles"):
            raise ValueError(f'`divide` must be "chains" or "particles"; got {divide!r}.')
        self.devices = None if devices is None else tuple(devices)
        self.precision = precision
        self.divide = divide

    @property
    def num_devices(self) -> int:
        """How many devices share the work."""
        return 1 if self.devices is None else len(self.devices)

    def check_divides(self, num: int, what: str) -> None:
        """Raise `ValueError` unless `num` of `what` can be divided evenly over the devices."""
        if num % self.num_devices:
            fit = max(self.num_devices, num - num % self.num_devices)
            raise ValueError(
                f"`{what}`={num} cannot be divided evenly over {self.num_devices} devices. Use a multiple, for "
                f"instance {fit}, or fewer devices."
            )

    def shard(self, function, in_axes: Sequence[int | None], out_axes):
        """`function` over the devices: arguments with an axis number are divided along that axis, others copied.

        - `out_axes`: likewise for the outputs, a PyTree prefix.
        """
        if self.devices is None:
            return function

        def spec(axis):
            return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)

        is_leaf = lambda axis: axis is None  # noqa: E731
        return jax.shard_map(
            function,
            mesh=self._mesh(),
            in_specs=tuple(map(spec, in_axes)),
            out_specs=jax.tree.map(spec, out_axes, is_leaf=is_leaf),
            check_vma=False,  # NumPyro's `cond`s do not type-check under it
        )

    @property
    def divides_particles(self) -> bool:
        """Whether a population lies on several devices."""
        return self.devices is not None and self.divide == "particles"

    def place(self, tree):
        """`tree` with its leading axis divided over the devices."""
        return self._put(tree, PartitionSpec(AXIS))

    def copy(self, tree):
        """`tree`, whole on each device."""
        return self._put(tree, PartitionSpec())

    def _put(self, tree, spec: PartitionSpec):
        if self.devices is None:
            return tree
        return put(tree, NamedSharding(self._mesh(), spec))

    def spread(self, tree, num: int, axis: int = 0):
        """Inside of a compiled function: arrays with `num` entries along `axis` divided there, others as they are."""
        if self.devices is None:
            return tree
        sharding = NamedSharding(self._mesh(), PartitionSpec(*[None] * axis, AXIS))

        def one(leaf):
            divided = jnp.ndim(leaf) > axis and leaf.shape[axis] == num
            return jax.lax.with_sharding_constraint(leaf, sharding) if divided else leaf

        return jax.tree.map(one, tree)

    def _mesh(self) -> Mesh:
        assert self.devices is not None
        return jax.make_mesh((len(self.devices),), (AXIS,), devices=self.devices, axis_types=(AxisType.Auto,))

    def describe(self) -> dict:
        """The plan as plain data."""
        platform = jax.default_backend() if self.devices is None else self.devices[0].platform
        told = {"devices": None if self.devices is None else len(self.devices), "platform": platform}
        return {**told, "divide": self.divide} if self.divides_particles else told
