"""Small instances for the conformance kit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from posterax.testing import EstimatorCase, JointModel, ObjectiveCase

from ._architectures import Dense
from ._energy import Energy
from ._energy_objectives import DetailedBalance, KullbackLeibler
from ._estimator import MarginalizationModel
from ._law import ConditionalLaw
from ._marginals import Marginals
from ._networks import PartialNetwork
from ._objectives import OrderAgnostic, Rows, SelfConsistency

_START = np.array([0.5, 0.3, 0.2])
_MOVES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
_LENGTH, _ROWS = 4, 32


# The estimator: the last two variables of a Markov chain, given the first two


def chain() -> EstimatorCase:
    """What comes next in a Markov chain of three values, learned from its rows."""
    component = MarginalizationModel(Dense(64, 1), num_steps=400, marginal_steps=20, num_imagined=64, batch_size=256)
    return EstimatorCase(component, JointModel(_draw, _see), fit=_fit, infer=_infer)


class _AsNumbers(eqx.Module):
    """The same law, of floats."""

    law: ConditionalLaw

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.law.sample(key, sample_shape).astype(jnp.result_type(float))

    def log_prob(self, value: Any) -> Array:
        return self.law.log_prob(jnp.round(jnp.asarray(value)).astype(jnp.int32))


def _rows(num: int, key: Any) -> Array:
    """Rows of the chain, `(num, 4)`."""

    def move(x, key):
        x = jr.categorical(key, jnp.log(jnp.asarray(_MOVES))[x])
        return x, x

    first, rest = jr.split(key)
    x = jr.categorical(first, jnp.log(jnp.asarray(_START)), shape=(num,))
    _, later = jax.lax.scan(move, x, jr.split(rest, _LENGTH - 1))
    return jnp.concatenate([x[:, None], later.T], 1)


def _draw(key: Any) -> dict:
    return {"row": _rows(1, key)[0].astype(jnp.result_type(float))}


def _see(parameter: Any, key: Any) -> Any:
    del key
    return parameter["row"][:2]


def _fit(component: Any, joint: Any, key: Any) -> Any:
    del joint
    rows, learned = jr.split(key)
    return component.fit(np.asarray(_rows(8000, rows)), num_values=(3,) * _LENGTH, key=learned, progress=False)


def _infer(fitted: MarginalizationModel, observed: Any, key: Any) -> Any:
    del key
    x = jnp.concatenate([jnp.asarray(observed), jnp.full(_LENGTH - 2, jnp.nan)])
    there = ~jnp.isnan(x)
    law = ConditionalLaw(fitted.fitted()[0], jnp.where(there, x, 0).astype(jnp.int32), there, jnp.arange(_LENGTH))
    return _AsNumbers(law)


# The objectives; that of likelihood at independent uniform variables. The others are zero at the truth, whatever the
# batch, so that nothing statistical is left to see there.


def likelihood() -> ObjectiveCase:
    """Uniform rows of unequal numbers of values, a tenth of which are missing."""
    model = eqx.tree_at(_conditional, _random(), _Independent(jnp.zeros(len(_OTHERS))))
    return ObjectiveCase(OrderAgnostic(), model, _batch, optimum=_conditional)


def consistency() -> ObjectiveCase:
    """Untrained networks, which do not agree."""
    return ObjectiveCase(SelfConsistency(freeze=False), _random(), _complete)


def balance() -> ObjectiveCase:
    """An energy that is zero everywhere, and untrained networks."""
    return ObjectiveCase(DetailedBalance(_flat(), num_chains=8, refresh=1), _random(), _nothing)


def divergence() -> ObjectiveCase:
    """The same, by the published loss."""
    return ObjectiveCase(KullbackLeibler(_flat(), num_chains=8, refresh=1), _random(), _nothing)


_VALUES = (2, 3, 2)
_OTHERS = np.array([(d, value) for d, num in enumerate(_VALUES) for value in range(1, num)])  # all values but the first


class _Independent(PartialNetwork):
    """Independent variables, by log odds against their first values: a law has one set of weights only."""

    log_odds: Array

    def __call__(self, x: Any, observed: Any, key: Any = None) -> Array:
        del x, observed, key
        return jnp.zeros((len(_VALUES), max(_VALUES))).at[tuple(_OTHERS.T)].set(self.log_odds)


def _random() -> Marginals:
    return Marginals.init(_VALUES, Dense(4, 1), key=jr.key(0))


def _flat() -> Energy:
    return Energy(_zero, _VALUES)


def _zero(x: Array) -> Array:
    return jnp.sum(jnp.zeros(x.shape))


def _batch(key: Any) -> Rows:
    one, two = jr.split(key)
    x = _complete(one).x
    return Rows(x, jr.uniform(two, x.shape) < 0.9)


def _complete(key: Any) -> Rows:
    x = jr.randint(key, (_ROWS, len(_VALUES)), 0, jnp.array(_VALUES))
    return Rows(x, jnp.ones(x.shape, bool))


def _nothing(key: Any) -> None:
    del key


def _conditional(model: Marginals) -> Any:
    return model.conditional
