"""What `sbc` and `coverage` share: simulate, ask the method, bring its answer into one form. Each data set once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._draws import Draws
from .._errors import PosteraxError, SamplingError
from .._estimator import Estimator
from .._keys import check_key, named, numbered
from .._plan import Plan
from .._precision import precision
from .._progress import Progress
from .._sample import merged, sample
from .._sampler import PopulationSampler, Sampler
from ._answers import Answer, as_answer, worth
from ._joint import JointModel
from ._notes import Notes

Method = Sampler | PopulationSampler | Estimator | Callable[[Any, PRNGKeyArray], Any]
_AT_ONCE = 2**17  # draws held together
_LONGEST = 32  # draws of a sampler for each that is kept, at most


class Round(NamedTuple):
    """Some simulated pairs with the method's draws; leading axes n (simulation) and L (draw)."""

    parameter: dict[str, Array]  # (n, *event)
    observed: PyTree  # (n, ...)
    draws: dict[str, Array]  # (n, L, *event)
    log_weights: Array | None  # (n, L); None where all weigh the same
    log_q: Array | None  # (n, L), the method's log density of its draws
    log_q_true: Array | None  # (n,), and of the parameter


def over_simulations(
    method: Any,
    joint: JointModel,
    reduce: Callable[[Round, Array], dict[str, np.ndarray]],
    *,
    num_simulations: int,
    num_draws: int,
    key: PRNGKeyArray,
    progress: bool | None,
    title: str,
) -> dict[str, np.ndarray]:
    """Simulate, infer, and join what `reduce` makes of each round and its keys: arrays by name, with leading axis n.

    Simulation i has a key of its own, so that its numbers do not depend on how many there are, or on the rounds.
    """
    key = check_key(key, title)
    _check(method, joint, num_simulations, num_draws)
    ask = _Chains(method, num_draws) if isinstance(method, (Sampler, PopulationSampler)) else method
    size = min(num_simulations, max(1, _AT_ONCE // num_draws))
    keys = numbered(key, -(-num_simulations // size) * size)  # whole rounds: nothing compiles anew for the last
    bits = merged(Plan(), method).precision if isinstance(method, (Sampler, PopulationSampler, Estimator)) else None
    found, notes = [], Notes(num_draws)
    with precision(bits), Progress(progress, num_simulations, title) as bar:
        asker = _Asker(ask, joint, num_draws, notes, bar)
        for start in range(0, num_simulations, size):
            stop = min(start + size, num_simulations)
            made = asker(keys[start : start + size], start, stop)
            _require_finite(made, start)
            found.append(reduce(made, keys[start:stop]))
    notes.warn(title)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _check(method: Any, joint: Any, num_simulations: Any, num_draws: Any) -> None:
    for name, number in (("num_simulations", num_simulations), ("num_draws", num_draws)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1; got {number!r}.")
    if not isinstance(joint, JointModel):
        raise TypeError(
            f"`joint` must be a JointModel; got {type(joint).__name__}. Make one with JointModel(prior, simulator, "
            "posterior) or JointModel.from_numpyro(model, ..., observed='y')."
        )
    if isinstance(method, type) or not (
        isinstance(method, (Sampler, PopulationSampler, Estimator)) or callable(method)
    ):
        came = f"the class {method.__name__} itself" if isinstance(method, type) else type(method).__name__
        raise TypeError(
            "`method` must be a Sampler, a PopulationSampler, a fitted Estimator or a function of (observed, key) that "
            f"returns a distribution or draws; got {came}."
        )
    if isinstance(method, (Sampler, PopulationSampler)) and joint.posterior is None:
        raise ValueError(
            f"`joint` has no `posterior`, and {type(method).__name__} needs a density to sample. Give JointModel a "
            "function of the observations that returns a Target, or test an estimator that infers without a density."
        )


class _Chains(eqx.Module):
    """A sampler as a function of (target, key): four chains, lengthened until they are worth `num_draws`."""

    sampler: Any
    num_draws: int

    def __call__(self, target, key) -> Draws:
        if isinstance(self.sampler, PopulationSampler):
            return sample(self.sampler, target, num_chains=1, key=key, progress=False)
        times = 4
        while True:
            length = -(-times * self.num_draws // 4)
            draws = sample(self.sampler, target, num_draws=length, key=key, progress=False)
            latent = draws.replace(values={name: draws[name] for name in target.structure.latent})
            if times >= _LONGEST or worth(latent) >= self.num_draws:
                return draws
            times *= 2


def _infer(ask: Any, joint: JointModel, observed: Any, key: PRNGKeyArray) -> Any:
    if isinstance(ask, _Chains):
        return ask(joint.target(observed), key)
    return ask.infer(observed, key=key) if isinstance(ask, Estimator) else ask(observed, key)


class _Asker:
    """Asks the method about one round after another: all of a round inside `vmap`, or one by one in Python's loop.

    The former where the first answer is made of JAX arrays and comes out the same in `vmap`: not where Python or
    NumPy's random numbers have a hand in it.
    """

    def __init__(self, ask, joint: JointModel, num_draws: int, notes: Notes, bar: Progress):
        self.ask, self.joint, self.num_draws, self.notes, self.bar = ask, joint, num_draws, notes, bar
        self.together = False

    def __call__(self, keys, start: int, stop: int) -> Round:
        """The round of simulations `start` ... `stop - 1`; `keys` may have more, for the sake of one shape."""
        made, first = None, None
        if start == 0:
            first, jaxy = self._one(_simulate(self.joint, keys), keys, 0, 0)
            made = self._try_together(keys, first) if jaxy else None
            self.together = made is not None
        if self.together:
            made = _many(self.ask, self.joint, keys, self.num_draws) if made is None else made
        else:
            made = self._one_by_one(keys[: stop - start], start, first)
        self.bar.update(stop)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], made)

    def _try_together(self, keys, first: Answer) -> Round | None:
        try:
            made = _many(self.ask, self.joint, keys, self.num_draws)
        except Exception:  # whatever it is, Python's loop meets it too, or does not mind
            return None
        for name, value in first.draws.items():
            one, other = np.asarray(value, float), np.asarray(made.draws[name][0], float)
            if not np.allclose(one, other, rtol=1e-3, atol=1e-3 * np.std(one), equal_nan=True):
                return None
        return made

    def _one_by_one(self, keys, start: int, first: Answer | None) -> Round:
        pairs = _simulate(self.joint, keys)
        answers = [] if first is None else [first]
        for at in range(len(answers), len(keys)):
            answers.append(self._one(pairs, keys, at, start + at)[0])
            self.bar.update(start + at)
        sizes = sorted({len(next(iter(answer.draws.values()))) for answer in answers})
        if len(sizes) > 1:
            raise ValueError(f"`method` returned weighted draws in different numbers: {sizes}. Resample to one number.")
        return Round(*pairs, *jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *answers))

    def _one(self, pairs, keys, at: int, number: int) -> tuple[Answer, bool]:
        parameter, observed = jax.tree.map(lambda leaf: leaf[at], pairs)
        try:
            with self.notes.listening():
                said = _infer(self.ask, self.joint, observed, named(keys[at], "method"))
                answer, jaxy, size = as_answer(said, parameter, self.num_draws, named(keys[at], "draws"))
        except PosteraxError as error:
            raise SamplingError(f"Simulation {number}: {error}", getattr(error, "draws", None)) from error
        except Exception as error:
            error.add_note(f"posterax met this in simulation {number}, asking {self.ask!r:.200}.")
            raise
        if size is not None:
            self.notes.size(*size)
        return answer, jaxy


@eqx.filter_jit
def _simulate(joint: JointModel, keys):
    return jax.vmap(lambda key: joint.simulate(key=named(key, "joint")))(keys)


@eqx.filter_jit
def _many(ask, joint: JointModel, keys, num_draws: int) -> Round:
    def one(key):
        parameter, observed = joint.simulate(key=named(key, "joint"))
        said = _infer(ask, joint, observed, named(key, "method"))
        answer, _, _ = as_answer(said, parameter, num_draws, named(key, "draws"))
        return Round(parameter, observed, *answer)

    return jax.vmap(one)(keys)


def _require_finite(made: Round, start: int) -> None:
    for what, tree in (("the parameter", made.parameter), ("the method's draws of the parameter", made.draws)):
        for name, value in tree.items():
            bad: np.ndarray = np.logical_not(np.isfinite(np.reshape(value, (len(value), -1))).all(axis=1))
            if bad.any():
                raise SamplingError(
                    f"Simulation {start + int(np.argmax(bad))}: {what} {name!r} are not finite ({int(bad.sum())} of "
                    f"{len(bad)} simulations have such). Mend the method, or the prior."
                )
    for value in (made.log_weights, made.log_q, made.log_q_true):
        if value is not None and np.isnan(value).any():
            row = int(np.argmax(np.isnan(value).reshape(len(value), -1).any(axis=1)))
            raise SamplingError(f"Simulation {start + row}: a log density or log-weight of the method is NaN.")
