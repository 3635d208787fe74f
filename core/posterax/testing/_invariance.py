"""What `exact_start` and `geweke` share: their result, the quantities they compare, and a frozen sampler."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._keys import named
from .._sample import warm_up
from .._sampler import Sampler
from .._tree import by_name
from ._joint import JointModel
from ._statistics import Tests

Quantities = Callable[[dict[str, Array], Any], Mapping[str, Array]]
REFERENCE = 8  # times as many draws of the joint as replicates: their error then hardly counts
CHAINS = 64  # wherever the kit runs a sampler: no two programs where one will do


class Invariance(NamedTuple):
    """What `exact_start` and `geweke` find.

    - `tests`: one for the location and one for the spread of each quantity, and one for each pair's dependence.
    - `p_value`: of all together, by Bonferroni; small where the transition does not leave the posterior as it is.
    - `moved`: by scalar of the position, the share of replicates in which it ended elsewhere than it began.
    - `num_replicates`: independent replicates.
    """

    tests: Tests
    p_value: float
    moved: dict[str, float]
    num_replicates: int

    def summary(self):
        """One row a test, the oddest first: a pandas DataFrame."""
        import pandas as pd

        table = pd.DataFrame({"z": self.tests.z, "p_value": self.tests.p_values}, index=list(self.tests.names))
        return table.sort_values("p_value")


def frozen_on(sampler: Sampler, joint: JointModel, *, key: PRNGKeyArray) -> Sampler:
    """`sampler` without warm-up, warmed up on one data set of `joint` where it adapts."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"`sampler` must be a Sampler; got {type(sampler).__name__}.")
    if sampler.num_warmup == 0:
        return sampler
    _, observed = joint.simulate(key=named(key, "data"))
    return warm_up(sampler, joint.target(observed), num_chains=CHAINS, key=named(key, "run"), progress=False)


def default_quantities(joint: JointModel) -> Quantities:
    """The parameter's scalars, the log-likelihood where the posterior knows it, and up to three observed scalars."""
    given = getattr(joint, "quantities", None)
    if given is not None:
        return given
    return _Scalars(joint)


class _Scalars(eqx.Module):
    joint: JointModel

    def __call__(self, parameter, observed):
        found = scalars(parameter)
        if self.joint.posterior is not None:
            target = self.joint.target(observed)
            terms = target.density.terms(target.unconstrain(parameter))
            found["log-likelihood"] = jnp.asarray(terms.log_likelihood)
        data = {name: value for name, value in scalars({"observed": observed}).items()}
        return {**found, **dict(list(data.items())[:3])}


def scalars(tree: PyTree) -> dict[str, Array]:
    """Every scalar in a PyTree of arrays, by name and index."""
    found = {}
    for name, leaf in by_name(tree).items():
        leaf = jnp.asarray(leaf)
        for index in np.ndindex(leaf.shape):
            found[name + (str(list(index)).replace(" ", "") if index else "")] = leaf[index]
    return found


@eqx.filter_jit
def joint_quantities(joint: JointModel, quantities: Quantities, key, num: int) -> dict[str, Array]:
    def one(key):
        parameter, observed = joint.simulate(key=key)
        return dict(quantities(parameter, observed))

    return jax.vmap(one)(jr.split(key, num))


def moved(before: PyTree, after: PyTree) -> dict[str, Array]:
    """Which scalars of a position are no longer what they were."""
    old, new = scalars(before), scalars(after)
    return {name: new[name] != old[name] for name in old}


def columns(table: Mapping[str, Array]) -> np.ndarray:
    """Quantities by name as the last axis of one array."""
    return np.stack([np.asarray(value, float) for value in table.values()], axis=-1)


def broken(num: int, of: int, shares: dict[str, float]) -> Invariance:
    """The result where `num` of the replicates are not finite."""
    tests = Tests([f"finite positions ({num} of {of} are not)"], np.array([np.nan]), np.array([0.0]))
    return Invariance(tests, 0.0, shares, of)
