"""Samplers that talk to the outside world: the same driver, stepped from Python, nothing traced."""

from typing import Any

import jax
import jax.random as jr
import numpy as np

from ._chains import on_values, stats_of
from ._draws import Draws
from ._identity import record_of
from ._keys import named
from ._population import finished
from ._progress import Progress
from ._start import chosen_positions, first_position


def _refuse_checkpoint(sampler, checkpoint) -> None:
    if checkpoint is not None:
        raise ValueError(
            f"`checkpoint` is not available for {type(sampler).__name__}, whose state lives outside JAX (`host`). "
            "Leave it out, and save the result with `posterax.save`."
        )


def _stack(items: list) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *items)


def chains(sampler, target, *, num_draws, num_chains, key, init, plan, checkpoint, progress, throw) -> Draws:
    """Chains of a host sampler, one after another."""
    del throw
    _refuse_checkpoint(sampler, checkpoint)
    interrupted, records = False, []
    chosen = None if init is None else chosen_positions(target, init, num_chains)
    with Progress(progress, num_chains * (sampler.num_warmup + num_draws), type(sampler).__name__) as bar:
        for chain in range(num_chains):
            chain_key = jr.fold_in(named(key, "chains"), chain)
            given = None if chosen is None else jax.tree.map(lambda leaf: leaf[chain], chosen)  # noqa: B023
            first = first_position(target, given, key=named(chain_key, "start"))
            state = sampler.init(target, first, key=named(chain_key, "init"))
            rows = []
            try:
                for step in range(sampler.num_warmup + num_draws):
                    state, info = sampler.step(target, state, key=jr.fold_in(chain_key, step))
                    rows.append((sampler.position(state), stats_of(info)))
                    bar.update(chain * (sampler.num_warmup + num_draws) + step + 1)
            except KeyboardInterrupt:
                interrupted = True
                if not records:
                    if len(rows) <= sampler.num_warmup:
                        raise
                    records.append(_stack(rows[sampler.num_warmup :]))
                break  # whole chains are kept; a first chain alone is kept as far as it came
            records.append(_stack(rows[sampler.num_warmup :]))
    positions, stats = _stack(records)
    values, log_density = on_values(target, positions)
    return Draws(
        values=values,
        stats=stats,
        log_density=log_density,
        no_evidence="Markov chains carry no normalising constant.",
        result_code="interrupted" if interrupted else "successful",
        labels=target.labels,
    ).recorded("sample", **record_of(sampler, key, plan), num_chains=len(records), num_draws=log_density.shape[1])


def populations(sampler, target, *, num_chains, key, plan, checkpoint, progress, throw) -> Draws:
    """Populations of a host sampler, one after another; values may be any arrays."""
    _refuse_checkpoint(sampler, checkpoint)
    made, stats = [], []
    with Progress(progress, None, type(sampler).__name__) as bar:
        for chain in range(num_chains):
            chain_key = jr.fold_in(named(key, "chains"), chain)
            state, step, rows = sampler.init(target, key=named(chain_key, "init")), 0, []
            if (first := sampler.first_info(state)) is not None:
                rows.append(stats_of(first))
            while not bool(sampler.done(state)):
                state, info = sampler.step(target, state, key=jr.fold_in(chain_key, step))
                rows.append(stats_of(info))
                step += 1
                bar.update(step)
            made.append(sampler.population(state))
            stats.append(_stack(rows) if rows else {})
    lengths = {len(next(iter(row.values()))) for row in stats if row}
    stats = _stack(stats) if len(lengths) == 1 else {}  # populations of different lengths have no common step axis
    return finished(sampler, target, _stack(made), stats, key, plan, throw)
