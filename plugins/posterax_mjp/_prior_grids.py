"""When paths are looked at, and how often labels are wrong."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class GridPrior(eqx.Module):
    """A law of observation times, on `num_points` equally spaced ones from 0 to the horizon.

    - `num_points`: of the finest grid.
    """

    num_points: int = eqx.field(static=True, default=100)

    @abc.abstractmethod
    def sample(self, num_paths: int, *, key: PRNGKeyArray) -> Bool[Array, "K L"]:
        """Which points of the finest grid each path is seen at."""

    def times(self, horizon: float) -> Float[np.ndarray, " L"]:
        """The finest grid."""
        return np.linspace(0.0, horizon, self.num_points)


class RegularGrid(GridPrior):
    """Every s-th point, the same for all paths; s is drawn from `strides`.

    Source: Berghaus et al. (2024), arXiv:2406.06419, measured on their matrices and configurations.
    """

    strides: tuple[int, ...] = eqx.field(static=True, default=(1, 2, 3, 4))

    def sample(self, num_paths: int, *, key: PRNGKeyArray) -> Bool[Array, "K L"]:
        """See `GridPrior`."""
        stride = jnp.asarray(self.strides)[jr.randint(key, (), 0, len(self.strides))]
        return jnp.broadcast_to(jnp.arange(self.num_points) % stride == 0, (num_paths, self.num_points))


class IrregularGrid(GridPrior):
    """Each point with a probability drawn from `probs` for the process, independently for each path."""

    probs: tuple[float, ...] = eqx.field(static=True, default=(0.25, 0.5))

    def sample(self, num_paths: int, *, key: PRNGKeyArray) -> Bool[Array, "K L"]:
        """See `GridPrior`."""
        one, two = jr.split(key)
        prob = jnp.asarray(self.probs)[jr.randint(one, (), 0, len(self.probs))]
        return jr.bernoulli(two, prob, (num_paths, self.num_points))


class MixedGrid(GridPrior):
    """One of several laws of grids, all with as many points; equally probable."""

    choices: tuple[GridPrior, ...] = (RegularGrid(), IrregularGrid())

    def __check_init__(self):
        if any(choice.num_points != self.num_points for choice in self.choices):
            raise ValueError(f"All `choices` must have `num_points` {self.num_points}.")

    def sample(self, num_paths: int, *, key: PRNGKeyArray) -> Bool[Array, "K L"]:
        """See `GridPrior`."""
        one, two = jr.split(key)
        each = jnp.stack([choice.sample(num_paths, key=two) for choice in self.choices])
        return each[jr.randint(one, (), 0, len(self.choices))]


class LabelFlips(eqx.Module):
    """Labels are replaced by a uniformly random other one, with a probability of the process.

    - `probs`: from which that is drawn.
    """

    probs: tuple[float, ...] = eqx.field(static=True, default=(0.0, 0.01, 0.1))

    def __check_init__(self):
        if not self.probs or any(not 0 <= p < 1 for p in self.probs):
            raise ValueError(f"`probs` must lie in [0, 1); got {self.probs}.")

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """The probability of a process."""
        return jnp.asarray(self.probs, jnp.result_type(float))[jr.randint(key, (), 0, len(self.probs))]

    @staticmethod
    def flipped(
        states: Int[Array, "*B"], num_states: int, prob: Float[Array, ""], *, key: PRNGKeyArray
    ) -> Int[Array, "*B"]:
        """Labels of these states."""
        one, two = jr.split(key)
        shift = jr.randint(two, states.shape, 1, num_states)
        return jnp.where(jr.bernoulli(one, prob, states.shape), (states + shift) % num_states, states)
