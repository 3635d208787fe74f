"""Trains the network for Markov jump processes that is shipped: simulated processes, then steps of Adam.

python models/training/mjp_foundation.py [--seed 0] [--steps 24000] [--folder FOLDER]

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
from posterax_mjp import MJPFoundation, score
from posterax_mjp._pretrained import weights_folder
from posterax_mjp._training_data import ExampleBatches, Examples, examples
from posterax_models._weights import write_weights

CACHE = Path(".cache")
_PIECE = 1024
PIECES = {2: 26, 3: 18, 4: 12, 5: 11, 6: 12, 7: 8, 8: 6}  # of each number of states


def simulated(model: MJPFoundation, seed: int, num_states: int, num: int) -> Examples:
    """Processes of one number of states, made once, 1,024 at a time."""
    pieces = []
    for number in range(num):
        file = CACHE / f"mjp-examples-{seed}-{num_states}-{number}.posterax"
        if not file.exists():
            began = time.perf_counter()
            key = jr.fold_in(jr.fold_in(jr.key(seed), num_states), number)
            made = examples(model.prior, num_states, _PIECE, most_paths=model.most_paths, key=key)
            posterax.save(file, made)
            took = time.perf_counter() - began
            print(f"{num_states} states: {len(made.rates)} processes in {took:.0f} s", flush=True)
        pieces.append(jax.tree.map(np.asarray, posterax.load(file)))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *pieces)


def main(seed: int, steps: int, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    CACHE.mkdir(exist_ok=True)
    model = MJPFoundation(num_steps=steps, batch_size=12)
    began, used = time.perf_counter(), time.process_time()
    sets = tuple(simulated(model, seed, k, pieces) for k, pieces in PIECES.items())
    batches = ExampleBatches(sets, (model.batch_size,) * len(sets))
    fitted = model.fit(batches, key=jr.key(seed), checkpoint=CACHE / f"mjp-pairs-{seed}-{steps}")
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    facts = {
        "name": "pairs",
        "model": "posterax_mjp.PairEncoder",
        "encoder": "pairs",
        **{name: getattr(model, name) for name in ("width", "depth", "num_components", "num_states", "most_paths")},
        **{name: getattr(model, name) for name in ("num_steps", "batch_size", "learning_rate")},
        "data": "processes simulated from wide_prior(); no other data set was touched",
        "settings": "how many processes of each number of states was chosen by scores of an earlier network on fresh "
        "processes; that network's errors on the ratchet were looked at, and chose nothing",
        "num_processes": {str(k): len(found.rates) for k, found in zip(PIECES, sets, strict=True)},
        "seed": seed,
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "trained_on": "one core of two, shared with other work, no accelerator",
        "versions": {package: version(package) for package in ("posterax", "jax", "equinox", "optax")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), fitted.network)
    scores = {str(k): score(rounded, model.prior, k, 512, key=jr.key(100)).summary() for k in model.num_states}
    write_weights(folder / "pairs.posterax", fitted.network, {**facts, "scores": scores})
    print(scores, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--folder", type=Path, default=weights_folder())
    arguments = parser.parse_args()
    main(arguments.seed, arguments.steps, arguments.folder)
