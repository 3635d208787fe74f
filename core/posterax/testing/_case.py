"""Case: how a component of its own kind is to be tried, where the kit's own problems do not fit it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from ._joint import JointModel


class SamplerCase(eqx.Module):
    """A sampler with a problem of its own, where it does not take every `Target`.

    - `component`: a small instance.
    - `joint`: what is sampled and what is observed, drawn together; `joint.target(observed)` is what the sampler takes.
      A `quantities` method picks the scalars whose law is compared. A population sampler is tested by a
      `posterior_ranks(values, observed)`, names and independent uniforms `(..., k)` where values are posterior draws,
      and a `log_evidence(observed)`.
    """

    component: Any
    joint: JointModel


class EstimatorCase(eqx.Module):
    """An estimator with a problem of its own.

    - `component`: a small instance.
    - `joint`: what is inferred and what is observed, drawn together. A `quantities` method or function picks scalars.
    - `fit`: function of (component, joint, key), the fitted estimator; None where the tags say how.
    - `infer`: function of (fitted, observed, key), the distribution or draws of the parameter; None for
      `fitted.infer(observed, key=key)`.

    The parameter of `joint` may be any quantity: a prediction, a missing part of a row.
    """

    component: Any
    joint: JointModel
    fit: Callable | None = None
    infer: Callable | None = None


class ObjectiveCase(eqx.Module):
    """An objective with a model and data of its own.

    - `component`: the objective.
    - `model`: a PyTree; for a "proper" objective, the truth that `batch` simulates from.
    - `batch`: function of a key, one batch.
    - `exact`: function of (model, batch), what a "stochastic" loss is on average; None where it is not known.
    - `optimum`: function of the model, the arrays of it in which the truth is a minimum; None for all its float arrays.
    """

    component: Any
    model: Any
    batch: Callable
    exact: Callable | None = None
    optimum: Callable | None = None
