"""Small instances for the conformance kit, and problems of their own for those that run on state-space models."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from posterax import EssBelow
from posterax.testing import JointModel, SamplerCase
from posterax_models import LinearGaussianStateSpace
from scipy import stats

from ._filter import EntropicParticleFilter, ParticleFilter
from ._forms import Bootstrap
from ._gibbs import ParticleGibbs
from ._importance import Importance
from ._marginal import ParticleMarginal
from ._posterior import state_space_target
from ._random_walk import RandomWalk
from ._schedules import TargetEssSchedule
from ._state_space import StateSpaceModel
from ._tempered import TemperedSMC

_STEPS, _DECAY, _NOISE = 5, 0.9, 0.7


def particle_filter() -> SamplerCase:
    """A small filter that resamples now and then."""
    return SamplerCase(ParticleFilter(128, when=EssBelow(0.5)), LastState())


def entropic() -> SamplerCase:
    """Annealing with residual weights, which keeps the filter exact."""
    schedule = TargetEssSchedule(0.7)
    return SamplerCase(EntropicParticleFilter(128, schedule=schedule, correction="residual"), LastState())


def particle_gibbs() -> SamplerCase:
    """Few particles, with ancestor sampling."""
    return SamplerCase(ParticleGibbs(num_particles=8, num_warmup=200, num_moves=2), WithParameter())


def particle_marginal() -> SamplerCase:
    """A small filter inside."""
    inner = ParticleFilter(32, when=EssBelow(0.5), paths=True, moments=False)
    return SamplerCase(ParticleMarginal(filter=inner, num_warmup=300), WithParameter())


def random_walk() -> RandomWalk:
    """The default."""
    return RandomWalk()


def tempered() -> TemperedSMC:
    """A small population."""
    return TemperedSMC(num_particles=256)


def importance() -> Importance:
    """Draws of the prior."""
    return Importance(num_draws=512)


class HiddenWalk(StateSpaceModel):
    """A stationary autoregression seen through noise."""

    sd: Array

    def initial(self):
        return dist.Normal(jnp.zeros(()), 1.0)

    def transition(self, t, x):
        return dist.Normal(_DECAY * x, self.sd)

    def emission(self, t, x):
        return dist.Normal(x, _NOISE)


class LastState(JointModel):
    """The last state of a hidden walk, given all observations: Kalman's filter has its law."""

    def __init__(self):
        super().__init__(_last_state, _seen, _filtering)

    def simulate(self, *, key):
        """The state and the observations of one path."""
        states, observed = HiddenWalk(jnp.asarray(0.5)).simulate(num_steps=_STEPS, key=key)
        return {"states": states[-1]}, observed

    def posterior_ranks(self, values: dict[str, np.ndarray], observed: Any) -> tuple[list[str], np.ndarray]:
        """The state's rank in its exact law."""
        filtered = _kalman().filter(jnp.asarray(observed)[:, None])
        mean, sd = float(filtered.mean[-1, 0]), float(filtered.cov[-1, 0, 0]) ** 0.5
        return ["last state"], stats.norm.cdf(np.asarray(values["states"], float), mean, sd)[..., None]

    def log_evidence(self, observed: Any) -> float:
        """Kalman's likelihood."""
        return float(_kalman().log_likelihood(jnp.asarray(observed)[:, None]))


def _kalman() -> LinearGaussianStateSpace:
    one = np.ones((1, 1))
    return LinearGaussianStateSpace(np.zeros(1), one, _DECAY * one, 0.25 * one, one, _NOISE**2 * one)


def _last_state(key):
    return LastState().simulate(key=key)[0]


def _seen(parameter, key):
    raise NotImplementedError("States and observations of a path are drawn together.")


def _filtering(observed):
    return Bootstrap(HiddenWalk(jnp.asarray(0.5)), observed)


class WithParameter(JointModel):
    """All states of a hidden walk, and the size of its steps."""

    def __init__(self):
        super().__init__(_draw_prior, _observe, _posterior)

    def quantities(self, parameter: dict[str, Array], observed: Array) -> dict[str, Array]:
        """Noises of every part of the model."""
        states, sd = parameter["states"], parameter["sd"]
        steps = (states[1:] - _DECAY * states[:-1]) / sd
        return {
            "sd": sd, "first": states[0], "last": states[-1], "step": steps[1], "residual": observed[2] - states[2],
            "squares of steps": jnp.sum(steps**2), "squares of residuals": jnp.sum((observed - states) ** 2),
        }  # fmt: skip


def _parameter_model():
    return HiddenWalk(jnp.asarray(numpyro.sample("sd", dist.LogNormal(-0.5, 0.5))))


def _draw_prior(key):
    key_sd, key_states = jr.split(key)
    sd = jnp.asarray(dist.LogNormal(-0.5, 0.5).sample(key_sd))
    return {"sd": sd, "states": HiddenWalk(sd).simulate(num_steps=_STEPS, key=key_states)[0]}


def _observe(parameter, key):
    return parameter["states"] + _NOISE * jr.normal(key, (_STEPS,))


def _posterior(observed):
    return state_space_target(_parameter_model, observed)
