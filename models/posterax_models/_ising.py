"""The Ising model on a periodic lattice, solved exactly by a transfer matrix over its columns."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

_TALLEST = 12


class IsingLattice(eqx.Module):
    r"""Spins $s = 2 x - 1$, x in {0, 1}, with $\log f(x) = c \sum_{(i, j)} s_i s_j + h \sum_i s_i$.

    The sum goes over neighbours on a torus: each site with the next one in its row and the next one in its column (in a
    lattice of two rows these are joined twice). Sites are counted row by row.

    - `rows`, `columns`: of the lattice; at most 12 rows for exact answers.
    - `coupling`: c, of an edge. The critical one of a large lattice is 0.4407. `field`: h.

    Source: Onsager (1944), doi:10.1103/PhysRev.65.117.
    """

    rows: int = eqx.field(static=True, default=4)
    columns: int = eqx.field(static=True, default=4)
    coupling: float = 0.2
    field: float = 0.0

    def __check_init__(self):
        for name in ("rows", "columns"):
            if not 2 <= getattr(self, name):
                raise ValueError(f"`{name}` must be 2 or more; got {getattr(self, name)}.")

    @property
    def num_sites(self) -> int:
        """D."""
        return self.rows * self.columns

    def log_weight(self, x: Int[Array, "... D"]) -> Float[Array, "..."]:
        """Log f, in nats; log Z is not taken off."""
        s = (2.0 * jnp.asarray(x) - 1.0).reshape(*jnp.shape(x)[:-1], self.rows, self.columns)
        pairs = s * (jnp.roll(s, -1, -1) + jnp.roll(s, -1, -2))
        return jnp.sum(self.coupling * pairs + self.field * s, (-1, -2))

    def log_partition(self) -> float:
        """Log Z, in nats, exact in float64."""
        return self._powers()[1]

    def entropy(self) -> float:
        """Of the law, in nats: log Z - E log f."""
        around = self._powers()[0][-2].T * self._powers()[0][0]  # weights of two neighbouring columns
        energy = (
            self.columns
            * np.sum(around * _log_transfer(self.rows, float(self.coupling), float(self.field)))
            / np.sum(around)
        )
        return self.log_partition() - float(energy)

    def column_probs(self) -> Float[np.ndarray, " states"]:
        """The law of a column: of its 2^rows states, first site in the most significant bit."""
        diagonal = np.diagonal(self._powers()[0][-1])
        return diagonal / diagonal.sum()

    def pair_probs(self, apart: int) -> Float[np.ndarray, "states states"]:
        """The law of two columns that are `apart` columns from each other, between 1 and `columns` - 1."""
        if not 1 <= apart < self.columns:
            raise ValueError(f"`apart` must be between 1 and {self.columns - 1}; got {apart}.")
        powers = self._powers()[0]
        joint = powers[apart - 1] * powers[self.columns - apart - 1].T
        return joint / joint.sum()

    def given(self, known: Int[ArrayLike, " D"]) -> tuple[float, Float[np.ndarray, " D"]]:
        """Log of the sum of f over all assignments with some known values, and each site's probability of 1 among them.

        - `known`: 0 or 1 where the value is known, -1 where not. With none known the first is log Z.
        """
        self._check_rows()
        known, bits = np.asarray(known).reshape(self.rows, self.columns), 2 ** np.arange(self.rows)[::-1]
        values = (np.arange(2**self.rows)[:, None] // bits) % 2
        left = [np.flatnonzero(((one < 0) | (values == one)).all(1)) for one in known.T]  # states that each column has
        log_transfer = _log_transfer(self.rows, float(self.coupling), float(self.field))
        steps = [np.ix_(here, there) for here, there in zip(left, left[1:] + left[:1], strict=True)]
        steps = [np.exp(log_transfer[step] - log_transfer.max()) for step in steps]
        ahead, scale = [np.eye(len(left[0]))], 0.0  # from each column to the first one that comes again
        for step in reversed(steps):
            ahead.insert(0, step @ ahead[0])
            ahead[0], scale = ahead[0] / ahead[0].max(), scale + np.log(ahead[0].max())
        behind, probs = ahead[-1], np.zeros(known.shape)  # from the first one to each
        for column in range(self.columns):
            law = np.sum(ahead[column] * behind.T, 1)
            probs[:, column] = law @ values[left[column]] / law.sum()
            behind = behind @ steps[column]
            behind = behind / behind.max()
        return float(self.columns * log_transfer.max() + scale + np.log(np.trace(ahead[0]))), probs.ravel()

    def sample(self, num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
        """Independent exact draws: column after column, each given the last one and the first."""
        with np.errstate(divide="ignore"):
            log_powers = [jnp.asarray(np.log(power / power.max()), jnp.float32) for power in self._powers()[0]]
        first_law = jnp.log(jnp.asarray(self.column_probs(), jnp.float32))
        draw = jax.jit(lambda key, logits: jr.categorical(key, logits, -1))
        keys = jr.split(key, self.columns)
        first = draw(keys[0], jnp.broadcast_to(first_law, (num, len(first_law))))
        found = [first]
        for t in range(1, self.columns):
            back = log_powers[self.columns - t - 1][:, first].T  # from the candidate on to the first again
            found.append(draw(keys[t], log_powers[0][found[-1]] + back))
        bits = 2 ** np.arange(self.rows)[::-1]
        columns = jnp.stack(found, -1)  # (num, columns)
        x = (columns[:, None, :] // bits[:, None]) % 2
        return x.reshape(num, self.num_sites)

    def _check_rows(self) -> None:
        if self.rows > _TALLEST:
            raise ValueError(f"`rows` must be at most {_TALLEST} for exact answers; got {self.rows}. Turn the lattice.")

    def _powers(self) -> tuple[list[np.ndarray], float]:
        self._check_rows()
        return _powers(self.rows, self.columns, float(self.coupling), float(self.field))


@functools.lru_cache(maxsize=8)
def _log_transfer(rows: int, coupling: float, field: float) -> np.ndarray:
    """Log weights of a column followed by another one, of which each brings half of its own."""
    states = np.arange(2**rows)
    s = 2.0 * ((states[:, None] // 2 ** np.arange(rows)[::-1]) % 2) - 1.0
    own = coupling * (s * np.roll(s, -1, 1)).sum(1) + field * s.sum(1)
    return coupling * s @ s.T + 0.5 * (own[:, None] + own)


@functools.lru_cache(maxsize=2)
def _powers(rows: int, columns: int, coupling: float, field: float) -> tuple[list[np.ndarray], float]:
    """The transfer matrix to the powers 1 to `columns`, each scaled, and the log trace of the true last one."""
    matrix = _log_transfer(rows, coupling, field)
    scale = columns * matrix.max()
    powers = [np.exp(matrix - matrix.max())]
    for _ in range(columns - 1):
        following = powers[-1] @ powers[0]
        scale += np.log(following.max())
        powers.append(following / following.max())
    return powers, float(scale + np.log(np.trace(powers[-1])))
