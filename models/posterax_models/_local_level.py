"""The local level model with its level integrated out: a scalar Kalman filter, in JAX and in NumPy.

The two are written apart on purpose: one is differentiated and sampled, the other gives the exact answer.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def local_level_predictions(
    observed: Float[Array, " time"],
    sigma_obs: ArrayLike,
    sigma_level: ArrayLike,
    *,
    level_mean: ArrayLike,
    level_sd: ArrayLike,
) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
    r"""Mean and standard deviation of each observation given all earlier ones, both `(time,)`.

    $y_t = \ell_t + N(0, \sigma_{obs})$, $\ell_{t+1} = \ell_t + N(0, \sigma_{level})$,
    $\ell_1 \sim N($`level_mean`, `level_sd`$)$; all in the units of `observed`. The normal densities of the
    observations at these moments multiply to the exact likelihood. Differentiable.

    Source: Durbin and Koopman, *Time Series Analysis by State Space Methods*, 2nd edition (2012), equation
    2.15.
    """
    noise_var, level_var = jnp.square(sigma_obs), jnp.square(sigma_level)

    def step(carry, y):
        mean, var = carry
        total = var + noise_var
        gain = var / total
        # `var * (1 - gain)` as `gain * noise_var`: no cancellation where the level is hardly known.
        return (mean + gain * (y - mean), gain * noise_var + level_var), (mean, total)

    dtype = jnp.result_type(float)
    first = (jnp.asarray(level_mean, dtype), jnp.asarray(jnp.square(level_sd), dtype))
    _, (means, variances) = jax.lax.scan(step, first, jnp.asarray(observed, dtype))
    return means, jnp.sqrt(variances)


def local_level_log_likelihood(
    observed: np.ndarray,
    sigma_obs: np.ndarray,
    sigma_level: np.ndarray,
    *,
    level_mean: float,
    level_sd: float,
    diffuse: bool = False,
) -> np.ndarray:
    """Log likelihood in nats and float64 NumPy, for whole grids of parameters at once.

    - `observed`: shape `(time,)`.
    - `sigma_obs`, `sigma_level`: positive, of any shapes that broadcast; the answer has the broadcast shape.
    - `level_mean`, `level_sd`: of the first level.
    - `diffuse`: leave out the first observation's term; with a large `level_sd` this is the diffuse
      likelihood of Durbin and Koopman (2012), section 2.9, less a constant.
    """
    noise_var, level_var = np.square(sigma_obs, dtype=np.float64), np.square(sigma_level, dtype=np.float64)
    mean, var = np.float64(level_mean), np.square(level_sd, dtype=np.float64)
    log_likelihood = np.zeros(np.broadcast_shapes(noise_var.shape, level_var.shape))
    for t, y in enumerate(np.asarray(observed, np.float64)):
        total = var + noise_var
        surprise = y - mean
        if t > 0 or not diffuse:
            log_likelihood = log_likelihood - 0.5 * (np.log(2 * np.pi * total) + surprise**2 / total)
        gain = var / total
        mean, var = mean + gain * surprise, gain * noise_var + level_var
    return log_likelihood
