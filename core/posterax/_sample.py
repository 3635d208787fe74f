"""sample(): runs a sampler on a target; chains, devices, progress, interruption and checkpoints are settled here."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from ._checkpoint import Checkpoint, as_checkpoint
from ._draws import Draws
from ._errors import PosteraxError
from ._identity import component_name
from ._keys import check_key
from ._plan import Plan
from ._precision import precision
from ._sampler import PopulationSampler, Sampler

_DEFAULT_PLAN = Plan()


def sample(
    sampler: Sampler | PopulationSampler,
    target: Any,
    *,
    num_draws: int | None = None,
    num_chains: int = 4,
    key: PRNGKeyArray,
    init: Mapping[str, Any] | None = None,
    plan: Plan = _DEFAULT_PLAN,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    progress: bool | None = None,
    throw: bool = True,
) -> Draws:
    """Draws from `target`.

    - `sampler`: a `Sampler`, or a `PopulationSampler` of which `num_chains` independent populations are made.
    - `target`: a `Target`, or what the sampler says it takes.
    - `num_draws`: draws in each chain after the sampler's warm-up, 1000 unless told; a population sampler sets its own.
    - `key`: a JAX random key. Same key, plan and versions, same bits.
    - `init`: constrained values by name to start from, for all chains or with a leading axis of length `num_chains`;
      by default random positions, tried until the log density is finite.
    - `plan`: devices and precision.
    - `checkpoint`: a folder, or a `Checkpoint`. The same call goes on where the last one stopped.
    - `progress`: a progress bar; None shows one where somebody looks.
    - `throw`: raise where the run fails; else the draws say so in `.result`.

    Ctrl-C keeps the draws made so far: they are returned, and `.result` says so.

    Raises `TargetError` where no finite start is found, `SamplingError` (with the good draws in `.draws`) where the run
    breaks later, `CheckpointError` for a checkpoint that cannot be read, written or continued, `ValueError` and
    `TypeError` for arguments out of place.
    """
    from . import _chains, _host, _population

    key = check_key(key, "sample")
    plan = merged(plan, sampler)
    where = as_checkpoint(checkpoint)
    _positive(num_chains, "num_chains")
    if isinstance(sampler, PopulationSampler):
        if num_draws is not None:
            raise ValueError(
                f"`num_draws` has no meaning for {type(sampler).__name__}, whose population has a size of its own: "
                "leave it out and set the number of particles in the sampler."
            )
        if init is not None:
            raise ValueError(f"`init` has no meaning for {type(sampler).__name__}, which starts from the prior.")
        runner = _host.populations if sampler.host else _population.run
        with precision(plan.precision), _naming(sampler):
            return runner(
                sampler, target, num_chains=num_chains, key=key, plan=plan, checkpoint=where, progress=progress,
                throw=throw,
            )  # fmt: skip
    if not isinstance(sampler, Sampler):
        raise TypeError(
            f"`sampler` must be a Sampler or a PopulationSampler; got {_kind(sampler)}. "
            "`posterax.get(name)` gives the class; call it with its settings."
        )
    if plan.divides_particles:
        raise ValueError(f'`plan` divides particles; {type(sampler).__name__} has none. Leave `divide="chains"`.')
    num_draws = 1000 if num_draws is None else num_draws
    _positive(num_draws, "num_draws")
    runner = _host.chains if sampler.host else _chains.run
    with precision(plan.precision), _naming(sampler):
        return runner(
            sampler, target, num_draws=num_draws, num_chains=num_chains, key=key, init=init, plan=plan,
            checkpoint=where, progress=progress, throw=throw,
        )  # fmt: skip


def warm_up(
    sampler: Sampler,
    target: Any,
    *,
    num_chains: int = 4,
    key: PRNGKeyArray,
    init: Mapping[str, Any] | None = None,
    plan: Plan = _DEFAULT_PLAN,
    progress: bool | None = None,
) -> Sampler:
    """`sampler` with what a warm-up on `target` learns fixed for good: for `Move`, and for `sample` without warm-up.

    Arguments as in `sample`.
    """
    from . import _chains

    if not isinstance(sampler, Sampler):
        raise TypeError(f"`sampler` must be a Sampler; got {_kind(sampler)}.")
    plan = merged(plan, sampler)
    _positive(num_chains, "num_chains")
    with precision(plan.precision), _naming(sampler):
        states = _chains.warm(
            sampler, target, num_chains=num_chains, key=check_key(key, "warm_up"), init=init, plan=plan,
            progress=progress,
        )  # fmt: skip
        return sampler.frozen(states)


@contextlib.contextmanager
def _naming(sampler: Any):
    """Errors that are not ours get a note on where they come from: JAX's own say nothing of it."""
    try:
        yield
    except PosteraxError:
        raise
    except Exception as error:
        error.add_note(f"posterax met this while running {component_name(sampler)} ({sampler!r:.200}).")
        raise


def merged(plan: Plan, component: Any) -> Plan:
    """`plan` with the precision that `component` asks for, unless the plan names another."""
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan; got {type(plan).__name__}. For several devices: Plan(devices=2).")
    if component.precision is None or plan.precision == component.precision:
        return plan
    if plan.precision is None:
        return Plan(plan.devices, component.precision, plan.divide)
    raise ValueError(
        f"{type(component).__name__} needs {component.precision} bits; `plan` has {plan.precision}. Leave it out there."
    )


def _positive(number: Any, name: str) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer; got {type(number).__name__} {number!r}.")
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1; got {number}.")


def _kind(thing: Any) -> str:
    return f"the class {thing.__name__} itself" if isinstance(thing, type) else type(thing).__name__
