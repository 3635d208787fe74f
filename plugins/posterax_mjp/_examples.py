"""Small instances for the conformance kit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from posterax.testing import EstimatorCase, JointModel, ObjectiveCase

from ._estimator import MJPLikelihood
from ._foundation import MJPFoundation
from ._law_objective import RateLawLikelihood
from ._panel import PanelData
from ._pretrained import pretrained
from ._prior import wide_prior
from ._prior_rates import LogNormalRates
from ._process import Process
from ._rate_law import RateLaw
from ._training_data import Examples

_TIMES = np.linspace(0.0, 4.0, 9)
_PRIOR = LogNormalRates(median=4.0, log_sd=0.5)  # 1 per unit of time


def panel() -> EstimatorCase:
    """Both rates of a chain of two states, from 12 paths seen nine times."""
    component = MJPLikelihood(method="laplace", prior=_PRIOR, initial=(1.0, 0.0), num_draws=400)
    return EstimatorCase(component, JointModel(_draw, _see), fit=_fit, infer=_infer)


def _draw(key: Any) -> dict:
    rates = _PRIOR.sample(~jnp.eye(2, dtype=bool), key=key)
    return {"rates": jnp.stack([rates[0, 1], rates[1, 0]]) / 4.0}


def _see(parameter: Any, key: Any) -> Any:
    rates = jnp.zeros((2, 2)).at[jnp.array([0, 1]), jnp.array([1, 0])].set(parameter["rates"])
    return Process(rates, jnp.array([1.0, 0.0])).sample(_TIMES, 12, key=key)


def _fit(component: MJPLikelihood, joint: Any, key: Any) -> Any:
    _, observed = joint.simulate(key=key)
    return component.fit(_panel(observed), key=key)


def _infer(fitted: MJPLikelihood, observed: Any, key: Any) -> Any:
    return fitted.infer(_panel(observed), key=key)


def _panel(states: Any) -> PanelData:
    return PanelData.from_paths(np.asarray(states), _TIMES, num_states=2)


def at_once() -> EstimatorCase:
    """Both rates of a chain of two states of the training prior, from 20 paths seen 50 times."""
    return EstimatorCase(pretrained(), JointModel(_rates, _labels), fit=_as_it_is, infer=_told)


_GRID = np.linspace(0.0, 1.0, 50)


def _rates(key: Any) -> dict:
    rates = wide_prior().sample(2, key=key).rates  # two states have both jumps
    return {"rates": jnp.stack([rates[0, 1], rates[1, 0]])}


def _labels(parameter: Any, key: Any) -> Any:
    one, two = jr.split(key)
    rates = _both(parameter["rates"])
    return Process(rates, wide_prior().initial.sample(rates, key=one)).sample(_GRID, 20, key=two)


def _both(rates: Array) -> Array:
    return jnp.zeros((*rates.shape[:-1], 2, 2)).at[..., jnp.array([0, 1]), jnp.array([1, 0])].set(rates)


def _as_it_is(component: Any, joint: Any, key: Any) -> Any:
    del joint, key
    return component


def _told(fitted: MJPFoundation, observed: Any, key: Any) -> Any:
    del key
    return _Pair(fitted.law(PanelData.from_paths(np.asarray(observed), _GRID, num_states=2)))


class _Pair(eqx.Module):
    """A law of two states' rates, without the diagonal."""

    law: RateLaw

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Draws."""
        rates = self.law.sample(key, sample_shape)["rates"]
        return {"rates": jnp.stack([rates[..., 0, 1], rates[..., 1, 0]], -1)}

    def log_prob(self, value: dict[str, Array]) -> Array:
        """Log density."""
        return self.law.log_prob({"rates": _both(value["rates"])})


def law_of_rates() -> ObjectiveCase:
    """One law of the rates of all processes, whatever is seen of them."""
    truth = _Shared(jnp.array([0.5, 0.3, 1.0, -0.4]))
    return ObjectiveCase(RateLawLikelihood(), truth, _batch)


class _Shared(eqx.Module):
    """Log odds of a jump; mean and shape of its rate, as logarithms; log odds of the second state to be the first."""

    numbers: Float[Array, " 4"]

    def __call__(self, told: Any) -> RateLaw:
        """The same whatever is told."""
        del told
        edge, mean, shape, first = self.numbers
        pairs = lambda value: jnp.broadcast_to(value, (2, 2, 1))  # noqa: E731
        return RateLaw(
            pairs(edge)[..., 0], pairs(mean), pairs(shape), jnp.zeros((2, 2, 1)), jnp.stack([jnp.zeros(()), first])
        )


def _batch(key: Any) -> Examples:
    one, two = jr.split(key)
    law = law_of_rates().model(None)
    firsts = jax.nn.one_hot(jr.categorical(two, law.initial_logits, shape=(64,)), 2)
    told: Any = jnp.zeros((64, 1))
    return Examples(law.sample(one, (64,))["rates"], firsts, told)
