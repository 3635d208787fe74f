"""Estimator: learns once, infers many times."""

import abc
from typing import Any, ClassVar, Literal, Self

import equinox as eqx
from jaxtyping import PRNGKeyArray


class Estimator(eqx.Module):
    """Learns from data, a simulator, a target or an energy, and then answers without sampling anew.

    `fit` returns a fitted copy and changes nothing in place; what was learned are arrays in its fields. Some estimators
    infer without any `fit`: theirs returns `self`.

    - `infers`: what `infer` gives: a "distribution" (a PyTree with `sample(key, sample_shape)` and `log_prob(value)`,
      NumPyro's wherever there is one) or "draws".
    - `precision`: 64 where the estimator needs float64, else None.
    """

    infers: ClassVar[Literal["distribution", "draws"]] = "distribution"
    precision: ClassVar[int | None] = None

    @abc.abstractmethod
    def fit(self, data: Any, *, key: PRNGKeyArray) -> Self:
        """A fitted copy, with the record of its training in `.report`."""

    @abc.abstractmethod
    def infer(self, observed: Any = None, *, prior: Any = None, key: PRNGKeyArray | None = None) -> Any:
        """What the estimator knows once it has seen `observed`: a distribution, or draws.

        - `prior`: another prior than the one it was fitted with, where the estimator takes one.
        - `key`: needed only by estimators that infer at random.
        """
