"""What training has seen: values, and how unlikely the least likely subsets were."""

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ._law import log_marginals
from ._marginals import Marginals
from ._orders import random_subsets

_LOOKED_AT = 4096
_MARGIN = 3.0  # nats


class Support(eqx.Module):
    """Where a model has learned something.

    - `least`: `(D + 1,)`, by the number of variables observed, 3 nats below the least log marginal of random subsets of
      what it has learned from.
    - `seen`: `(D, K)`, the values that came; every value, for an energy.
    """

    least: Float[np.ndarray, " D+1"]
    seen: Bool[np.ndarray, "D K"]

    @staticmethod
    def of(model: Marginals, x: Int[Array, "n D"], came: Bool[np.ndarray, "D K"], *, key: PRNGKeyArray) -> "Support":
        """Of rows: the least of random subsets in a window of sizes."""
        one, two = jr.split(key)
        x = x[jr.randint(one, (_LOOKED_AT,), 0, len(x))]
        observed = random_subsets(x.shape, key=two)
        logs = np.asarray(log_marginals(model, x, observed), float)
        sizes, width = np.asarray(observed).sum(-1), max(1, model.size // 16)
        least = [logs[np.abs(sizes - size) <= width].min(initial=0.0) for size in range(model.size + 1)]
        return Support(np.array(least) - _MARGIN, came)

    def outside(
        self, x: Int[np.ndarray, "... D"], observed: Bool[np.ndarray, "... D"], heights: Float[np.ndarray, "..."]
    ) -> Bool[np.ndarray, "..."]:
        """Whether queries hold values that never came, or are less likely than anything seen of their size."""
        came = self.seen[np.arange(x.shape[-1]), x]
        return (heights < self.least[observed.sum(-1)]) | (observed & ~came).any(-1)
