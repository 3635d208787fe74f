"""A bootstrap filter of a scalar linear-Gaussian model by others: `python _particles_peers.py PROGRAM`.

Each returns a function that runs it once and gives the log evidence. Systematic resampling at every step;
effective sample sizes are kept, ancestors are not.
"""

import sys
from functools import partial

import _serve
import numpy as np

T, N = 1000, 10_000
DECAY, STEP_SD, NOISE_SD = 0.9, 1.0, 1.0


def observations(num_steps: int = T) -> np.ndarray:
    """A simulated series, `(num_steps,)`; a longer one begins like a shorter."""
    random = np.random.default_rng(1)
    x, seen = 0.0, []
    for _ in range(num_steps):
        x = DECAY * x + STEP_SD * random.normal()
        seen.append(x + NOISE_SD * random.normal())
    return np.array(seen, np.float32)


def exact(num_steps: int = T) -> float:
    """The log evidence by Kalman's filter; the first state is drawn like a step from 0."""
    mean, variance, total = 0.0, 0.0, 0.0
    for y in observations(num_steps).astype(float):
        mean, variance = DECAY * mean, DECAY**2 * variance + STEP_SD**2
        spread = variance + NOISE_SD**2
        total -= 0.5 * (np.log(2 * np.pi * spread) + (y - mean) ** 2 / spread)
        gain = variance / spread
        mean, variance = mean + gain * (y - mean), variance * (1 - gain)
    return total


def of_particles(num_particles: int = N, num_steps: int = T):
    """Chopin's package: NumPy and Numba."""
    import particles
    from particles import distributions
    from particles import state_space_models as ssm

    class Walk(ssm.StateSpaceModel):
        def PX0(self):
            return distributions.Normal(scale=STEP_SD)

        def PX(self, t, before):
            return distributions.Normal(loc=DECAY * before, scale=STEP_SD)

        def PY(self, t, before, x):
            return distributions.Normal(loc=x, scale=NOISE_SD)

    data = observations(num_steps).astype(float)

    def once():
        model = ssm.Bootstrap(ssm=Walk(), data=data)
        # A threshold above 1: resampling at every step.
        run = particles.SMC(fk=model, N=num_particles, resampling="systematic", ESSrmin=1.1)
        run.run()
        return np.array([run.logLt])

    return once


def in_a_scan(resample, num_particles: int, num_steps: int):
    """What one would write in an afternoon: `resample(key, weights)` gives ancestors."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    @jax.jit
    def run(key, observed):
        def step(carry, y):
            x, key = carry
            key, key_move, key_resample = jr.split(key, 3)
            x = DECAY * x + STEP_SD * jr.normal(key_move, (num_particles,))
            log_weights = -0.5 * ((y - x) / NOISE_SD) ** 2 - jnp.log(NOISE_SD) - 0.5 * jnp.log(2 * jnp.pi)
            largest = jnp.max(log_weights)
            weights = jnp.exp(log_weights - largest)
            total = weights.sum()
            ancestors = resample(key_resample, weights / total)
            told = largest + jnp.log(total) - jnp.log(num_particles), 1 / jnp.sum((weights / total) ** 2)
            return (x[ancestors], key), told

        _, (terms, ess) = jax.lax.scan(step, (jnp.zeros(num_particles), key), observed)
        return terms.sum(), ess

    key, observed = jr.key(0), jnp.asarray(observations(num_steps))

    def once():
        log_evidence, _ = jax.block_until_ready(run(key, observed))
        return np.array([log_evidence])

    return once


def naive(num_particles: int = N, num_steps: int = T):
    """Ancestors by `searchsorted` in the cumulative weights."""
    import jax.numpy as jnp
    import jax.random as jr

    def resample(key, weights):
        points = (jr.uniform(key) + jnp.arange(num_particles)) / num_particles
        return jnp.clip(jnp.searchsorted(jnp.cumsum(weights), points), 0, num_particles - 1)

    return in_a_scan(resample, num_particles, num_steps)


def of_blackjax(num_particles: int = N, num_steps: int = T):
    """BlackJAX has the pieces; the loop is the naive one."""
    import blackjax.smc.resampling

    resample = partial(blackjax.smc.resampling.systematic, num_samples=num_particles)
    return in_a_scan(resample, num_particles, num_steps)


PROGRAMS = {"particles": of_particles, "naive": naive, "blackjax": of_blackjax}

if __name__ == "__main__":
    _serve.serve(PROGRAMS[sys.argv[1]])
