import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from posterax_marginalization import Marginals, PartialNetwork
from posterax_models import SubsetMarginals, assignments

VALUES = (2, 3, 2)


class Table(PartialNetwork):
    """A network that looks its answers up: logits `(states, D, K)`, or one number a state, `(states,)`."""

    entries: Array
    num_values: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x, observed, key=None):
        place = 0
        for d, k in enumerate(self.num_values):
            place = place * (k + 1) + jnp.where(observed[d], x[d], k)
        return self.entries[place]


class Tabular:
    """A random law over three variables of 2, 3 and 2 values, all its marginals, and a model that knows them."""

    values = VALUES
    bound = 37.4  # of the chi-square, with 11 degrees of freedom: exceeded once in 10,000

    def __init__(self, log_partition=0.0, scale=1.0, seed=0):
        self.log_weights = scale * np.random.default_rng(seed).normal(size=VALUES)
        self.log_weights += log_partition - np.logaddexp.reduce(self.log_weights.ravel())
        self.exact = SubsetMarginals.of(self.log_weights)
        table = self.exact.table
        states = np.array(list(np.ndindex(table.shape)))
        logits = np.zeros((len(states), 3, 3), np.float32)
        for row, state in enumerate(states):
            for d, k in enumerate(VALUES):
                for value in range(k):
                    there = state.copy()
                    there[d] = value
                    logits[row, d, value] = table[tuple(there)]
        uniform = np.array([[np.log(k) * (s < k) for s, k in zip(state, VALUES, strict=True)] for state in states])
        heights = jnp.asarray(table.ravel() + uniform.sum(-1), jnp.float32)
        self.model = Marginals(
            VALUES, Table(jnp.asarray(logits), VALUES), Table(heights, VALUES), jnp.asarray(log_partition / 25.0)
        )
        self.states = assignments(VALUES)
        self.probs = np.exp(self.log_weights - log_partition).ravel()

    def draw(self, num, seed=0):
        return jnp.asarray(self.states[np.random.default_rng(seed).choice(len(self.states), num, p=self.probs)])

    def place(self, x):
        return np.ravel_multi_index(np.asarray(x).T, VALUES)

    def chi_square(self, x):
        """Against the law; 11 degrees of freedom."""
        counts = np.bincount(self.place(x), minlength=len(self.states))
        expected = len(x) * self.probs
        return float(np.sum((counts - expected) ** 2 / expected))

    def log_weight(self, x):
        return jnp.asarray(self.log_weights, jnp.float32)[tuple(x)]


@pytest.fixture
def tabular():
    return Tabular


@pytest.fixture
def law(tabular):
    return tabular()


@pytest.fixture(autouse=True, scope="module")
def compiled_in_haste(few_optimisations):
    """All modules of this plugin."""
