"""exact_start(): from exact draws of the joint, does a transition keep its law?"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from .._keys import check_key, named
from .._precision import precision
from .._sampler import Sampler
from .._tree import strengthen
from ._invariance import (
    REFERENCE,
    Invariance,
    Quantities,
    broken,
    columns,
    default_quantities,
    frozen_on,
    joint_quantities,
    moved,
)
from ._joint import JointModel
from ._statistics import Ranker, same_mean


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
    posterior of its own observations. After some transitions towards that posterior the pair must still follow
    the joint. The pairs are independent, so plain z-tests hold. A kernel that never moves passes: look at `moved`.

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
        reference = joint_quantities(joint, quantities, named(key, "reference"), REFERENCE * num_replicates)
    before, after, went, finite, _ = jax.tree.map(np.asarray, run)
    shares = {name: float(share) for name, share in sorted(went.items())}
    old, new, exact = columns(before), columns(after), columns(reference)
    good = finite & np.isfinite(new).all(axis=1)
    if not good.all():
        return broken(int((~good).sum()), num_replicates, shares)
    ranker = Ranker(list(reference), exact)
    tests = same_mean(ranker.labels, ranker(old), ranker(new), ranker(exact))
    return Invariance(tests, tests.p_value, shares, num_replicates)


@eqx.filter_jit
def run_exact(sampler: Sampler, joint: JointModel, quantities: Quantities, key, num: int, num_steps):
    """Quantities before and after, shares moved, whether all is finite, and the values, of `num` replicates."""

    def one(key):
        parameter, observed = joint.simulate(key=named(key, "joint"))
        target = joint.target(observed)
        start = target.unconstrain(parameter)
        state = strengthen(sampler.init(target, start, key=named(key, "init")))

        def step(i, state):
            return strengthen(sampler.step(target, state, key=jr.fold_in(key, i))[0])

        end = sampler.position(jax.lax.fori_loop(0, num_steps, step, state))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(end)]))
        values = target.constrain(end)
        values = {name: values[name] for name in target.structure.latent}
        return (
            dict(quantities(parameter, observed)),
            dict(quantities(values, observed)),
            moved(start, end),
            finite,
            values,
        )

    before, after, went, finite, values = jax.vmap(one)(jr.split(key, num))
    return before, after, jax.tree.map(lambda m: jnp.mean(m, dtype=float), went), finite, values
