"""Trains the network for Markov jump processes that is shipped: simulated processes, then steps of Adam.

python models/training/mjp_foundation.py [--seed 0] [--steps 20000] [--examples 6144] [--folder FOLDER]

Simulated processes are kept in .cache and training goes on from its checkpoint there, so that it may be stopped.
"""

import argparse
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
from posterax_mjp._foundation import MJPFoundation
from posterax_mjp._training_data import ExampleBatches, Examples, examples

CACHE = Path(".cache")
_PIECE = 1024


def simulated(model: MJPFoundation, seed: int, num_states: int) -> Examples:
    """Processes of one number of states, made once, a thousand at a time."""
    pieces, number = [], 0
    while number * _PIECE < model.num_examples:
        file = CACHE / f"mjp-examples-{seed}-{num_states}-{number}.posterax"
        if not file.exists():
            began = time.perf_counter()
            key = jr.fold_in(jr.fold_in(jr.key(seed), num_states), number)
            made = examples(model.prior, num_states, _PIECE, most_paths=model.most_paths, key=key)
            posterax.save(file, made)
            took = time.perf_counter() - began
            print(f"{num_states} states: {len(made.rates)} processes in {took:.0f} s", flush=True)
        pieces.append(jax.tree.map(np.asarray, posterax.load(file)))
        number += 1
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *pieces)


def main(seed: int, steps: int, num_examples: int, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    CACHE.mkdir(exist_ok=True)
    model = MJPFoundation(num_steps=steps, num_examples=num_examples)
    began = time.perf_counter()
    sets = tuple(simulated(model, seed, k) for k in model.num_states)
    batches = ExampleBatches(sets, (model.batch_size,) * len(sets))
    fitted = model.fit(batches, key=jr.key(seed), checkpoint=CACHE / f"mjp-foundation-{seed}-{steps}")
    assert fitted.report is not None
    print(f"{time.perf_counter() - began:.0f} s; loss {fitted.report['losses'][-200:].mean():.4f}", version("posterax"))
    folder.mkdir(parents=True, exist_ok=True)
    posterax.save(folder / "mjp-foundation.posterax", fitted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=6144)
    parser.add_argument("--folder", type=Path, default=CACHE)
    arguments = parser.parse_args()
    main(arguments.seed, arguments.steps, arguments.examples, arguments.folder)
