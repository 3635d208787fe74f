"""exact_start() and geweke(): does a transition leave the posterior as it is? Simulation is all that they need."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._keys import check_key, named
from .._plan import Plan
from .._precision import precision
from .._sample import merged, warm_up
from .._sampler import Sampler
from .._tree import by_name, strengthen
from ._joint import JointModel
from ._statistics import Ranker, Tests, mean_is_that_of, same_mean

Quantities = Callable[[dict[str, Array], Any], Mapping[str, Array]]
_CHAINS = 64
_REFERENCE = 8  # times as many draws of the joint as replicates: their error then hardly counts


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


def exact_start(
    sampler: Sampler,
    joint: JointModel,
    *,
    num_replicates: int = 4_000,
    num_steps: int = 5,
    quantities: Quantities | None = None,
    key: PRNGKeyArray,
) -> Invariance:
    """Whether a sampler's transition keeps the posterior, from exact starts: no burn-in, no autocorrelation.

    Parameter and observations are drawn together from the joint; the parameter is then one exact draw from the
    posterior of its own observations. After some transitions towards that posterior the pair must still follow the
    joint. The pairs are independent, so plain z-tests hold. A kernel that never moves passes: look at `moved`.

    - `sampler`: where it adapts, it is first warmed up on one data set and frozen.
    - `num_replicates`: pairs; `num_steps`: transitions of each.
    - `quantities`: function of (parameter, observations), scalars by name, to be compared; by default the parameter's
      scalars, the posterior's log-likelihood, and the observations' first scalars. All enter by their ranks.

    Source: the idea is Geweke's (2004), doi:10.1198/016214504000001132, with independent starts; `same_mean` has the
    statistics.
    """
    key = check_key(key, "exact_start")
    sampler = frozen_on(sampler, joint, key=named(key, "warm-up"))
    quantities = default_quantities(joint) if quantities is None else quantities
    with precision(sampler.precision):
        run = run_exact(sampler, joint, quantities, named(key, "run"), num_replicates, jnp.asarray(num_steps))
        reference = _joint_quantities(joint, quantities, named(key, "reference"), _REFERENCE * num_replicates)
    before, after, moved, finite, _ = jax.tree.map(np.asarray, run)
    names = list(reference)
    columns = lambda table: np.stack([np.asarray(table[name], float) for name in names], axis=1)  # noqa: E731
    return _judge(names, columns(reference), columns(before), columns(after), moved, bool(finite.all()))


def _judge(names, reference, before, after, moved, finite) -> Invariance:
    shares = {name: float(share) for name, share in sorted(moved.items())}
    num = len(after)
    if not finite or not np.isfinite(after).all():
        bad = int((~np.isfinite(after).all(axis=1)).sum())
        tests = Tests([f"finite positions ({bad} of {num} are not)"], np.array([np.nan]), np.array([0.0]))
        return Invariance(tests, 0.0, shares, num)
    ranker = Ranker(names, reference)
    tests = same_mean(ranker.labels, ranker(before), ranker(after), ranker(reference))
    return Invariance(tests, tests.p_value, shares, num)


def frozen_on(sampler: Sampler, joint: JointModel, *, key: PRNGKeyArray) -> Sampler:
    """`sampler` without warm-up, warmed up on one data set of `joint` where it adapts."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"`sampler` must be a Sampler; got {type(sampler).__name__}.")
    if sampler.num_warmup == 0:
        return sampler
    _, observed = joint.simulate(key=named(key, "data"))
    return warm_up(sampler, joint.target(observed), num_chains=_CHAINS, key=named(key, "run"), progress=False)


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
def _joint_quantities(joint: JointModel, quantities: Quantities, key, num: int) -> dict[str, Array]:
    def one(key):
        parameter, observed = joint.simulate(key=key)
        return dict(quantities(parameter, observed))

    return jax.vmap(one)(jr.split(key, num))


@eqx.filter_jit
def run_exact(sampler: Sampler, joint: JointModel, quantities: Quantities, key, num: int, num_steps):
    def one(key):
        parameter, observed = joint.simulate(key=named(key, "joint"))
        target = joint.target(observed)
        start = target.unconstrain(parameter)
        state = strengthen(sampler.init(target, start, key=named(key, "init")))

        def step(i, state):
            return strengthen(sampler.step(target, state, key=jr.fold_in(key, i))[0])

        end = sampler.position(jax.lax.fori_loop(0, num_steps, step, state))
        moved = {
            name: value != old for (name, value), old in zip(scalars(end).items(), scalars(start).values(), strict=True)
        }
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(end)]))
        values = target.constrain(end)
        values = {name: values[name] for name in target.structure.latent}
        return dict(quantities(parameter, observed)), dict(quantities(values, observed)), moved, finite, values

    before, after, moved, finite, values = jax.vmap(one)(jr.split(key, num))
    return before, after, jax.tree.map(lambda m: jnp.mean(m, dtype=float), moved), finite, values


def geweke(
    sampler: Sampler,
    joint: JointModel,
    *,
    num_chains: int = 200,
    num_cycles: int = 100,
    num_steps: int = 3,
    quantities: Quantities | None = None,
    key: PRNGKeyArray,
) -> Invariance:
    """Geweke's joint-distribution test: transitions and fresh observations in turn must leave the joint as it is.

    Each cycle moves the parameter by some transitions towards the posterior of the present observations and then draws
    new observations given it. Small faults add up over the cycles until the chain's law differs from the joint. Chains
    start from exact draws of the joint and are independent, so that their averages need no estimate of autocorrelation.

    - `num_chains`: independent chains; `num_cycles`: cycles of each; `num_steps`: transitions a cycle.
    - the others, and what is returned: as in `exact_start`.

    Source: Geweke (2004), Getting it right, doi:10.1198/016214504000001132.
    """
    key = check_key(key, "geweke")
    sampler = frozen_on(sampler, joint, key=named(key, "warm-up"))
    quantities = default_quantities(joint) if quantities is None else quantities
    with precision(merged(Plan(), sampler).precision):
        run = _run_cycles(sampler, joint, quantities, named(key, "run"), num_chains, num_cycles, jnp.asarray(num_steps))
        many = _REFERENCE * num_chains * max(1, min(num_cycles, 40))
        reference = _joint_quantities(joint, quantities, named(key, "reference"), many)
    rows, moved = jax.tree.map(np.asarray, run)
    names = list(reference)
    stacked = np.stack([np.asarray(rows[name], float) for name in names], axis=-1)
    exact = np.stack([np.asarray(reference[name], float) for name in names], axis=1)
    shares = {name: float(share) for name, share in sorted(moved.items())}
    if not np.isfinite(stacked).all():
        tests = Tests(["finite positions"], np.array([np.nan]), np.array([0.0]))
        return Invariance(tests, 0.0, shares, num_chains)
    ranker = Ranker(names, exact)
    averages = np.stack([ranker(chain).mean(axis=0) for chain in stacked])
    tests = mean_is_that_of(ranker.labels, averages, ranker(exact))
    return Invariance(tests, tests.p_value, shares, num_chains)


@eqx.filter_jit
def _run_cycles(sampler, joint, quantities, key, num_chains: int, num_cycles: int, num_steps):
    def chain(key):
        parameter, observed = joint.simulate(key=named(key, "joint"))
        start = joint.target(observed).unconstrain(parameter)

        def cycle(carry, i):
            position, observed = carry
            target = joint.target(observed)
            here = jr.fold_in(key, i)
            state = strengthen(sampler.init(target, position, key=named(here, "init")))
            step = lambda j, state: strengthen(sampler.step(target, state, key=jr.fold_in(here, j))[0])  # noqa: E731
            end = sampler.position(jax.lax.fori_loop(0, num_steps, step, state))
            values = target.constrain(end)
            parameter = {name: values[name] for name in target.structure.latent}
            observed = joint.simulator(parameter, named(here, "observed"))
            return (strengthen(end), observed), dict(quantities(parameter, observed))

        (end, _), rows = jax.lax.scan(cycle, (strengthen(start), observed), jnp.arange(num_cycles))
        moved = {
            name: value != old for (name, value), old in zip(scalars(end).items(), scalars(start).values(), strict=True)
        }
        return rows, moved

    rows, moved = jax.vmap(chain)(jr.split(key, num_chains))
    return rows, jax.tree.map(lambda m: jnp.mean(m, dtype=float), moved)
