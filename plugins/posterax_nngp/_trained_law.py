"""What wide networks predict once gradient descent has fitted them: the law over initialisations, not a posterior."""

import warnings
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve
from jaxtyping import Array
from posterax import PosteraxWarning
from posterax._precision import precision

from . import _predictive
from ._data import check_data, check_memory, finite
from ._kernel import Kernel
from ._regression_settings import to_caller
from ._scale import scale_posterior
from ._scale_prior import check_prior, widen
from ._solve import above_rounding, factorise


class TrainedEnsembleLaw(eqx.Module):
    r"""The law of wide networks that gradient flow on the squared loss has trained to the end, from random starts.

    A scale mixture around one mean: each network has a readout variance $s \sim H$ at initialisation, which training
    does not change and data do not inform. So it is the law of an ensemble of trained networks, and **not a
    posterior**: the degrees of freedom stay 2a for an inverse gamma H(a, b), however many data there are. All networks
    go through all data, which are taken as free of noise.

    - `kernel`: of the architecture, its readout of unit variance.
    - `scale_prior`: H.
    - `trained`: "readout", the last layer only: $f(x) = f_0(x) + K(x, X) K^{-1} (Y - f_0(X))$; or "full", all layers,
      in NTK parameterisation without a readout bias, with the tangent kernel in place of K.

    Source: Lee et al. (2022), arXiv:2107.01408, on training; Lee et al. (2019), arXiv:1902.06720, eqs. 13 to 16.
    """

    kernel: Kernel
    scale_prior: dist.Distribution = eqx.field(default_factory=lambda: dist.InverseGamma(2.0, 2.0))
    trained: Literal["readout", "full"] = eqx.field(static=True, default="full")

    def __check_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"`kernel` must be a kernel, such as MLPKernel(depth=3); got {self.kernel!r}.")
        if self.trained not in ("readout", "full"):
            raise ValueError(f"`trained` must be 'readout' or 'full'; got {self.trained!r}.")

    def law(self, data: Any, observed: Any, *, joint: bool = True) -> dist.Distribution:
        """The law of the trained networks' outputs at new inputs.

        - `data`: inputs `(n, d)` and outputs `(n,)` or `(n, m)`, n of them different.
        - `observed`: new inputs `(k, d)`.
        - `joint`: one law of all points, or the law of each alone, a batch.

        Raises as `ScaleMixtureNNGP.fit` does, `TypeError` for "full" where the kernel has no tangent kernel. Warns
        where the kernel matrix at the data is singular and needs jitter: the limit of training then does not exist.
        """
        x, y = check_data(data, self.kernel.event_ndim)
        check_prior(self.scale_prior)
        check_memory(len(x))
        new = finite(np.asarray(observed), "observed")
        single, outputs = y.ndim == 1, y.reshape(len(y), -1)
        with precision(64):
            mean, unit, jitter = self._moments(jnp.asarray(x), jnp.asarray(outputs), jnp.asarray(new), joint)
            if jitter > 0:
                warnings.warn(
                    f"The kernel matrix at the data is singular and needed a jitter of {jitter:.0e} of its diagonal: "
                    "the networks cannot go through all data. Leave copies of inputs out.",
                    PosteraxWarning,
                    stacklevel=2,
                )
            scale = scale_posterior(widen(self.scale_prior), 0.0, 0.0)
            make = _predictive.tied_joint if joint else _predictive.tied_marginals
            made = make(scale, mean, unit, jnp.ones(outputs.shape[1]), single)
        return to_caller(made)

    def _moments(self, x: Array, y: Array, new: Array, joint: bool) -> tuple[Array, Array, float]:
        """Mean `(k, m)`, unit-scale covariance `(k, k)` or its diagonal, and jitter."""
        kernel = self.kernel
        evolves = kernel.nngp if self.trained == "readout" else kernel.ntk
        lower, jitter = factorise(evolves(x))
        moves = cho_solve((lower, True), evolves(new, x).T).T  # how far each datum moves each new output
        cross = kernel.nngp(new, x)
        spread = moves @ kernel.nngp(x)
        if joint:
            unit = kernel.nngp(new) - moves @ cross.T - cross @ moves.T + spread @ moves.T
        else:
            variance = kernel.diag(new)
            unit = variance - 2 * jnp.sum(moves * cross, axis=1) + jnp.sum(spread * moves, axis=1)
            unit = above_rounding(unit, variance)
        return moves @ y, unit, float(jitter)
