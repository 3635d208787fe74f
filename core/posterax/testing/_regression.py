"""The kit's first problem: a regression with unknown noise, whose posterior is known exactly."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from numpyro.distributions import constraints
from scipy import stats

from .._keys import named
from .._target import Target
from ._joint import JointModel

_X = np.array([[1.0, -1.0], [1.0, 0.2], [1.0, 1.5], [1.0, 0.7]])
OBSERVED = np.array([1.4, -0.3, -1.8, 0.6])  # where one data set will do


class Regression(JointModel):
    r"""A regression line with unknown noise: $v \sim \mathrm{InvGamma}(4, 3)$, $\beta | v \sim N(0, v I)$,
    $y | \beta, v \sim N(X \beta, v I)$ with four observations.

    The posterior is normal-inverse-gamma: correlated, of two scales, one coordinate positive. `edge` cuts the density:
    where $\beta_0$ is beyond it, the log density is `outside`.

    Source: Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, section 14.2.
    """

    edge: Array = eqx.field(default=None)
    outside: Array = eqx.field(default=None)

    def __init__(self, edge: float = np.inf, outside: float = -np.inf):
        super().__init__(_regression_prior, _regression_simulator, regression_target)
        self.edge, self.outside = jnp.asarray(edge, float), jnp.asarray(outside, float)

    def simulate(self, *, key):
        """As in `JointModel`; a parameter beyond the edge is reflected at it, and is then no draw of any law."""
        parameter = _regression_prior(named(key, "prior"))
        beta = parameter["beta"]
        first = jnp.where(beta[0] > self.edge, 2 * self.edge - beta[0], beta[0])
        parameter = {**parameter, "beta": beta.at[0].set(first)}
        return parameter, _regression_simulator(parameter, named(key, "observed"))

    def target(self, observed):
        """The posterior given `observed`, cut off beyond the edge."""
        return regression_target(observed, self.edge, self.outside)

    def quantities(self, parameter: dict[str, Array], observed: Array) -> dict[str, Array]:
        """Numbers whose joint law knows of every part of the model: noises of the prior and of the observations."""
        sd = jnp.sqrt(parameter["variance"])
        residual = (observed - _X @ parameter["beta"]) / sd
        return {
            "beta[0]": parameter["beta"][0] / sd,
            "beta[1]": parameter["beta"][1] / sd,
            "variance": parameter["variance"],
            "residual[0]": residual[0],
            "residual[2]": residual[2],
            "sum of squares": jnp.sum(residual**2),
        }

    def posterior_ranks(self, values: dict[str, np.ndarray], observed: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Independent uniforms `(..., 3)` where values are posterior draws: Rosenblatt's transform."""
        law, mean, factor = _posterior(observed)
        v = np.asarray(values["variance"], float)
        off = (np.asarray(values["beta"], float) - mean) @ factor / np.sqrt(v)[..., None]
        u = [law.cdf(v), *np.moveaxis(stats.norm.cdf(off), -1, 0)]
        return ["variance", "beta[0]", "beta[1]"], np.stack(u, axis=-1)

    def posterior_draws(self, u: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
        """The posterior draws that `posterior_ranks` sends to the uniforms `u`, (n, 3)."""
        law, mean, factor = _posterior(observed)
        v = law.ppf(u[:, 0])
        off = stats.norm.ppf(u[:, 1:]) @ np.linalg.inv(factor)
        return {"beta": mean + np.sqrt(v)[:, None] * off, "variance": v}

    def log_evidence(self, observed: np.ndarray) -> float:
        """Exact log p(y)."""
        covariance = np.eye(len(_X)) + _X @ _X.T
        shape = _A_SCALE / _A_SHAPE * covariance
        law = stats.multivariate_t(shape=shape, df=2 * _A_SHAPE)  # pyright: ignore[reportArgumentType]
        return float(law.logpdf(np.asarray(observed, float)))


_A_SHAPE, _A_SCALE = 4, 3.0


def _posterior(observed: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """The law of the variance, the mean of `beta`, and the Cholesky factor of its precision at variance one."""
    observed = np.asarray(observed, float)
    precision = np.eye(2) + _X.T @ _X
    mean = np.linalg.solve(precision, _X.T @ observed)
    scale = _A_SCALE + 0.5 * (observed @ observed - mean @ precision @ mean)
    return stats.invgamma(_A_SHAPE + len(_X) / 2, scale=scale), mean, np.linalg.cholesky(precision)


def _regression_prior(key):
    key_variance, key_beta = jr.split(key)
    # A gamma variable of whole shape is a sum of exponentials; JAX's own takes seconds to compile.
    variance = _A_SCALE / jnp.sum(jr.exponential(key_variance, (_A_SHAPE,)))
    return {"beta": jnp.sqrt(variance) * jr.normal(key_beta, (2,)), "variance": variance}


def _regression_simulator(parameter, key):
    return _X @ parameter["beta"] + jnp.sqrt(parameter["variance"]) * jr.normal(key, (len(_X),))


def _regression_log_prior(x, y, edge, outside):
    v = x["variance"]
    of_variance = -(_A_SHAPE + 1) * jnp.log(v) - _A_SCALE / v + _LOG_NORMALISER
    of_beta = -0.5 * jnp.sum(x["beta"] ** 2) / v - jnp.log(2 * jnp.pi * v)
    return jnp.where(x["beta"][0] > edge, outside, of_variance + of_beta)


_LOG_NORMALISER = float(_A_SHAPE * np.log(_A_SCALE) - np.log(6.0))  # of the inverse gamma; gamma(4) = 6


def _regression_log_likelihood(x, y, edge, outside):
    v = x["variance"]
    return -0.5 * (y - _X @ x["beta"]) ** 2 / v - 0.5 * jnp.log(2 * jnp.pi * v)


def regression_target(observed: Any, edge: Any = np.inf, outside: Any = -np.inf) -> Target:
    """The posterior of `Regression`, cut off beyond `edge`; all three are data, so nothing compiles anew."""
    observed, edge, outside = (jnp.asarray(x, float) for x in (observed, edge, outside))
    return Target(
        log_prior=_regression_log_prior,
        log_likelihood=_regression_log_likelihood,
        data=(observed, edge, outside),
        like={"beta": jnp.zeros(2), "variance": 1.0},
        support={"variance": constraints.positive},
        sample_prior=_regression_prior,
    )
