r"""Kalman filter and Rauch-Tung-Striebel smoother, stable in float32.

Covariances are only ever made as sums of $A P A^\top$ (Joseph's form), so rounding cannot make them
indefinite. Missing entries (NaN) are taken out of the update exactly, not approximated by a large variance.

Source: Särkkä, *Bayesian Filtering and Smoothing* (2013), theorems 4.2 and 8.2; Bucy and Joseph, *Filtering
for Stochastic Processes* (1968), for the form of the covariance.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float


class KalmanFiltered(eqx.Module):
    """What is known at each time from the observations up to there.

    - `predicted_mean`, `predicted_cov`: state given all earlier observations, `(time, d)`, `(time, d, d)`.
    - `mean`, `cov`: state given these and the present one, `(time, d)`, `(time, d, d)`.
    - `observed_mean`, `observed_cov`: the present observation, noise included, given all earlier ones,
      `(time, p)`, `(time, p, p)`; for missing entries too.
    - `log_likelihood_terms`: log density of each observation given all earlier ones, `(time,)`; zero
      where all of it is missing.
    """

    predicted_mean: Float[Array, "time d"]
    predicted_cov: Float[Array, "time d d"]
    mean: Float[Array, "time d"]
    cov: Float[Array, "time d d"]
    observed_mean: Float[Array, "time p"]
    observed_cov: Float[Array, "time p p"]
    log_likelihood_terms: Float[Array, " time"]

    @property
    def log_likelihood(self) -> Float[Array, ""]:
        """Log density of all observations, in nats."""
        return self.log_likelihood_terms.sum()


class KalmanSmoothed(eqx.Module):
    """What is known at each time from all observations.

    - `mean`, `cov`: state, `(time, d)`, `(time, d, d)`.
    - `next_cov`: covariance of each state with the next one, `(time - 1, d, d)`.
    """

    mean: Float[Array, "time d"]
    cov: Float[Array, "time d d"]
    next_cov: Float[Array, "time_less_1 d d"]


class Forecast(eqx.Module):
    """What is known of the time after the last observation.

    - `mean`, `cov`: state, `(steps, d)`, `(steps, d, d)`.
    - `observed_mean`, `observed_cov`: observation, noise included, `(steps, p)`, `(steps, p, p)`.
    """

    mean: Float[Array, "steps d"]
    cov: Float[Array, "steps d d"]
    observed_mean: Float[Array, "steps p"]
    observed_cov: Float[Array, "steps p p"]


def sandwich(a: Array, cov: Array) -> Array:
    r"""$A P A^\top$, exactly symmetric."""
    product = a @ cov @ a.T
    return 0.5 * (product + product.T)


def predict(mean: Array, cov: Array, transition: Array, transition_cov: Array) -> tuple[Array, Array]:
    """Moments of the next state."""
    return transition @ mean, sandwich(transition, cov) + transition_cov


def update(mean: Array, cov: Array, emission: Array, emission_cov: Array, y: Array) -> tuple[Array, Array, Array]:
    """Moments of the state after seeing `y`, and the log density of what was seen of it."""
    seen = ~jnp.isnan(y)
    # A missing entry becomes one that reads exactly 0 with noise 1, independent of the rest: it changes
    # neither gain, determinant nor residual. NaN never enters the arithmetic, so gradients stay finite.
    y = jnp.where(seen, y, 0.0)
    emission = jnp.where(seen[:, None], emission, 0.0)
    emission_cov = jnp.where(seen[:, None] & seen[None, :], emission_cov, jnp.eye(y.size))

    residual = y - emission @ mean
    factor = jnp.linalg.cholesky(sandwich(emission, cov) + emission_cov)
    gain = cho_solve((factor, True), emission @ cov).T
    whitened = solve_triangular(factor, residual, lower=True)
    log_density = -0.5 * (jnp.sum(whitened**2) + seen.sum() * jnp.log(2 * jnp.pi)) - jnp.log(jnp.diagonal(factor)).sum()
    keep = jnp.eye(mean.size) - gain @ emission
    return mean + gain @ residual, sandwich(keep, cov) + sandwich(gain, emission_cov), log_density


def smoothing_gain(cov: Array, next_predicted_cov: Array, transition: Array) -> Array:
    """How much of a surprise about the next state is passed back to this one (Särkkä 8.6)."""
    return cho_solve((jnp.linalg.cholesky(next_predicted_cov), True), transition @ cov).T


def smooth_back(filtered: KalmanFiltered, transition: Array, transition_cov: Array) -> KalmanSmoothed:
    """The Rauch-Tung-Striebel pass over what the filter left."""

    def step(carry, now):
        next_mean, next_cov = carry
        mean, cov, next_predicted_mean, next_predicted_cov = now
        gain = smoothing_gain(cov, next_predicted_cov, transition)
        keep = jnp.eye(mean.size) - gain @ transition
        # The textbook's `cov + gain (next_cov - next_predicted_cov) gain'` loses its sign by cancellation.
        smoothed_cov = sandwich(keep, cov) + sandwich(gain, next_cov + transition_cov)
        smoothed_mean = mean + gain @ (next_mean - next_predicted_mean)
        return (smoothed_mean, smoothed_cov), (smoothed_mean, smoothed_cov, gain @ next_cov)

    last = (filtered.mean[-1], filtered.cov[-1])
    now = (filtered.mean[:-1], filtered.cov[:-1], filtered.predicted_mean[1:], filtered.predicted_cov[1:])
    _, (means, covs, next_covs) = jax.lax.scan(step, last, now, reverse=True)
    return KalmanSmoothed(jnp.concatenate([means, last[0][None]]), jnp.concatenate([covs, last[1][None]]), next_covs)
