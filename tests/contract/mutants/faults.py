"""Faults of any size, one for each statistical check: how small may one be and still be caught?

Each size is an array in the component, so that all of them share one compiled program.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import mutate
import numpyro.distributions as dist
from posterax import Estimator, Objective, PopulationSampler, Sampler


class _Tempered(eqx.Module):
    """A target whose log density is multiplied, which multiplies the logarithm of every acceptance ratio."""

    target: Any
    power: Any

    def log_density(self, position):
        return self.power * self.target.log_density(position)

    @property
    def density(self):
        return self.target.density


class TemperedWalk(Sampler):
    """A random walk that accepts by p^(1 - size)."""

    size: jax.Array
    num_warmup: int = 0
    walk: Any = eqx.field(default_factory=lambda: type(mutate.made("RandomWalk"))(num_warmup=0, log_scale=-0.5))

    def init(self, target, position, *, key):
        return self.walk.init(_Tempered(target, 1 - self.size), position, key=key)

    def step(self, target, state, *, key):
        return self.walk.step(_Tempered(target, 1 - self.size), state, key=key)

    def position(self, state):
        return state.position


class FlatWeights(PopulationSampler):
    """Importance sampling with weights to the power 1 - size, and evidence of the same."""

    size: jax.Array
    inner: Any = eqx.field(default_factory=lambda: mutate.made("Importance"))

    def init(self, target, *, key):
        return self.inner.init(target, key=key)

    def step(self, target, state, *, key):
        return self.inner.step(target, state, key=key)

    def done(self, state):
        return self.inner.done(state)

    def population(self, state):
        positions, log_weights, log_evidence = self.inner.population(state)
        return positions, (1 - self.size) * log_weights, log_evidence


class Scaled(Estimator):
    """A correct estimator whose answer is 1 - size times as wide."""

    size: jax.Array
    inner: Any

    def fit(self, data, *, key):
        return Scaled(self.size, self.inner.fit(data, key=key))

    def infer(self, observed=None, *, prior=None, key=None):
        return narrowed(self.inner.infer(observed, key=key), self.size)


def narrowed(answer, size):
    if hasattr(answer, "base"):
        return eqx.tree_at(lambda a: a.base, answer, narrowed(answer.base, size))
    return dist.MultivariateNormal(answer.loc, scale_tril=(1 - size) * answer.scale_tril)


class Lifted(Estimator):
    """A correct estimator whose log density is too high by `size`."""

    size: jax.Array
    inner: Any

    def fit(self, data, *, key):
        return Lifted(self.size, self.inner.fit(data, key=key))

    def infer(self, observed=None, *, prior=None, key=None):
        return _Lifted(self.inner.infer(observed, key=key), self.size)


class _Lifted(eqx.Module):
    answer: Any
    by: jax.Array

    def sample(self, key, shape=()):
        return self.answer.sample(key, shape)

    def log_prob(self, value):
        return self.answer.log_prob(value) + self.by


class Shifted(Objective):
    """Maximum likelihood of rows moved by `size` in their first coordinate."""

    size: jax.Array

    def loss(self, model, batch, state, *, key):
        return -jnp.mean(jax.vmap(model.log_prob)(batch.at[:, 0].add(self.size))), (state, {})


class Offset(Objective):
    """The loss of `Subsampled`, higher by `size`."""

    size: jax.Array
    inner: Any = eqx.field(default_factory=lambda: mutate.made("Subsampled").component)

    def loss(self, model, batch, state, *, key):
        value, more = self.inner.loss(model, batch, state, key=key)
        return value + self.size, more


class Fault(NamedTuple):
    """A check, the component that is at fault, its tags, what the size is, and the sizes to try, small ones first."""

    check: str
    kind: str
    make: Any
    tags: set
    unit: str
    sizes: tuple


def _walk(check, *sizes):
    return Fault(check, "sampler", TemperedWalk, {"exact"}, "acceptance by p^(1 - x)", sizes)


_LG = {"amortised", "exact"}
_NARROW = "sd (1 - x) times the right one"


def _linear(size):
    return Scaled(size, mutate.made("LinearGaussian"))


def _laplace(size):
    return Scaled(size, mutate.made("Laplace"))


FAULTS = [
    _walk("exact-start-regression", 0.1, 0.15, 0.2, 0.25, 0.3),
    _walk("exact-start-funnel", 0.15, 0.2, 0.25, 0.3, 0.4),
    _walk("exact-start-two-modes", 0.1, 0.15, 0.2, 0.25, 0.3),
    _walk("exact-start-path", 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
    _walk("geweke-cycles", 0.08, 0.1, 0.12, 0.15, 0.2),
    _walk("known-answer", 0.06, 0.08, 0.1, 0.12, 0.15),
    Fault(
        "known-answer-within-bias", "sampler", TemperedWalk, {"approximate", "bias=0.1"}, "acceptance by p^(1 - x)",
        (0.2, 0.25, 0.3, 0.4),
    ),
    Fault(
        "evidence", "sampler", FlatWeights, {"exact", "population"}, "weights to the power 1 - x",
        (0.01, 0.02, 0.03, 0.05),
    ),
    Fault("known-answer", "estimator", _linear, _LG, _NARROW, (0.04, 0.05, 0.06, 0.07, 0.08)),
    Fault("sbc", "estimator", _linear, _LG, _NARROW, (0.08, 0.1, 0.12, 0.14, 0.16)),
    Fault("coverage", "estimator", _linear, _LG, _NARROW, (0.08, 0.1, 0.12, 0.14, 0.16)),
    Fault(
        "density", "estimator", lambda size: Lifted(size, mutate.made("LinearGaussian")), _LG,
        "log density too high by x", (0.005, 0.01, 0.015, 0.02),
    ),
    Fault("sbc-by-fits", "estimator", _laplace, {"fits-target", "exact"}, _NARROW, (0.3, 0.4, 0.5, 0.6)),
    Fault(
        "score", "objective", Shifted, {"density-model", "proper"}, "data moved by x (sd 1.5)",
        (0.01, 0.015, 0.02, 0.03),
    ),
    Fault(
        "truth-wins", "objective", Shifted, {"density-model", "proper"}, "data moved by x (sd 1.5)",
        (1.2, 1.6, 2.0, 2.5, 3.0),
    ),
    Fault(
        "unbiased", "objective", lambda size: mutate.subsampled_case(Offset(size)),
        {"density-model", "proper", "stochastic"}, "loss too high by x", (0.02, 0.03, 0.04, 0.05),
    ),
]  # fmt: skip
