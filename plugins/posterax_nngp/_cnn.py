"""The kernel of an infinitely wide convolutional network with flattened readout."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._activations import Activation, as_activation
from ._dense import check_layers, layer_variances
from ._kernel import Kernel


class CNNKernel(Kernel):
    r"""An infinitely wide convolutional network: `depth` convolutions of stride 1, then flattened.

    Inputs are images `(n, height, width, channels)`. With a flattened readout only equal pixels of two images meet:
    $K_{l+1}[p] = b + w \langle F(K_l)[p + \delta] \rangle_\delta$, the mean over a window padded by zeros, and the
    readout is the mean of $F(K_L)[p]$ over the pixels. A pair costs a number of operations proportional to the pixels.

    - `depth`, `activation`, `weight_variance`, `bias_variance`: as in `MLPKernel`.
    - `window`: side of the square filters, odd.

    Source: Novak et al. (2019), arXiv:1810.05148, section 3.
    """

    weight_variance: float | Float[Array, "..."]
    bias_variance: float | Float[Array, "..."]
    depth: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    activation: Activation

    def __init__(
        self,
        depth: int = 2,
        activation: str | Activation | Callable = "relu",
        weight_variance: Any = 2.0,
        bias_variance: Any = 0.1,
        window: int = 3,
    ):
        self.depth, self.activation, self.window = depth, as_activation(activation), window
        self.weight_variance, self.bias_variance = weight_variance, bias_variance
        self.event_ndim = 3
        check_layers(self)
        if not isinstance(window, int) or window < 1 or window % 2 == 0:
            raise ValueError(f"`window` must be an odd integer of at least 1; got {window!r}.")

    def pair(self, x, z, *, ntk):
        k = jnp.einsum("ihwc,jhwc->ijhw", x, z) / x.shape[-1]
        q, r = (jnp.mean(v * v, axis=-1) for v in (x, z))
        value, tangent = self._propagate(k, q[:, None], r[None], ntk)
        return value, tangent

    def diag_of(self, x, *, ntk):
        phi, (w, b) = self.activation, layer_variances(self)
        q = jnp.mean(x * x, axis=-1)
        q = w[0] * self._average(q) + b[0]

        def layer(carry, variances):
            q, t = carry
            w, b = variances
            more = w * self._average(phi.square(q)) + b
            return (more, more + w * self._average(phi.slope_square(q) * t)), None

        (q, t), _ = jax.lax.scan(layer, (q, q), (w[1:], b[1:]))
        value = phi.square(q)
        return _over_pixels(value), _over_pixels(value + phi.slope_square(q) * t) if ntk else None

    def _propagate(self, k, q, r, ntk: bool):
        phi, (w, b) = self.activation, layer_variances(self)
        k, q, r = (w[0] * self._average(v) + b[0] for v in (k, q, r))

        def layer(carry, variances):
            k, q, r, t = carry
            w, b = variances
            more = w * self._average(phi.moment(k, q, r)) + b
            if ntk:
                t = more + w * self._average(phi.slope_moment(k, q, r) * t)
            q, r = (w * self._average(phi.square(v)) + b for v in (q, r))
            return (more, q, r, t), None

        (k, q, r, t), _ = jax.lax.scan(layer, (k, q, r, k if ntk else jnp.zeros(())), (w[1:], b[1:]))
        value = phi.moment(k, q, r)
        return _over_pixels(value), _over_pixels(value + phi.slope_moment(k, q, r) * t) if ntk else None

    def _average(self, k: Array) -> Array:
        """The mean over the window; beyond the border are zeros, which count."""
        one, half = self.window, self.window // 2
        lead = k.ndim - 2
        total = jax.lax.reduce_window(
            k, jnp.zeros((), k.dtype), jax.lax.add, (1,) * lead + (one, one), (1,) * k.ndim,
            [(0, 0)] * lead + [(half, half)] * 2,
        )  # fmt: skip
        return total / one**2


def _over_pixels(k: Array) -> Array:
    return jnp.mean(k, axis=(-2, -1))
