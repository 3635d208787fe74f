"""Energies: discrete laws known up to a constant, as functions or NumPyro models."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.special import logsumexp

from ._validation import check_num_values

_PROBES = 4096


class Energy(eqx.Module):
    """A discrete law known up to a constant: log f of an assignment.

    - `log_weight`: function of `(D,)` integers, the d-th of them in 0, ..., K_d - 1; one number, in nats. -inf where an
      assignment is impossible.
    - `num_values`: K_d of each variable. `names`: of the variables; x0, x1, ... by default.
    - `values`: what the integers stand for, variable by variable; the integers themselves by default.
    - `impossible`: what stands for -inf in training, nats below the highest log weight of random assignments.
    """

    log_weight: Callable[[Int[Array, " D"]], Any]
    num_values: tuple[int, ...] = eqx.field(static=True)
    names: tuple[str, ...] | None = eqx.field(static=True, default=None)
    values: tuple[tuple, ...] | None = eqx.field(static=True, default=None)
    impossible: float = eqx.field(static=True, default=-30.0)

    def __check_init__(self):
        if not callable(self.log_weight):
            raise TypeError(f"`log_weight` must be a function of an assignment; got {type(self.log_weight).__name__}.")
        check_num_values(self.num_values)
        for field in ("names", "values"):
            given = getattr(self, field)
            if given is not None and len(given) != len(self.num_values):
                raise ValueError(f"`{field}` must have one entry a variable, {len(self.num_values)}; got {len(given)}.")
        if not self.impossible < 0:
            raise ValueError(f"`impossible` must be negative; got {self.impossible!r}.")

    def __call__(self, x: Int[Array, "B D"]) -> Float[Array, " B"]:
        """Log weights of rows, in nats."""
        return jax.vmap(lambda one: jnp.asarray(self.log_weight(one), jnp.float32))(x)

    def random(self, num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
        """Assignments drawn uniformly."""
        return random_assignments(self.num_values, num, key=key)

    def probe(self, *, key: PRNGKeyArray) -> tuple[float, float]:
        """A first guess of log Z, and the log weight that stands for -inf; of random assignments.

        Raises `TypeError` for a function that JAX cannot trace or whose value is no number, and `ValueError` for one
        that is NaN or +inf, or -inf everywhere.
        """
        shape = jax.ShapeDtypeStruct((len(self.num_values),), jnp.int32)
        try:
            found = jax.eval_shape(self.log_weight, shape)
        except Exception as error:  # whatever the function does
            raise TypeError(
                f"`log_weight` cannot be traced by JAX ({type(error).__name__}: {str(error).splitlines()[0]}). Write "
                "it with jax.numpy, without `if` on values and without NumPy or float() of them."
            ) from error
        if getattr(found, "shape", None) != ():
            raise TypeError(f"`log_weight` must give one number; got {getattr(found, 'shape', type(found).__name__)}.")
        x = self.random(_PROBES, key=key)
        logs = np.asarray(log_weights(self, x), float)
        if (bad := np.isnan(logs) | (logs == np.inf)).any():
            row = np.asarray(x)[bad][0].tolist()
            raise ValueError(
                f"`log_weight` is {logs[bad][0]} at {row}, and not finite at {bad.sum()} of {len(x)} random "
                "assignments. It must be a number, or -inf where an assignment is impossible."
            )
        if not np.isfinite(logs).any():
            raise ValueError(
                f"`log_weight` is -inf at all of {len(x)} random assignments: there is nothing to start from. Leave "
                "out what is impossible, or give it a low weight instead."
            )
        guess = logsumexp(logs) - np.log(len(logs)) + np.log(self.num_values).sum()
        return float(guess), float(logs.max() + self.impossible)

    @staticmethod
    def from_numpyro(model: Callable, *args: Any, seed: int = 0, **kwargs: Any) -> "Energy":
        """The discrete sites of a NumPyro model, given its data: log f is the log joint density.

        - `args`, `kwargs`: of the model, data among them. Sites whose support is finite are the variables; every
          entry of an array is one of its own, named site[i].

        Raises `ValueError` where a site that is not observed is continuous or has infinitely many values.
        """
        from numpyro.handlers import seed as seeded
        from numpyro.handlers import trace
        from numpyro.infer.util import log_density

        sites = trace(seeded(model, jr.key(seed))).get_trace(*args, **kwargs)
        places: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for name, site in sites.items():
            if site["type"] == "sample" and not site["is_observed"]:
                places[name] = (np.shape(site["value"]), *_range_of(name, site["fn"]))
        if not places:
            raise ValueError("The model has no discrete site that is not observed: there is nothing to learn.")
        names, values = [], []
        for name, (shape, low, count) in places.items():
            labels = [name] if not shape else [f"{name}[{','.join(map(str, at))}]" for at in np.ndindex(*shape)]
            names += labels
            values += [tuple(range(low, low + count))] * len(labels)

        def log_weight(x: Int[Array, " D"]) -> Array:
            at, given = 0, {}
            for name, (shape, low, _) in places.items():
                size = int(np.prod(shape, dtype=int))
                given[name] = x[at : at + size].reshape(shape) + low
                at += size
            return jnp.asarray(log_density(model, args, kwargs, given)[0])

        return Energy(log_weight, tuple(map(len, values)), tuple(names), tuple(values))


@eqx.filter_jit
def log_weights(energy: Energy, x: Int[Array, "B D"]) -> Float[Array, " B"]:
    """Log f of rows, compiled once for an energy."""
    return energy(x)


def random_assignments(num_values: tuple[int, ...], num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
    """Assignments drawn uniformly."""
    return jr.randint(key, (num, len(num_values)), 0, np.array(num_values))


def scrambled(
    x: Int[Array, "B D"], num_values: tuple[int, ...], share: float | Array, *, key: PRNGKeyArray
) -> Int[Array, "B D"]:
    """A share of the rows with a random part of their values drawn uniformly: of none up to all of them."""
    one, two, three = jr.split(key, 3)
    mixed = jnp.arange(len(x)) < share * len(x)
    part = jr.uniform(one, x.shape) < jr.uniform(two, (len(x), 1))
    return jnp.where(mixed[:, None] & part, random_assignments(num_values, len(x), key=three), x)


def _range_of(name: str, law: Any) -> tuple[int, int]:
    """The lowest value of a site and how many there are."""
    from numpyro.distributions import constraints

    support: Any = law.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is constraints.boolean:
        return 0, 2
    low, high = (getattr(support, end, None) for end in ("lower_bound", "upper_bound"))
    if not law.is_discrete or low is None or high is None:
        raise ValueError(
            f"Site {name!r} is {'discrete without a largest value' if law.is_discrete else 'continuous'}; only sites "
            "with finitely many values can be variables. Observe it, or condition the model on a value."
        )
    lows, highs = np.unique(np.asarray(low)), np.unique(np.asarray(high))
    if lows.size > 1 or highs.size > 1:
        raise ValueError(f"The entries of site {name!r} have different ranges of values. Make them sites of their own.")
    return int(lows[0]), int(highs[0]) - int(lows[0]) + 1
