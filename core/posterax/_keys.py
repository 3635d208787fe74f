"""Random keys: checked at the door, derived by name, never stored in a state."""

import hashlib

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def check_key(key, where: str) -> PRNGKeyArray:
    """Return `key` as a typed JAX key, or say what is wrong with it.

    - `key`: a typed key (`jax.random.key(0)`) or an old-style one (`jax.random.PRNGKey(0)`).
    - `where`: the public function that asks, for the message.
    """
    cure = "Make one with `jax.random.key(0)`."
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(
                f"`key` of {where} must be one key; got an array of {key.size} keys, shape {key.shape}. "
                "Pass one of them; the function splits it as it needs."
            )
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.shape in {(2,), (4,)}:
        return jr.wrap_key_data(jnp.asarray(key))
    came = (
        f"the number {key!r}"
        if isinstance(key, (int, float))
        else f"{type(key).__name__} of shape {np.shape(key)}"
        if hasattr(key, "shape")
        else f"{type(key).__name__}"
    )
    raise TypeError(f"`key` of {where} must be a JAX random key; got {came}. {cure}")


def named(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """The key that belongs to `name`: inserting or removing other names changes none of it."""
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return jr.fold_in(key, int.from_bytes(digest, "big"))


def numbered(key: PRNGKeyArray, num: int) -> Array:
    """Keys of items 0 ... num-1; those of the first items do not depend on `num`."""
    return jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(num))


def describe_key(key: PRNGKeyArray) -> dict:
    """A key as plain data: its implementation and its words."""
    return {"impl": str(jr.key_impl(key)), "data": np.asarray(jr.key_data(key)).ravel().tolist()}


def restore_key(described: dict) -> PRNGKeyArray:
    """The key that `describe_key` described."""
    return jr.wrap_key_data(jnp.asarray(described["data"], dtype=jnp.uint32), impl=described["impl"])
