"""A regression's settings checked, and its results brought to the forms that callers expect."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from posterax import PosteraxWarning

from ._data import num_distinct
from ._kernel import Kernel, check_positive
from ._parameters import LEARNABLE
from ._scale_prior import mean_is_infinite


def check_settings(model: Any) -> None:
    """Raises `TypeError` or `ValueError` for settings that do not go together."""
    if not isinstance(model.kernel, Kernel):
        raise TypeError(f"`kernel` must be a kernel, such as MLPKernel(depth=3); got {model.kernel!r}.")
    if not (isinstance(model.candidates, tuple) and all(isinstance(one, Kernel) for one in model.candidates)):
        raise TypeError(f"`candidates` must be a tuple of kernels; got {model.candidates!r}.")
    check_positive("noise", model.noise, zero=True)
    for name, allowed in (("noise_model", ("tied", "free")), ("method", ("auto", "importance"))):
        if getattr(model, name) not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {getattr(model, name)!r}.")
    if isinstance(model.learn, str) or not set(model.learn) <= set(LEARNABLE):
        raise ValueError(
            f"`learn` must be a tuple with some of {', '.join(map(repr, LEARNABLE))}; got {model.learn!r}."
        )
    for name in ("max_steps", "screening_steps", "num_starts", "num_draws"):
        if getattr(model, name) < 1:
            raise ValueError(f"`{name}` must be at least 1; got {getattr(model, name)!r}.")
    if model.num_inducing is not None and (model.num_inducing < 1 or model.noise_model == "free"):
        raise ValueError(
            "`num_inducing` must be at least 1, and noise tied: with free noise only exact inference is there."
        )
    if model.method == "importance" and model.noise_model == "free":
        raise ValueError('`method` "importance" needs tied noise: given s, free noise has no closed form to weigh by.')


_VANISHING = 1e-6  # of the outputs' variance: less noise than that is none


def unbounded_evidence(x: np.ndarray, y: np.ndarray, noise: float) -> list[str]:
    """Warns, and says in words, where copied rows have driven a noise that was learnt to zero.

    Rows that agree in x and y add the logarithm of one over the noise to twice the log evidence, each; only rows of
    equal x and another y speak against it.

    - `x`, `y`: `(n, ...)` and `(n, m)`. `noise`: its variance, in the units of `y`.
    """
    if noise > _VANISHING * np.mean(np.var(y, axis=0)):
        return []
    num_rows = num_distinct(x, y)
    if num_rows == len(x) or num_rows > num_distinct(x):
        return []
    words = (
        f"the evidence has no maximum: {len(x) - num_rows} rows of (x, y) are copies of others, none of them "
        "contradicted, and it grows without bound as the noise falls. Densities at inputs that were seen before mean "
        'nothing then. Drop the copies, or leave "noise" out of `learn`'
    )
    warnings.warn(f"{words[0].upper()}{words[1:]}.", PosteraxWarning, stacklevel=6)
    return [words]


def remarks(record: dict, prior: dist.Distribution) -> list[str]:
    """What is worth knowing about a fit, in words."""
    notes = []
    if record["jitter"] > 0:
        notes.append(f"the Gram matrix needed a jitter of {record['jitter']:.0e} of its diagonal")
    if mean_is_infinite(prior):
        notes.append("the scale prior has an infinite mean: outputs have no prior variance (their laws are proper)")
    return notes


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record of Python's numbers."""
    return {
        name: float(value) if isinstance(value, (jax.Array, np.generic)) else value for name, value in record.items()
    }


def to_host(tree: Any) -> Any:
    """Arrays of float64 as NumPy arrays, which keep their digits in a float32 program."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def to_caller(tree: Any) -> Any:
    """Arrays in the precision the caller works in."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf, tree)
