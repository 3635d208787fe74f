"""A section of `posterax demo`: all marginals of a small lattice by a network, beside the exact ones."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from posterax_models import IsingLattice, SubsetMarginals, assignments

from ._architectures import Lattice
from ._energy import Energy
from ._estimator import MarginalizationModel

_SIDE = 3


def marginals(report: Any) -> None:
    """An Ising lattice of 3 by 3 spins, known by its energy alone."""
    law = IsingLattice(_SIDE, _SIDE, 0.3, 0.1)
    size = law.num_sites
    every = jnp.asarray(assignments((2,) * size))
    exact = SubsetMarginals.of(np.asarray(law.log_weight(every)).reshape((2,) * size))
    energy = Energy(law.log_weight, (2,) * size)
    report.say("an Ising lattice of 9 spins, learned from its energy by detailed balance along random orders")
    model = MarginalizationModel(
        Lattice(rows=_SIDE, columns=_SIDE, periodic=True, width=8), num_steps=500, learning_rate=5e-3
    )
    fitted = model.fit(energy, key=jr.key(0), progress=False)

    states = assignments((3,) * size)  # 2 stands for a spin that is summed out
    observed = states < 2
    told = fitted.log_marginal(np.where(observed, states, -1), check=False)
    true = np.asarray(exact(jnp.asarray(states), jnp.asarray(observed)))
    off, sizes = np.abs(told - true), observed.sum(-1)
    by_size = np.array([off[sizes == k].mean() for k in range(size + 1)])
    report.say(
        f"all {len(states):,} marginals, one pass of the network each: {off.mean():.3f} nats off on average, "
        f"{off.max():.2f} at most"
    )
    report.picture("marginals", lambda path: _plot(path, told, true, by_size), "Learned and exact, and errors by size.")
    found = fitted.log_partition(2000, key=jr.key(1))
    report.compare(
        f"log Z; lower bound {found.lower_bound:.3f}, effective sample size {found.ess:.0f} of 2,000",
        [
            ("log Z, learned", found.learned, 0.02, law.log_partition()),
            ("log Z, importance", found.importance, found.standard_error, law.log_partition()),
        ],
    )
    given = {f"x{d}": 1 for d in range(_SIDE)}
    draws = fitted.sample(2000, given=given, key=jr.key(2))
    places = jnp.arange(size)
    first = exact(jnp.ones(size, int), places < _SIDE)
    last = float(jnp.exp(exact(jnp.ones(size, int), (places < _SIDE) | (places == size - 1)) - first))
    report.compare(
        "draws given that the first row is up",
        [("last spin up", float(draws[:, -1].mean()), float(np.sqrt(last * (1 - last) / len(draws))), last)],
    )


def _plot(path: Any, told: np.ndarray, true: np.ndarray, by_size: np.ndarray) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(true, told, ",", color="C0")
    left.axline((0, 0), slope=1, color="0.3", linewidth=0.8)
    left.set(xlabel="exact log marginal, nats", ylabel="network, one pass")
    right.bar(np.arange(len(by_size)), by_size, color="C3")
    right.set(xlabel="spins observed", ylabel="mean error, nats")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
