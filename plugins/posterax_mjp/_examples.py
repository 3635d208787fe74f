"""Small instances for the conformance kit."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from posterax.testing import EstimatorCase, JointModel

from ._estimator import MJPLikelihood
from ._panel import PanelData
from ._prior_rates import LogNormalRates
from ._process import Process

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
