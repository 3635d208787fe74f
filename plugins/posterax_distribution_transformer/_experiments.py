"""Families of problems with exact answers: those of the published experiments, and linear-Gaussian ones."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from ._algebra import linear_update
from ._meta_prior import MixtureMetaPrior
from ._mixture import components_of, is_scalar, mixture_of
from ._problem import InferenceProblem, Rows


class NormalVariance(eqx.Module):
    """The variance of centred normal data, of an inverse gamma prior: conjugate, so everything is known.

    - `shape`, `scale`: both parameters of the prior are drawn from InverseGamma(shape, scale). Published: (4, 6), wide;
      (10000, 20000), narrow.
    - `num`: data, each a row.

    Source: Whittle et al. (2025), arXiv:2502.02463, section 4.1.
    """

    shape: float = 4.0
    scale: float = 6.0
    num: int = 1

    def prior(self, key: PRNGKeyArray) -> dist.InverseGamma:
        """A prior of the variance."""
        concentration, rate = dist.InverseGamma(self.shape, self.scale).sample(key, (2,))
        return dist.InverseGamma(concentration, rate)

    def simulate(self, latent: Array, *, key: PRNGKeyArray) -> Array:
        """Data `(num, 1)`; a number where there is one."""
        z = jnp.sqrt(latent) * jr.normal(key, (self.num, 1))
        return z[0, 0] if self.num == 1 else z

    def problem(self) -> InferenceProblem:
        """To be learned."""
        return InferenceProblem(self.prior, self.simulate)

    def exact(self, prior: dist.InverseGamma, observed: Array) -> dist.InverseGamma:
        """The posterior."""
        z = jnp.asarray(observed)
        squares = z**2 if self.num == 1 else jnp.sum(z**2, (-1, -2))
        return dist.InverseGamma(prior.concentration + self.num / 2, prior.rate + squares / 2)


class LinearGaussian(eqx.Module):
    """A latent of mixture prior, seen as z = H x + N(0, R): the posterior is a mixture again.

    - `meta_prior`: of x, in n dimensions or on the line.
    - `observe`: H `(m, n)`. `noise`: R `(m, m)`.
    """

    meta_prior: MixtureMetaPrior
    observe: Float[Array, "m n"]
    noise: Float[Array, "m m"]

    @staticmethod
    def of(meta_prior: MixtureMetaPrior, num: int | None = None, noise_sd: float = 1.0) -> "LinearGaussian":
        """Each coordinate seen in noise; or `num` fixed random combinations of them, of variance 1."""
        size = meta_prior.size or 1
        matrix = np.eye(size) if num is None else np.random.default_rng(0).normal(size=(num, size)) / np.sqrt(size)
        return LinearGaussian(meta_prior, jnp.asarray(matrix, float), noise_sd**2 * jnp.eye(len(matrix)))

    def simulate(self, latent: Array, *, key: PRNGKeyArray) -> Array:
        """Data `(m,)`."""
        noise = jnp.linalg.cholesky(self.noise) @ jr.normal(key, (len(self.noise),))
        return self.observe @ jnp.atleast_1d(latent) + noise

    def problem(self) -> InferenceProblem:
        """To be learned."""
        return InferenceProblem(self.meta_prior, self.simulate)

    def exact(self, prior: Any, observed: Array) -> dist.MixtureSameFamily:
        """The posterior."""
        parts = linear_update(components_of(prior), self.observe, self.noise, jnp.asarray(observed))
        return mixture_of(parts, scalar=is_scalar(prior))


SETTINGS = (
    (1, 0, 1),
    (1, 0, 2),
    (1, 0, 3),
    (1, 0, 4),
    (1, 0, 5),
    (0, 1, 1),
    (0, 1, 2),
    (1, 1, 1),
    (1, 1, 2),
    (1, 1, 3),
)


class QuantumParameter(eqx.Module):
    r"""A parameter d in (0, 1) of a two-state system, $H = d \sigma_x + (1 - d) \sigma_z$, measured in ten settings.

    A setting prepares a state, with noise of variance 0.01 before it is normalised, waits a time, with noise of
    standard deviation 0.05, and sees one outcome, 0 or 1. Prior: Beta, both parameters InverseGamma(4, 6).

    Source: Whittle et al. (2025), arXiv:2502.02463, section 4.2.2. There one stored simulator maps d by a sigmoid once
    more; here, as in the paper's text, it does not.
    """

    state_sd: float = 0.1
    time_sd: float = 0.05

    def prior(self, key: PRNGKeyArray) -> dist.Beta:
        """A prior of d."""
        one, zero = dist.InverseGamma(4.0, 6.0).sample(key, (2,))
        return dist.Beta(one, zero)

    def probability(self, d: Array, noise: Float[Array, "... 3"], setting: int) -> Array:
        """Of outcome 1, that the first state is seen, given standard normal noise of state and time."""
        first, second, time = SETTINGS[setting]
        norm = float(np.hypot(first, second))
        a, b = first / norm + self.state_sd * noise[..., 0], second / norm + self.state_sd * noise[..., 1]
        a, b = (x / jnp.sqrt(a**2 + b**2) for x in (a, b))
        rate = jnp.sqrt(d**2 + (1 - d) ** 2)
        angle = rate * (time + self.time_sd * noise[..., 2])
        return (jnp.cos(angle) * a) ** 2 + (jnp.sin(angle) * ((1 - d) * a + d * b) / rate) ** 2

    def simulate(self, latent: Array, *, key: PRNGKeyArray) -> dict[str, Array]:
        """An outcome for each setting, sources "0" to "9"."""
        key_noise, key_outcome = jr.split(key)
        noise, uniform = jr.normal(key_noise, (len(SETTINGS), 3)), jr.uniform(key_outcome, (len(SETTINGS),))
        return {
            str(i): (uniform[i] < self.probability(latent, noise[i], i)).astype(float) for i in range(len(SETTINGS))
        }

    def problem(self) -> InferenceProblem:
        """To be learned."""
        return InferenceProblem(self.prior, self.simulate)

    def outcome_table(self, grid: Float[Array, " g"], nodes: int = 24) -> Float[Array, "g settings"]:
        """The probability of outcome 1 at points of d, noise integrated out by Gauss-Hermite quadrature."""
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        weights = weights / weights.sum()
        noise = np.stack(np.meshgrid(points, points, points, indexing="ij"), -1).reshape(-1, 3)
        mass = np.einsum("i,j,k->ijk", weights, weights, weights).ravel()
        each = jax.jit(jax.vmap(lambda d, i: jnp.asarray(mass) @ self.probability(d, jnp.asarray(noise), i), (0, None)),
                       static_argnums=1)  # fmt: skip
        return jnp.stack([each(grid, i) for i in range(len(SETTINGS))], -1)

    def log_likelihood(self, table: Float[Array, "g settings"], observed: Mapping[str, Array]) -> Float[Array, "... g"]:
        """Of outcomes, at the points of a table; sources may be missing."""
        total = jnp.zeros(())
        for name, outcome in observed.items():
            p, seen = table[:, int(name)], jnp.asarray(outcome)[..., None]
            total = total + seen * jnp.log(p) + (1 - seen) * jnp.log1p(-p)
        return total


class LengthScale(eqx.Module):
    """The length-scale of a Gaussian process on a line, of an inverse gamma prior, from up to `most` noisy values.

    The process has mean 0 and kernel exp(-(x - x')^2 / 2 l^2); rows are (x, y), x uniform on (0, 10), y with noise of
    variance `noise`. How many rows there are is drawn, from 1 to `most`. The prior's shape is uniform on (1, 4), its
    scale on (1, 8).

    Source: a reduced form of Whittle et al. (2025), arXiv:2502.02463, section 4.2.1.
    """

    most: int = 10
    noise: float = 0.01

    def prior(self, key: PRNGKeyArray) -> dist.InverseGamma:
        """A prior of the length-scale."""
        u = jr.uniform(key, (2,))
        return dist.InverseGamma(1 + 3 * u[0], 1 + 7 * u[1])

    def gram(self, x: Array, length: Array, present: Array) -> Array:
        """Covariance of the values; rows that are missing are independent of all, with variance 1."""
        both = present[:, None] & present
        kernel = jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + self.noise * jnp.eye(len(x))
        return jnp.where(both, kernel, jnp.eye(len(x)))

    def simulate(self, latent: Array, *, key: PRNGKeyArray) -> Rows:
        """Rows (x, y) `(most, 2)`, of which the first ones are present."""
        key_x, key_y, key_num = jr.split(key, 3)
        x = jr.uniform(key_x, (self.most,), maxval=10.0)
        present = jnp.arange(self.most) < jr.randint(key_num, (), 1, self.most + 1)
        y = jnp.linalg.cholesky(self.gram(x, latent, present)) @ jr.normal(key_y, (self.most,))
        return Rows(jnp.stack([x, y], -1), present)

    def problem(self) -> InferenceProblem:
        """To be learned."""
        return InferenceProblem(self.prior, self.simulate)

    def log_likelihood(self, length: Array, observed: Rows) -> Array:
        """Of the rows present, in nats, at one length-scale."""
        rows, present = observed
        present = jnp.ones(len(rows), bool) if present is None else present
        x, y = rows[:, 0], jnp.where(present, rows[:, 1], 0.0)
        tril = jnp.linalg.cholesky(self.gram(x, length, present))
        white = jax.scipy.linalg.solve_triangular(tril, y, lower=True)
        num = jnp.sum(present)
        return -0.5 * white @ white - jnp.sum(jnp.log(jnp.diagonal(tril))) - 0.5 * num * jnp.log(2 * jnp.pi)
