"""Trains the paper's network for Markov jump processes, small: fresh simulated paths at each step of Adam.

python models/training/mjp_paths.py [--seed 0] [--steps 6000] [--folder FOLDER]

Training goes on from its checkpoint in .cache, so that it may be stopped.
"""

import argparse
import time
from importlib.metadata import version
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from posterax_mjp import LabelFlips, MJPFoundation, ProcessPrior, score
from posterax_mjp._pretrained import weights_folder
from posterax_models._weights import write_weights


def main(seed: int, steps: int, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    prior = ProcessPrior(noise=LabelFlips((0.01,)))
    model = MJPFoundation(
        encoder="bilstm", num_states=(2, 3, 4, 5, 6), width=64, most_paths=32, num_steps=steps, batch_size=4,
        learning_rate=1e-3, prior=prior, noise=0.01,
    )  # fmt: skip
    began, used = time.perf_counter(), time.process_time()
    fitted = model.fit(prior, key=jr.key(seed), checkpoint=Path(".cache") / f"mjp-bilstm-{seed}-{steps}")
    assert fitted.report is not None
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    facts = {
        "name": "bilstm",
        "model": "posterax_mjp.PathEncoder",
        **{name: getattr(model, name) for name in ("encoder", "width", "num_states", "most_paths", "num_steps")},
        **{name: getattr(model, name) for name in ("batch_size", "learning_rate")},
        "data": "processes simulated from ProcessPrior(noise=LabelFlips((0.01,))); no other data set was touched",
        "num_processes": fitted.report["num_examples"],
        "seed": seed,
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "trained_on": "one core of two, shared with other work, no accelerator",
        "versions": {package: version(package) for package in ("posterax", "jax", "equinox", "optax")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    arrays, rest = eqx.partition(fitted.network, eqx.is_array)
    arrays = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), arrays)
    scores = {
        str(k): score(eqx.combine(arrays, rest), prior, k, 512, most_paths=32, key=jr.key(100)).summary()
        for k in model.num_states
    }
    write_weights(folder / "bilstm.posterax", fitted.network, {**facts, "scores": scores})
    print(scores, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--folder", type=Path, default=weights_folder())
    arguments = parser.parse_args()
    main(arguments.seed, arguments.steps, arguments.folder)
