"""Hyper-parameters by name: logarithms of variances, and what NumPyro's bijections make of a prior's parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

from ._kernel import Kernel

LEARNABLE = ("kernel", "noise", "scale_prior")


class Hyper(eqx.Module):
    """What a regression's law depends on beside the data."""

    kernel: Kernel
    noise: Any
    scale_prior: dist.Distribution

    def widened(self) -> "Hyper":
        """The same, with its numbers as arrays of the precision in force: no new value compiles anew."""

        def one(leaf):
            return jnp.asarray(leaf, jnp.result_type(float)) if is_real(leaf) else leaf

        return jax.tree.map(one, self)


def is_real(leaf: Any) -> bool:
    """Whether a leaf is a number or an array of floats, traced ones too."""
    if isinstance(leaf, (bool, int, float)):
        return not isinstance(leaf, bool)
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def unconstrained(hyper: Hyper, learn: tuple[str, ...]) -> dict[str, Array]:
    """The hyper-parameters that are to be learnt, by name, on the whole line. What is 0 stays 0.

    Raises `ValueError` for a noise of 0 that is to be learnt, or a prior that does not tell its parameters.
    """
    free: dict[str, Array] = {}
    if "kernel" in learn:
        for name, leaf in _kernel_leaves(hyper.kernel):
            if is_real(leaf) and np.all(np.asarray(leaf) > 0):
                free[name] = jnp.log(jnp.asarray(leaf, jnp.result_type(float)))
    if "noise" in learn:
        if not np.all(np.asarray(hyper.noise) > 0):
            raise ValueError("`noise` is 0, which has no logarithm to learn. Start from a positive number.")
        free["noise"] = jnp.log(jnp.asarray(hyper.noise, jnp.result_type(float)))
    if "scale_prior" in learn:
        for name, bijection in _bijections(hyper.scale_prior).items():
            value = jnp.asarray(getattr(hyper.scale_prior, name), jnp.result_type(float))
            free[f"scale_prior.{name}"] = bijection.inv(value)
    return free


def constrained(hyper: Hyper, free: dict[str, Array]) -> Hyper:
    """`hyper` with the values of `free` put in. The inverse of `unconstrained`; to be jitted and differentiated."""
    leaves, treedef = jax.tree.flatten(hyper.kernel)
    names = [name for name, _ in _kernel_leaves(hyper.kernel)]
    values = [jnp.exp(free[name]) if name in free else leaf for name, leaf in zip(names, leaves, strict=True)]
    noise = jnp.exp(free["noise"]) if "noise" in free else hyper.noise
    prior = hyper.scale_prior
    if any(name.startswith("scale_prior.") for name in free):
        made = {name: bijection(free[f"scale_prior.{name}"]) for name, bijection in _bijections(prior).items()}
        prior = type(prior)(**made)
    return Hyper(jax.tree.unflatten(treedef, values), noise, prior)


def _kernel_leaves(kernel: Kernel) -> list[tuple[str, Any]]:
    return [("kernel" + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(kernel)]


def _bijections(prior: dist.Distribution) -> dict[str, Any]:
    """From the line to each of the prior's own parameters."""
    if isinstance(prior, dist.Delta):
        return {"v": biject_to(constraints.positive)}
    known = type(prior).arg_constraints
    if not known or not all(hasattr(prior, name) for name in known):
        raise ValueError(
            f"The parameters of the scale prior {type(prior).__name__} cannot be learnt: it does not tell them. Take "
            'another family, or leave "scale_prior" out of `learn`.'
        )
    # A parameter that may be zero is learnt as a positive one.
    positive = (constraints.positive, constraints.nonnegative)
    return {
        name: biject_to(constraints.positive if constraint in positive else constraint)
        for name, constraint in known.items()
    }
