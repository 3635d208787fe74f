"""Sampler and PopulationSampler: what draws from a target."""

import abc
from typing import Any, ClassVar, Self

import equinox as eqx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree


class Sampler(eqx.Module):
    """Moves one chain so that its position tends to the target's distribution.

    Settings live in the sampler, all that evolves in a state made by `init`: a PyTree of arrays, without keys. Write
    for one chain and one point; `posterax.sample` owns the loop, chains, devices, progress, interruption and
    checkpoints. A step's `info` is a NamedTuple or Module of arrays that only informs: its fields become the sample
    statistics of the result, under the names that ArviZ knows (`diverging`, `acceptance_rate`, `energy`, `lp`, ...).

    - `num_warmup`: how many first steps adapt. `sample` drops them; after them the transition must not change any more,
      or the draws have another distribution than the target's.
    - `precision`: 64 where the sampler needs float64, else None.
    - `host`: True where `step` must talk to the outside world; then it is called from Python, untraced.
    """

    num_warmup: eqx.AbstractVar[int]
    precision: ClassVar[int | None] = None
    host: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, target: Any, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree:
        """The state that starts at `position`, a point of unconstrained space where the log density is finite."""

    @abc.abstractmethod
    def step(self, target: Any, state: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """One transition: the next state, and what is worth knowing about the move."""

    @abc.abstractmethod
    def position(self, state: PyTree) -> PyTree[Array]:
        """Where the chain is, in unconstrained space."""

    def log_density(self, state: PyTree) -> Float[Array, ""] | None:
        """The target's log density of unconstrained space at the position, where the state has it at hand.

        None, unless overridden: `sample` then evaluates the target once more at each draw.
        """
        del state

    def frozen(self, states: PyTree) -> Self:
        """The same sampler with what warmed-up chains have learned fixed for good, and no warm-up of its own.

        - `states`: the states of all chains after warm-up, stacked along a leading axis.
        """
        if self.num_warmup == 0:
            return self
        raise NotImplementedError(
            f"{type(self).__name__} adapts for {self.num_warmup} steps and does not say how to freeze what it has "
            "learned. Its author should write `frozen`."
        )


class PopulationSampler(eqx.Module):
    """Turns a target into one weighted population: sequential Monte Carlo, importance sampling, particle filters.

    `posterax.sample` runs independent populations as the chains of its result, their particles as the draws. `info`,
    `precision` and `host` are as in `Sampler`; statistics have one entry a step.

    - `lockstep`: True where all populations of one target are done after the same number of steps. Then no finished one
      has to be kept as it is while others go on, which costs a copy of the whole state at every step.
    """

    precision: ClassVar[int | None] = None
    host: ClassVar[bool] = False
    lockstep: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, target: Any, *, key: PRNGKeyArray) -> PyTree:
        """The first population. `target` is a `Target`, or what the sampler says it takes."""

    @abc.abstractmethod
    def step(self, target: Any, state: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Any]:
        """The next population, and what is worth knowing about the step."""

    def first_info(self, state: PyTree) -> Any:
        """What is worth knowing of the first population, under the names of a step's `info`.

        None, unless overridden: statistics then begin with the first step.
        """
        del state

    @property
    def no_evidence(self) -> str | None:
        """Why these settings give no estimate of the evidence, in words for the result; None where they give one."""
        return None

    @abc.abstractmethod
    def done(self, state: PyTree) -> Bool[Array, ""]:
        """Whether the population is the final one; no step follows."""

    @abc.abstractmethod
    def population(self, state: PyTree) -> tuple[PyTree[Array], Float[Array, " n"], Float[Array, ""] | None]:
        """Positions with leading axis n, their log-weights (any constant may be added), and the log evidence.

        The log evidence is None where the method cannot give an unbiased estimate of the evidence.
        """
