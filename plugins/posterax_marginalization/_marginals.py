"""The model: conditionals and marginals of a discrete law by two networks."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._architectures import Architecture
from ._networks import LatticeNetwork, PartialNetwork, values_of

_UNIT = 25.0  # nats; so that one learning rate suits log Z too


class Marginals(eqx.Module):
    r"""Two networks for one law: $\log p_\phi(x_d \mid x_S)$, and $\log p_\theta(x_S)$ up to $\log Z$.

    Both are approximations that training makes consistent; neither is exactly so.

    - `conditional`: gives logits. `marginal`: gives one number, to which is added what a uniform law would have.
    - `scaled_log_partition`: the learned log Z, in units of 25 nats.

    Source: Liu, Ramadge and Adams (2024), arXiv:2310.12920, section 3.
    """

    num_values: tuple[int, ...] = eqx.field(static=True)
    conditional: PartialNetwork
    marginal: PartialNetwork
    scaled_log_partition: Float[Array, ""]

    @staticmethod
    def init(
        num_values: tuple[int, ...],
        architecture: Architecture,
        marginal: Architecture | None = None,
        log_partition: float = 0.0,
        *,
        key: PRNGKeyArray,
    ) -> "Marginals":
        """Networks with random weights.

        - `marginal`: another architecture for the marginals. `log_partition`: the first guess of log Z, in nats.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        return Marginals(
            tuple(num_values),
            architecture.make(tuple(num_values), False, rng),
            (marginal or architecture).make(tuple(num_values), True, rng),
            jnp.asarray(log_partition / _UNIT, jnp.float32),
        )

    @property
    def size(self) -> int:
        """D, the number of variables."""
        return len(self.num_values)

    @property
    def log_partition(self) -> Float[Array, ""]:
        """The learned log Z, in nats; 0 where a law was learned from data."""
        return _UNIT * self.scaled_log_partition

    def log_probs(
        self, x: Int[Array, " D"], observed: Bool[Array, " D"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "D K"]:
        """Log probabilities of the values of every variable given the observed ones, all from one pass.

        Rows of observed variables mean nothing. Values that a variable does not have are at -1e30. `key`: for dropout.
        """
        logits = self.conditional(x, observed, key)
        return jax.nn.log_softmax(jnp.where(values_of(self.num_values), logits, -1e30), -1)

    def log_marginal(self, x: Int[Array, " D"], observed: Bool[Array, " D"]) -> Float[Array, ""]:
        """Log p(x_S) + log Z in nats, from one pass; log Z where nothing is observed."""
        uniform = -jnp.sum(observed * np.log(self.num_values).astype(np.float32))
        told = self.marginal(x, observed) + uniform
        return self.log_partition + jnp.where(observed.any(), told, 0.0)

    def on(self, rows: int, columns: int, log_partition: float = 0.0) -> "Marginals":
        """The same weights on a periodic lattice of another size; `log_partition`: a first guess of its log Z.

        Raises `TypeError` for networks that are tied to their variables.
        """
        networks = []
        for network in (self.conditional, self.marginal):
            if not (isinstance(network, LatticeNetwork) and network.periodic):
                raise TypeError(f"Only periodic lattices can change their size; got {type(network).__name__}.")
            values = (network.num_values[0],) * (rows * columns)
            networks.append(dataclasses.replace(network, num_values=values, shape=(rows, columns)))
        scaled = jnp.asarray(log_partition / _UNIT, jnp.float32)
        return Marginals(networks[0].num_values, networks[0], networks[1], scaled)
