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
from posterax_mjp import BetaRates, LogUniformRates, MixedRates, MJPFoundation, ProcessPrior, score
from posterax_mjp._pretrained import weights_folder
from posterax_mjp._prior import alike
from posterax_mjp._training_data import ExampleBatches, Examples, examples
from posterax_models._weights import write_weights

CACHE = Path(".cache")
_PIECE = 1024
PIECES = {2: 6, 3: 4, 4: 3, 5: 3, 6: 3, 7: 2, 8: 2}  # of rates that are alike, of each number of states
OTHERS = 4  # so many times as many of the other two kinds: the shares of wide_prior()


def simulated(num_states: int, seed: int) -> Examples:
    """Processes of one number of states, made once, 1,024 at a time."""
    number = PIECES[num_states]
    others = ProcessPrior(rates=MixedRates((BetaRates(), LogUniformRates()), (0.75, 0.25)))
    pieces = [_piece(f"{num_states}-{n}", others, num_states, seed, n) for n in range(OTHERS * number)]
    prior = ProcessPrior(rates=alike())
    pieces += [_piece(f"{num_states}-alike-{n}", prior, num_states, seed, 1000 + n) for n in range(number)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *pieces)


def _piece(name: str, prior: ProcessPrior, num_states: int, seed: int, number: int) -> Examples:
    file = CACHE / f"mjp-examples-{seed}-{name}.posterax"
    if not file.exists():
        began = time.perf_counter()
        key = jr.fold_in(jr.fold_in(jr.key(seed), num_states), number)
        made = examples(prior, num_states, _PIECE, most_paths=300, key=key)
        posterax.save(file, made)
        print(f"{name}: {len(made.rates)} processes in {time.perf_counter() - began:.0f} s", flush=True)
    return jax.tree.map(np.asarray, posterax.load(file))


def main(seed: int, steps: int, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    CACHE.mkdir(exist_ok=True)
    model = MJPFoundation(num_steps=steps, batch_size=12)
    began, used = time.perf_counter(), time.process_time()
    sets = tuple(simulated(k, seed) for k in PIECES)
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
        "settings": "numbers of processes were chosen by an earlier network's scores on fresh processes. Its errors on "
        "the ratchet were looked at (0.258 at 30 paths); after that processes whose rates are alike entered the prior, "
        "of which nothing was varied. The ratchet chose no checkpoint",
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
