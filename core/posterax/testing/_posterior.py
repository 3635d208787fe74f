"""What an estimator's answer says of the parameter: draws by name, and log densities."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

from .._draws import Draws
from .._errors import PosteraxError
from ._joint import JointModel


def draws_of(answer: Any, like: Mapping[str, Any], num: int, *, key) -> tuple[dict[str, Any], Any]:
    """`num` draws by name, `(num, *shape)`, and their log densities `(num,)`, None where the answer is Draws.

    - `answer`: a distribution of the parameter's array, of a dict of its arrays, or of all of them flattened; or Draws.
    - `like`: the parameter's shapes, by name.

    Raises `ValueError` for an answer of another form.
    """
    if isinstance(answer, Draws):
        return {name: value[0] for name, value in answer.resample(num, key=key).values.items() if name in like}, None
    for method in ("sample", "log_prob"):
        if not callable(getattr(answer, method, None)):
            raise ValueError(f"`infer` gave {type(answer).__name__} without `{method}`; expected a distribution or Draws.")
    raw = answer.sample(key, (num,))
    log_q = answer.log_prob(raw)
    if jnp.shape(log_q) != (num,):
        raise ValueError(f"`log_prob` of {num} draws has shape {jnp.shape(log_q)}; expected ({num},). Use `.to_event()`.")
    return _named(raw, like, num), log_q


def _named(raw: Any, like: Mapping[str, Any], num: int) -> dict[str, Any]:
    shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in like.items()}
    if isinstance(raw, Mapping):
        lacking = sorted(set(shapes) - set(raw))
        if lacking:
            raise ValueError(f"draws of {sorted(raw)}; {lacking} of the parameter is missing.")
        found = {name: raw[name] for name in shapes}
    elif len(shapes) == 1 and jnp.shape(raw) == (num, *next(iter(shapes.values()))):
        found = {next(iter(shapes)): raw}
    else:
        _, unravel = ravel_pytree({name: jnp.zeros(shape) for name, shape in shapes.items()})
        size = sum(int(np.prod(shape)) for shape in shapes.values())
        if jnp.shape(raw) != (num, size):
            raise ValueError(f"draws of shape {jnp.shape(raw)[1:]}; the parameter has {shapes}.")
        found = jax.vmap(unravel)(raw)
    odd = {n: jnp.shape(x) for n, x in found.items() if jnp.shape(x) != (num, *shapes[n])}
    if odd:
        raise ValueError(f"draws of shapes {odd} where the parameter has {shapes} and {num} draws were asked for.")
    return dict(found)


class Asking(eqx.Module):
    """How an estimator is asked: `__call__(fitted, observed, key)` gives its answer.

    - `by`: the example's own function of the same three, if it has one.
    - `target_of`: the joint whose target is fitted for each data set; None where `infer` takes the observations.
    """

    by: Callable | None = None
    target_of: JointModel | None = None

    def __call__(self, known: Any, observed: Any, key: Any) -> Any:
        """The distribution or draws of the parameter given `observed`."""
        if self.by is not None:
            return self.by(known, observed, key)
        if self.target_of is not None:
            key_fit, key = jr.split(key)
            return known.fit(self.target_of.target(observed), key=key_fit).infer(key=key)
        return known.infer(observed, key=key)


def many(asking: Asking, known: Any, parameter: Any, observed: Any, num: int, *, key) -> tuple[dict, Any, Any]:
    """Draws for each of several stacked observations, `(s, num, *shape)`, side by side where the estimator allows it.

    - `parameter`: the truths `(s, *shape)`.

    Also gives the log densities of the draws, `(s, num)`, and of the truths, `(s,)`; None where there are none. One that
    cannot be traced is asked one by one, for the first 200 only.
    """
    keys = jr.split(key, len(jax.tree.leaves(observed)[0]))
    if asking.target_of is None:
        try:
            return _side_by_side(asking, known, parameter, observed, keys, num)
        except (PosteraxError, ValueError):
            raise
        except Exception:  # it branches on values, or leaves JAX
            pass
    pick = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)  # noqa: E731
    rows = [_one(asking, known, pick(parameter, i), pick(observed, i), key, num) for i, key in enumerate(keys[:200])]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@eqx.filter_jit
def _side_by_side(asking, known, parameter, observed, keys, num: int):
    return jax.vmap(lambda p, y, k: _one(asking, known, p, y, k, num))(parameter, observed, keys)


def _one(asking, known, parameter, observed, key, num: int):
    key_infer, key_draw = jr.split(key)
    answer = asking(known, observed, key_infer)
    values, log_q = draws_of(answer, parameter, num, key=key_draw)
    return values, log_q, None if log_q is None else log_density_of(answer, parameter)


def log_density_of(answer: Any, parameter: Mapping[str, Any]) -> Any:
    """The log density that a distribution gives to one parameter."""
    form = jax.eval_shape(lambda key: answer.sample(key, ()), jr.key(0))
    if isinstance(form, Mapping):
        return answer.log_prob(dict(parameter))
    if len(parameter) == 1 and form.shape == jnp.shape(next(iter(parameter.values()))):
        return answer.log_prob(next(iter(parameter.values())))
    return answer.log_prob(ravel_pytree(dict(parameter))[0])
