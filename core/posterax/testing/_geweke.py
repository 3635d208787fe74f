"""geweke(): transitions and fresh observations in turn, does the joint stay as it is?"""

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
from ._statistics import Ranker, mean_is_that_of


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
    with precision(sampler.precision):
        run = _run_cycles(sampler, joint, quantities, named(key, "run"), num_chains, num_cycles, jnp.asarray(num_steps))
        many = REFERENCE * num_chains * max(1, min(num_cycles, 40))
        reference = joint_quantities(joint, quantities, named(key, "reference"), many)
    rows, went = jax.tree.map(np.asarray, run)
    shares = {name: float(share) for name, share in sorted(went.items())}
    exact = columns(reference)
    chains = columns({name: rows[name] for name in reference})
    good = np.isfinite(chains).all(axis=(1, 2))
    if not good.all():
        return broken(int((~good).sum()), num_chains, shares)
    ranker = Ranker(list(reference), exact)
    averages = np.stack([ranker(chain).mean(axis=0) for chain in chains])
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
        return rows, moved(start, end)

    rows, went = jax.vmap(chain)(jr.split(key, num_chains))
    return rows, jax.tree.map(lambda m: jnp.mean(m, dtype=float), went)
