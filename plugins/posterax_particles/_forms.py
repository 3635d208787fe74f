"""Ways to filter a state-space model: by its own moves, by guided ones, with an eye on what comes next."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree
from posterax._tree import as_data

from ._feynman_kac import FeynmanKac
from ._state_space import StateSpaceModel, drawn, listed, log_emission, total


class Bootstrap(FeynmanKac):
    """Filter by the model's own moves: particles follow the transition, the emission weights them.

    - `model`: a `StateSpaceModel`.
    - `observed`: observations with a leading axis of time, an array or a PyTree of arrays. NaN is missing: a whole
      observation of any law, or single entries where the emission has independent ones.

    Raises `ValueError` for no observation, or for arrays of different length.
    """

    model: StateSpaceModel
    observed: PyTree[Array] = eqx.field(converter=lambda observed: as_data(observed, "observed"))

    def __check_init__(self):
        check_observed(self.observed)
        _check_emission(self)

    @property
    def num_steps(self) -> int:
        """The number of observations."""
        return np.shape(jax.tree.leaves(self.observed)[0])[0]

    def start(self, *, key):
        """Drawn from the initial law."""
        return self.model.initial().sample(key)

    def moves(self, t, before, *, key):
        """Drawn together, from the transition."""
        return drawn(lambda x: self.model.transition(t, x), before, key=key)

    def choices(self, t, before):
        """All values of the transition, or of the initial law, where it has finitely many."""
        return listed(self.model.initial() if before is None else self.model.transition(t, before))

    def log_start(self, x):
        """Log density of the first observation."""
        return self._log_emission(0, x)

    def move(self, t, before, *, key):
        """Drawn from the transition."""
        return self.model.transition(t, before).sample(key)

    def log_potential(self, t, before, x):
        """Log density of the observation."""
        return self._log_emission(t, x)

    def log_transition(self, t, before, x):
        """Log density of the transition: the observation does not depend on where the state came from."""
        return total(self.model.transition(t, before), x)

    def _log_emission(self, t, x):
        return log_emission(self.model.emission(jnp.asarray(t), x), self.at(t))

    def at(self, t) -> PyTree[Array]:
        """The observation at time t."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[t], self.observed)


class Proposal(eqx.Module):
    """Where a guided filter moves its particles: laws of the state that may look at the observation.

    Each must be able to reach every state that the model can reach, and have a density (`log_prob`).
    """

    @abc.abstractmethod
    def initial(self, observed: PyTree[Array]) -> Any:
        """The law of the first state given the first observation."""

    @abc.abstractmethod
    def transition(self, t: Array, x: PyTree[Array], observed: PyTree[Array]) -> Any:
        """The law of the state at time t >= 1, given the state x before and the observation at time t."""


class Guided(Bootstrap):
    """Filter by moves that look at the observation, and weight by model over proposal.

    - `model`, `observed`: as in `Bootstrap`. What is missing reaches the proposal as NaN.
    - `proposal`: a `Proposal`.

    Source: Doucet, Godsill and Andrieu (2000), doi:10.1023/A:1008935410038.
    """

    proposal: Proposal

    def start(self, *, key):
        """Drawn from the proposal."""
        return self.proposal.initial(self.at(0)).sample(key)

    def moves(self, t, before, *, key):
        """Drawn together, from the proposal."""
        return drawn(lambda x: self.proposal.transition(t, x, self.at(t)), before, key=key)

    def choices(self, t, before):
        """All values of the proposal, where it has finitely many."""
        seen = self.at(t)
        return listed(self.proposal.initial(seen) if before is None else self.proposal.transition(t, before, seen))

    def log_start(self, x):
        """Log of prior times likelihood over proposal."""
        proposed = total(self.proposal.initial(self.at(0)), x)
        return total(self.model.initial(), x) + self._log_emission(0, x) - proposed

    def move(self, t, before, *, key):
        """Drawn from the proposal."""
        return self.proposal.transition(t, before, self.at(t)).sample(key)

    def log_potential(self, t, before, x):
        """Log of transition times likelihood over proposal."""
        proposed = total(self.proposal.transition(t, before, self.at(t)), x)
        return total(self.model.transition(t, before), x) + self._log_emission(t, x) - proposed


class Auxiliary(FeynmanKac):
    """Another model's filter that draws ancestors with an eye on the next observation: the auxiliary particle filter.

    Where the guess is exact and the proposal optimal, the filter is fully adapted: all weights are equal.

    - `base`: the `FeynmanKac` model.
    - `ahead`: function of (t, x), the log of a guess of how well a particle at time t explains what comes at t + 1.

    Source: Pitt and Shephard (1999), doi:10.1080/01621459.1999.10474153.
    """

    base: FeynmanKac
    ahead: Callable

    @property
    def num_steps(self) -> int:
        """That of `base`."""
        return self.base.num_steps

    def start(self, *, key):
        """That of `base`."""
        return self.base.start(key=key)

    def moves(self, t, before, *, key):
        """Those of `base`."""
        return self.base.moves(t, before, key=key)

    def choices(self, t, before):
        """Those of `base`."""
        return self.base.choices(t, before)

    def log_start(self, x):
        """That of `base`."""
        return self.base.log_start(x)

    def move(self, t, before, *, key):
        """That of `base`."""
        return self.base.move(t, before, key=key)

    def log_potential(self, t, before, x):
        """That of `base`."""
        return self.base.log_potential(t, before, x)

    def log_transition(self, t, before, x):
        """That of `base`."""
        return self.base.log_transition(t, before, x)

    def log_ahead(self, t, x):
        """The guess."""
        return self.ahead(t, x)


def check_observed(observed: PyTree) -> None:
    """Raise `ValueError` unless all arrays have one leading axis of time, of one length above 0."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(observed)]
    if not shapes or any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"`observed` must have one leading axis of time, the same for all its arrays; got shapes {shapes}."
        )


def _check_emission(model: Bootstrap) -> None:
    """Raise `ValueError` where observations have not the shape of the emission, or miss what cannot be missed alone."""
    if not hasattr(model.observed, "ndim"):
        return

    def shapes(key):
        x = model.model.initial().sample(key)
        law = model.model.emission(jnp.asarray(0), x)
        return law.sample(key)

    expected = jax.eval_shape(shapes, jr.key(0)).shape
    if expected != model.observed.shape[1:]:
        raise ValueError(
            f"`observed` must have shape ({', '.join(['time', *map(str, expected)])}), as the model's emission draws "
            f"observations of shape {expected}; got {model.observed.shape}."
        )
    values = model.observed
    if isinstance(values, Tracer) or values.dtype.kind != "f" or not (absent := np.isnan(np.asarray(values))).any():
        return
    law = jax.eval_shape(lambda key: model.model.emission(jnp.asarray(0), model.model.initial().sample(key)), jr.key(0))
    event = len(law.event_shape)
    torn = absent.any(axis=tuple(range(-event, 0))) & ~absent.all(axis=tuple(range(-event, 0)))
    if torn.any():
        raise ValueError(
            f"`observed` lacks single entries (NaN) at time {int(np.argwhere(torn)[0][0])}, of an emission "
            f"({type(law).__name__}) whose entries belong together. Make the whole observation NaN, or let the "
            "emission have independent entries (a distribution with batch axes)."
        )
