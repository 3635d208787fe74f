"""Several processes that run one program (`jax.distributed`): what they agree on, and what only the first one does."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


def on_host(tree: PyTree) -> PyTree[np.ndarray]:
    """Arrays as NumPy's, whole in each process; a collective where processes hold parts of them."""
    return jax.tree.map(_whole, tree)


def _whole(leaf) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def put(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree[jax.Array]:
    """Arrays, whole in each process, as parts on the devices of all."""
    if not several():
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _part(leaf, sharding), tree)


def _part(leaf, sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_part(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    whole = _whole(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def agreed(number: int) -> int:
    """The first process's number: what depends on clocks must not differ between processes."""
    if not several():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(number)))


def wait(what: str) -> None:
    """Until all processes are here."""
    if several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
