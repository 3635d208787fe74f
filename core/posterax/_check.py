"""What can be wrong with a target, found before sampling and said in words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ._tree import by_name

_TRIES = 32


def problems(target, key: PRNGKeyArray) -> list[str]:
    """The problems of `target` at random positions, in words; an empty list if none is found."""
    look = eqx.filter_jit(lambda target, keys: jax.vmap(lambda k: _look(target, k))(keys))
    try:
        seen = jax.tree.map(np.asarray, look(target, jr.split(key, _TRIES)))
    except Exception as error:
        error.add_note("posterax met this while evaluating the target at a random position (Target.check).")
        raise
    found = []
    finite = np.isfinite(seen["log_density"])
    if not finite.all():
        found.append(_not_finite(seen, finite))
    if finite.any():
        found += _gradients(seen, finite)
    found += _round_trip(seen)
    return found


def _look(target, key) -> dict:
    u = target.initial(key=key)
    value, gradient = jax.value_and_grad(target.log_density)(u)
    terms = target.density.terms(u)
    return {
        "u": by_name(u),
        "values": terms.values,
        "log_density": value,
        "log_prior": jnp.nan if terms.log_prior is None else jnp.asarray(terms.log_prior),
        "pointwise": {name: jnp.ravel(term) for name, term in terms.pointwise.items()},
        "gradient": by_name(gradient),
        "returned": by_name(target.unconstrain(terms.values)),
    }


def _not_finite(seen: dict, finite: np.ndarray) -> str:
    bad = int(np.flatnonzero(~finite)[0])
    text = (
        f"The log density is not finite at {np.sum(~finite)} of {_TRIES} random positions: it is "
        f"{seen['log_density'][bad]} at {describe(seen['values'], bad)}."
    )
    for site, terms in seen["pointwise"].items():
        where = np.flatnonzero(~np.isfinite(terms[bad]))
        if where.size:
            return (
                f"{text} The observed site {site!r} is the cause: {where.size} of its {terms.shape[1]} terms are not "
                f"finite, the first at index {where[0]}. Look for missing values in the data, or for data outside the "
                "distribution's support."
            )
    if not np.isfinite(seen["log_prior"][bad]) and np.isfinite(seen["log_prior"]).any():
        return f"{text} The prior is the cause. Look at its support and scales."
    return f"{text} Look for log or sqrt of a negative number, a division by zero, or a support that is not declared."


def _gradients(seen: dict, finite: np.ndarray) -> list[str]:
    found = []
    for name, gradient in seen["gradient"].items():
        rows = gradient.reshape(_TRIES, -1)[finite]
        wrong = ~np.isfinite(rows).all(axis=1)
        if wrong.any():
            at = int(np.flatnonzero(finite)[np.flatnonzero(wrong)[0]])
            found.append(
                f"The gradient with respect to {name!r} is not finite at {wrong.sum()} positions where the log density "
                f"is, for instance at {describe(seen['values'], at)}. A `jnp.where` whose other branch is not finite, "
                "or sqrt and abs at zero, do this: make both branches finite."
            )
        elif (rows == 0).all():
            found.append(
                f"The gradient with respect to {name!r} is zero everywhere: the log density does not depend on it, or "
                "depends on it through rounding, comparison or `stop_gradient`. Remove it, or use a sampler that needs "
                "no gradient."
            )
    return found


def _round_trip(seen: dict) -> list[str]:
    found = []
    for name, u in seen["u"].items():
        back = seen["returned"][name]
        tolerance = 1e3 * np.finfo(u.dtype).eps * (1 + np.abs(u))
        wrong = ~(np.abs(u - back) <= tolerance)
        if wrong.any():
            i = tuple(np.argwhere(wrong)[0])
            found.append(
                f"The bijection of {name!r} does not round-trip: the unconstrained {u[i]:.6g} comes back as "
                f"{back[i]:.6g} after constrain and unconstrain. Check `support`."
            )
    return found


def describe(values: PyTree, index: int | tuple | None = None) -> str:
    """A point in a few words: names and rounded numbers, long arrays cut."""
    parts = []
    for name, value in values.items():
        array = np.asarray(value if index is None else value[index])
        flat = ", ".join(f"{entry:.4g}" for entry in array.ravel()[:4])
        parts.append(f"{name}={flat}" if array.ndim == 0 else f"{name}=[{flat}{', ...' if array.size > 4 else ''}]")
    return ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
