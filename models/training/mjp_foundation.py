"""Trains the networks for Markov jump processes that are shipped.

python models/training/mjp_foundation.py {pairs,bilstm} [--seed 0] [--steps STEPS] [--folder FOLDER]

"pairs" learns from processes simulated before, which are kept in .cache; "bilstm", the paper's, from fresh ones at each
step. Training goes on from its checkpoint in .cache, so that it may be stopped.
"""

import argparse
import dataclasses
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax
from posterax_mjp import BetaRates, LabelFlips, LogUniformRates, MixedRates, MJPFoundation, ProcessPrior, score
from posterax_mjp._prior import alike
from posterax_mjp._training_data import ExampleBatches, Examples, examples
from posterax_models._weights import weights_folder, write_weights

CACHE = Path(".cache")
_PIECE = 1024
PIECES = {2: 6, 3: 4, 4: 3, 5: 3, 6: 3, 7: 2, 8: 2}  # of rates that are alike, of each number of states
_ALL = ("encoder", "width", "num_states", "most_paths", "num_steps", "batch_size", "learning_rate")
SETTINGS = {"pairs": (*_ALL, "depth", "num_components"), "bilstm": _ALL}
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


def pairs(seed: int) -> tuple[MJPFoundation, ExampleBatches, dict[str, Any]]:
    """The default: the estimator, what it learns from, and what its card says of that."""
    sets = tuple(simulated(k, seed) for k in PIECES)
    model = MJPFoundation(num_steps=24_000, batch_size=12)
    facts = {
        "data": "processes simulated from wide_prior(); no other data set was touched",
        "settings": "numbers of processes were chosen by an earlier network's scores on fresh processes. Its errors on "
        "the ratchet were looked at (0.258 at 30 paths); after that processes whose rates are alike entered the prior, "
        "of which nothing was varied. The ratchet chose no checkpoint",
        "num_processes": {str(k): len(found.rates) for k, found in zip(PIECES, sets, strict=True)},
    }
    return model, ExampleBatches(sets, (model.batch_size,) * len(sets)), facts


def bilstm(_: int) -> tuple[MJPFoundation, ProcessPrior, dict[str, Any]]:
    """The paper's."""
    prior = ProcessPrior(noise=LabelFlips((0.01,)))
    model = MJPFoundation(
        encoder="bilstm", num_states=(2, 3, 4, 5, 6), width=64, most_paths=32, num_steps=6_000, batch_size=4,
        learning_rate=1e-3, prior=prior, noise=0.01,
    )  # fmt: skip
    data = "processes simulated from ProcessPrior(noise=LabelFlips((0.01,))); no other data set was touched"
    return model, prior, {"data": data}


NETWORKS = {"pairs": pairs, "bilstm": bilstm}


def main(name: str, seed: int, steps: int | None, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    CACHE.mkdir(exist_ok=True)
    began, used = time.perf_counter(), time.process_time()
    model, data, facts = NETWORKS[name](seed)
    model = dataclasses.replace(model, num_steps=steps or model.num_steps)
    fitted = model.fit(data, key=jr.key(seed), checkpoint=CACHE / f"mjp-{name}-{seed}-{model.num_steps}")
    assert fitted.report is not None
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    network = _rounded(fitted.network)
    scores = {
        str(k): score(network, model.prior, k, 512, most_paths=model.most_paths, key=jr.key(100)).summary()
        for k in model.num_states
    }
    card = {
        "name": name,
        "model": f"posterax_mjp.{type(fitted.network).__name__}",
        **{setting: getattr(model, setting) for setting in SETTINGS[name]},
        "num_processes": fitted.report["num_examples"],
        **facts,
        "seed": seed,
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "trained_on": "one core of two, shared with other work, no accelerator",
        "versions": {package: version(package) for package in ("posterax", "jax", "equinox", "optax")},
        "scores": scores,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / f"{name}.posterax", fitted.network, card)
    print(scores, seconds)


def _rounded(network: Any) -> Any:
    """As it is shipped."""
    arrays, rest = eqx.partition(network, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype), arrays), rest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--folder", type=Path, default=weights_folder("posterax_mjp"))
    given = parser.parse_args()
    main(given.name, given.seed, given.steps, given.folder)
