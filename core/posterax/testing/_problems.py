"""Small problems with exact answers, which the kit tries components on.

Each is a `JointModel`, so that parameters and observations can be drawn together, with the exact posterior beside it.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy import stats

from .._target import Target
from ._joint import JointModel


class Funnel(JointModel):
    r"""Neal's funnel without data: $v \sim N(0, 3)$, $x_i | v \sim N(0, e^{v/2})$, here with two of $x$.

    Source: Neal (2003), doi:10.1214/aos/1056562461, section 8.
    """

    def __init__(self):
        super().__init__(_funnel_prior, _nothing, _funnel_target)

    def quantities(self, parameter, observed):
        """The noises that made the parameter."""
        scaled = parameter["x"] * jnp.exp(-parameter["v"] / 2)
        return {"v": parameter["v"], "x[0]": scaled[0], "x[1]": scaled[1], "radius": jnp.sum(scaled**2)}


def _funnel_prior(key):
    key_v, key_x = jr.split(key)
    v = 3.0 * jr.normal(key_v)
    return {"v": v, "x": jnp.exp(v / 2) * jr.normal(key_x, (2,))}


def _nothing(parameter, key):
    return jnp.zeros(())


def _funnel_target(observed):
    return Target(_funnel_log_density, observed, like={"v": 0.0, "x": jnp.zeros(2)})


def _funnel_log_density(x, nothing):
    return -0.5 * (x["v"] / 3) ** 2 - 0.5 * jnp.sum(x["x"] ** 2) * jnp.exp(-x["v"]) - x["v"]


class Signs(JointModel):
    r"""A number measured up to its sign: $x \sim N(0, 1.5)$; $y \sim N(x, 0.4)$ with probability 0.75, else
    $N(-x, 0.4)$. The posterior has two modes of unequal weight.
    """

    def __init__(self):
        super().__init__(_signs_prior, _signs_simulator, _signs_target)

    def quantities(self, parameter, observed):
        """The parameter, and how well it agrees with the observation in either sign."""
        x = parameter["x"]
        return {"x": x, "difference": observed - x, "sum": observed + x, "product": observed * x}


def _signs_prior(key):
    return {"x": 1.5 * jr.normal(key)}


def _signs_simulator(parameter, key):
    key_sign, key_noise = jr.split(key)
    return jnp.where(jr.uniform(key_sign) < 0.75, 1, -1) * parameter["x"] + 0.4 * jr.normal(key_noise)


def _signs_target(observed):
    return Target(log_prior=_signs_log_prior, log_likelihood=_signs_log_likelihood, data=(observed,), like={"x": 0.0})


def _signs_log_prior(x, y):
    return -0.5 * (x["x"] / 1.5) ** 2


def _signs_log_likelihood(x, y):
    either = jnp.stack(
        [jnp.log(0.75) - 0.5 * ((y - x["x"]) / 0.4) ** 2, jnp.log(0.25) - 0.5 * ((y + x["x"]) / 0.4) ** 2]
    )
    return jnp.logaddexp(either[0], either[1])[None]


class Path(JointModel):
    r"""A hidden random walk of ten steps seen through noise: $z_1 \sim N(0, 1)$, $z_t = 0.9 z_{t-1} + N(0, 0.6)$,
    $y_t \sim N(z_t, 0.5)$. A posterior of ten dependent coordinates.
    """

    def __init__(self):
        super().__init__(_path_prior, _path_simulator, _path_target)

    def quantities(self, parameter, observed):
        """First and last state, a step, a residual and sums of squares of both noises."""
        z = parameter["z"]
        steps, residual = (z[1:] - 0.9 * z[:-1]) / 0.6, (observed - z) / 0.5
        return {
            "z[0]": z[0], "z[9]": z[9], "step[5]": steps[4], "residual[5]": residual[5],
            "squares of steps": jnp.sum(steps**2), "squares of residuals": jnp.sum(residual**2),
        }  # fmt: skip


def _path_prior(key):
    noise = jr.normal(key, (10,))
    z = [noise[0]]
    for t in range(1, 10):
        z.append(0.9 * z[-1] + 0.6 * noise[t])
    return {"z": jnp.stack(z)}


def _path_simulator(parameter, key):
    return parameter["z"] + 0.5 * jr.normal(key, (10,))


def _path_log_prior(x, y):
    z = x["z"]
    return -0.5 * z[0] ** 2 - 0.5 * jnp.sum((z[1:] - 0.9 * z[:-1]) ** 2) / 0.36


def _path_log_likelihood(x, y):
    return -0.5 * (y - x["z"]) ** 2 / 0.25


def _path_target(observed):
    return Target(
        log_prior=_path_log_prior, log_likelihood=_path_log_likelihood, data=(observed,), like={"z": jnp.zeros(10)}
    )


class Gaussian(JointModel):
    r"""A linear Gaussian model, for estimators: $\theta \sim N(0, I)$ in two dimensions, $y | \theta \sim N(A \theta,
    0.6 I)$ in three. The posterior is Gaussian, its covariance the same for all observations.
    """

    def __init__(self):
        super().__init__(_gaussian_prior, _gaussian_simulator, _gaussian_target)

    def quantities(self, parameter, observed):
        """Parameter and residuals."""
        theta = parameter["theta"]
        residual = observed - _MATRIX @ theta
        return {
            "theta[0]": theta[0], "theta[1]": theta[1], "residual[0]": residual[0], "residual[1]": residual[1],
            "residual[2]": residual[2], "sum of squares": jnp.sum(residual**2),
        }  # fmt: skip

    def posterior_ranks(self, values, observed):
        """Independent uniforms `(..., 2)` where values are posterior draws; batches of observations broadcast."""
        mean, factor = self.posterior_moments(observed)
        off = (np.asarray(values["theta"], float) - mean) @ factor
        return ["theta[0]", "theta[1]"], stats.norm.cdf(off)

    @staticmethod
    def posterior_moments(observed) -> tuple[np.ndarray, np.ndarray]:
        """Exact posterior mean, `(..., 2)`, and the Cholesky factor of the precision."""
        precision = np.eye(2) + _MATRIX.T @ _MATRIX / 0.36
        return np.asarray(observed, float) @ _MATRIX @ np.linalg.inv(precision) / 0.36, np.linalg.cholesky(precision)


_MATRIX = np.array([[1.0, 0.6], [0.0, 0.8], [-0.2, 0.5]])


def _gaussian_prior(key):
    return {"theta": jr.normal(key, (2,))}


def _gaussian_simulator(parameter, key):
    return _MATRIX @ parameter["theta"] + 0.6 * jr.normal(key, (3,))


def _gaussian_log_prior(x, y):
    return -0.5 * jnp.sum(x["theta"] ** 2) - jnp.log(2 * jnp.pi)


def _gaussian_log_likelihood(x, y):
    return -0.5 * (y - _MATRIX @ x["theta"]) ** 2 / 0.36 - 0.5 * jnp.log(2 * jnp.pi * 0.36)


def _gaussian_target(observed):
    return Target(
        log_prior=_gaussian_log_prior, log_likelihood=_gaussian_log_likelihood, data=(observed,),
        like={"theta": jnp.zeros(2)}, sample_prior=_gaussian_prior,
    )  # fmt: skip
