"""Kernels of fully connected networks: the multilayer perceptron and the residual network."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._activations import Activation, as_activation
from ._kernel import Kernel, check_positive


class _Dense(Kernel):
    activation: eqx.AbstractVar[Activation]
    depth: eqx.AbstractVar[int]
    weight_variance: eqx.AbstractVar[float | Float[Array, "..."]]
    bias_variance: eqx.AbstractVar[float | Float[Array, "..."]]

    def pair(self, x, z, *, ntk):
        first, *_ = _layers(self)
        q, r = _norms(first, x), _norms(first, z)
        start = first[0] * (x @ z.T) / x.shape[-1] + first[1]
        return _propagate(self, start, q[:, None], r[None, :], ntk)

    def diag_of(self, x, *, ntk):
        first, *_ = _layers(self)
        return _propagate_diag(self, _norms(first, x), ntk)


class MLPKernel(_Dense):
    r"""An infinitely wide multilayer perceptron.

    $K_1 = w\,x \cdot x'/d + b$; $K_{l+1} = w F(K_l) + b$; the readout, without bias and of unit variance, $F(K_L)$.

    - `depth`: L, the number of hidden layers.
    - `activation`: "relu", "leaky_relu", "abs", "erf", an `Activation` or any smooth function of one number.
    - `weight_variance`, `bias_variance`: $w$ and $b$, of each layer's weights (times its width) and biases; one number
      for all, or `(depth,)`, input layer first.

    Source: Lee et al. (2018), arXiv:1711.00165, eq. 5; tangent kernel: Jacot et al. (2018), arXiv:1806.07572.
    """

    weight_variance: float | Float[Array, "..."]
    bias_variance: float | Float[Array, "..."]
    depth: int = eqx.field(static=True)
    activation: Activation

    def __init__(
        self,
        depth: int = 3,
        activation: str | Activation | Callable = "relu",
        weight_variance: Any = 2.0,
        bias_variance: Any = 0.1,
    ):
        self.depth, self.activation = depth, as_activation(activation)
        self.weight_variance, self.bias_variance = weight_variance, bias_variance
        self.event_ndim = 1
        check_layers(self)


class ResNetKernel(_Dense):
    r"""An infinitely wide fully connected residual network.

    $K_1 = w\,x \cdot x'/d + b$; $K_{l+1} = K_l + w F(K_l) + b$; the readout $F(K_L)$. Arguments as in `MLPKernel`.

    Source: the recursion of Lee et al. (2018) with the identity added to each hidden layer.
    """

    weight_variance: float | Float[Array, "..."]
    bias_variance: float | Float[Array, "..."]
    depth: int = eqx.field(static=True)
    activation: Activation

    def __init__(
        self,
        depth: int = 3,
        activation: str | Activation | Callable = "relu",
        weight_variance: Any = 1.0,
        bias_variance: Any = 0.1,
    ):
        self.depth, self.activation = depth, as_activation(activation)
        self.weight_variance, self.bias_variance = weight_variance, bias_variance
        self.event_ndim = 1
        check_layers(self)


def networks(
    depths: Iterable[int] = (1, 2, 4),
    activations: Iterable[str | Activation | Callable] = ("relu", "erf"),
    *,
    kernel: Callable = MLPKernel,
    **settings: Any,
) -> tuple[Kernel, ...]:
    """Kernels of every depth with every activation, to choose from by evidence: `candidates` of a regression.

    - `kernel`: `MLPKernel` or `ResNetKernel`; `**settings` are its further arguments.
    """
    activations = tuple(activations)
    return tuple(kernel(depth, activation, **settings) for depth in depths for activation in activations)


def check_layers(kernel: Any) -> None:
    """Raises for a depth below one, or variances that are negative, not finite, or not one for each layer."""
    depth = kernel.depth
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"`depth` must be an integer of at least 1, the number of hidden layers; got {depth!r}.")
    check_positive("weight_variance", kernel.weight_variance)
    check_positive("bias_variance", kernel.bias_variance, zero=True)
    for name in ("weight_variance", "bias_variance"):
        shape = jnp.shape(getattr(kernel, name))
        if shape not in {(), (depth,)}:
            raise ValueError(f"`{name}` must be one number or {depth}, one for each hidden layer; got shape {shape}.")


def layer_variances(kernel: Any) -> tuple[Array, Array]:
    """Weight and bias variances of each layer, `(depth,)`, in the precision in force."""
    w, b = (
        jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), (kernel.depth,))
        for value in (kernel.weight_variance, kernel.bias_variance)
    )
    return w, b


def _layers(kernel: _Dense) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    w, b = layer_variances(kernel)
    return (w[0], b[0]), (w[1:], b[1:])


def _norms(first: tuple[Array, Array], x: Array) -> Array:
    return first[0] * jnp.mean(x * x, axis=-1) + first[1]


def _propagate(kernel: _Dense, k: Array, q: Array, r: Array, ntk: bool) -> tuple[Array, Array | None]:
    phi, skip = kernel.activation, isinstance(kernel, ResNetKernel)

    def layer(carry, variances):
        k, q, r, t = carry
        w, b = variances
        more = w * phi.moment(k, q, r) + b
        if ntk:
            t = more + w * phi.slope_moment(k, q, r) * t + (t if skip else 0)
        q, r = (w * phi.square(v) + b + (v if skip else 0) for v in (q, r))
        return (more + k if skip else more, q, r, t), None

    start = (k, q, r, k if ntk else jnp.zeros(()))
    (k, q, r, t), _ = jax.lax.scan(layer, start, _layers(kernel)[1])
    value = phi.moment(k, q, r)
    return value, value + phi.slope_moment(k, q, r) * t if ntk else None


def _propagate_diag(kernel: _Dense, q: Array, ntk: bool) -> tuple[Array, Array | None]:
    phi, skip = kernel.activation, isinstance(kernel, ResNetKernel)

    def layer(carry, variances):
        q, t = carry
        w, b = variances
        more = w * phi.square(q) + b
        t = more + w * phi.slope_square(q) * t + (t if skip else 0)
        return (more + q if skip else more, t), None

    (q, t), _ = jax.lax.scan(layer, (q, q), _layers(kernel)[1])
    value = phi.square(q)
    return value, value + phi.slope_square(q) * t if ntk else None
