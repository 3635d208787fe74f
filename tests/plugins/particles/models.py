"""State-space models with exact answers beside them."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from posterax_models import GaussianEmission, HiddenMarkovChain, LinearGaussianStateSpace
from posterax_particles import Proposal, StateSpaceModel

DECAY, STEP_SD, NOISE_SD = 0.9, 0.5, 0.7
WALK = jnp.array([1.1, -0.2, 0.4, 1.9, 0.8, -0.6, -1.5, 0.3, 0.9, 2.2])


class Walk(StateSpaceModel):
    step_sd: Array | float = STEP_SD

    def initial(self):
        return dist.Normal(jnp.zeros(()), 1.0)

    def transition(self, t, x):
        return dist.Normal(DECAY * x, self.step_sd)

    def emission(self, t, x):
        return dist.Normal(x, NOISE_SD)


def kalman(step_sd=STEP_SD):
    one = jnp.ones((1, 1))
    return LinearGaussianStateSpace(jnp.zeros(1), one, DECAY * one, step_sd**2 * one, one, NOISE_SD**2 * one)


class Optimal(Proposal):
    """The law of the state given the one before and the observation: exact for a linear-Gaussian model."""

    def initial(self, observed):
        return posterior(0.0, 1.0, observed)

    def transition(self, t, x, observed):
        return posterior(DECAY * x, STEP_SD, observed)


def posterior(mean, sd, observed):
    gain = sd**2 / (sd**2 + NOISE_SD**2)
    return dist.Normal(mean + gain * (observed - mean), sd * jnp.sqrt(1 - gain))


def predictive(x, observed):
    """Log density of the next observation."""
    return dist.Normal(DECAY * x, jnp.sqrt(STEP_SD**2 + NOISE_SD**2)).log_prob(observed)


INITIAL = jnp.array([0.5, 0.3, 0.2])
MOVES = jnp.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.25, 0.0, 0.75]])
LEVELS = jnp.array([-1.0, 0.5, 2.0])
SIGNAL = jnp.array([-0.8, 0.4, 1.7, 2.2, 0.1, -1.3, -0.4, 0.9, 1.5, 2.6, 0.3, -0.9])


class Chain(StateSpaceModel):
    def initial(self):
        return dist.Categorical(probs=INITIAL)

    def transition(self, t, x):
        return dist.Categorical(probs=MOVES[x])

    def emission(self, t, x):
        return dist.Normal(LEVELS[x], NOISE_SD)


def chain():
    return HiddenMarkovChain(INITIAL, MOVES, GaussianEmission(LEVELS, NOISE_SD * jnp.ones(3)))
