"""Neal's funnel: a density whose scale changes by orders of magnitude along one axis."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from posterax import Target
from scipy.special import ndtr

from ._checks import as_float, require_positive, require_shape


def funnel_model(num_x, v_sd):
    """The NumPyro model of `NealsFunnel`: no data, so the prior is all there is."""
    v = numpyro.sample("v", dist.Normal(0.0, v_sd))
    with numpyro.plate("coordinate", num_x):
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(v / 2)))


class NealsFunnel(eqx.Module):
    r"""$v \sim N(0, 3)$ and $x_i \sim N(0, e^{v/2})$ (standard deviations): a normalised density without
    data.

    - `dim`: number of coordinates in all, $v$ and `dim - 1` of $x$; at least 2.
    - `v_sd`: standard deviation of $v$.

    Sites: `v`, a scalar, and `x` of shape `(dim - 1,)`. Most of the mass of $x$ lies in the wide mouth, and
    nearly all failures in the neck: judge a sampler by `v`, whose law is exactly normal.

    Source: Neal (2003), doi:10.1214/aos/1056562461, section 8.
    """

    dim: int = eqx.field(default=10, static=True)
    v_sd: Float[Array, ""] = eqx.field(converter=as_float, default=3.0, kw_only=True)

    def __check_init__(self):
        if self.dim < 2:
            raise ValueError(f"`dim` must be at least 2, for `v` and one `x`; got {self.dim}.")
        require_shape("v_sd", self.v_sd, ())
        require_positive("v_sd", self.v_sd)

    @property
    def source(self) -> str:
        """Where the problem comes from."""
        return "Neal (2003), Slice sampling, doi:10.1214/aos/1056562461, section 8"

    @property
    def observed(self) -> None:
        """There are no data."""
        return

    @property
    def target(self) -> Target:
        """The funnel."""
        return Target.from_numpyro(funnel_model, self.dim - 1, self.v_sd)

    @property
    def mean(self) -> dict[str, Array]:
        """Exact means: zero."""
        return {"v": jnp.zeros(()), "x": jnp.zeros(self.dim - 1)}

    @property
    def sd(self) -> dict[str, Array]:
        r"""Exact standard deviations; $\mathrm{Var}\,x_i = E e^v = e^{9/2}$, so about 9.49 for `x`.

        The fourth moment of $x$ is $3 e^{18}$: averages of $x^2$ converge hopelessly slowly even over exact
        draws. Test `x` by `x_cdf`.
        """
        return {"v": self.v_sd, "x": jnp.full(self.dim - 1, jnp.exp(self.v_sd**2 / 4))}

    @property
    def log_evidence(self) -> Float[Array, ""]:
        """Zero: the density is normalised."""
        return jnp.zeros(())

    def sample(self, *, key: PRNGKeyArray) -> dict[str, Array]:
        """One exact, independent draw of both sites."""
        key_v, key_x = jr.split(key)
        v = self.v_sd * jr.normal(key_v)
        return {"v": v, "x": jnp.exp(v / 2) * jr.normal(key_x, (self.dim - 1,))}

    def v_cdf(self, v: np.ndarray) -> np.ndarray:
        """Exact distribution function of `v`, in float64 NumPy, for any shape."""
        return ndtr(np.asarray(v, np.float64) / float(self.v_sd))

    def x_cdf(self, x: np.ndarray) -> np.ndarray:
        """Distribution function of each coordinate of `x`, to about 1e-10, in float64 NumPy, for any shape.

        The trapezium rule over `v`, which converges geometrically for Gaussian integrands.
        """
        z = np.linspace(-8.0, 8.0, 321)
        weights = np.exp(-0.5 * z**2)
        scale = np.exp(0.5 * z * float(self.v_sd))
        return ndtr(np.asarray(x, np.float64)[..., None] / scale) @ (weights / weights.sum())
