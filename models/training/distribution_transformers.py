"""Trains the distribution transformers that the wheel brings, one by name; minutes to an hour on 2 cores each.

    python models/training/distribution_transformers.py NAME [FOLDER] [--seed 0] [--steps N]

Everything is simulated; nothing else is looked at. Interrupted, the same call goes on from its checkpoint in FOLDER.
Scores on the card are of fresh problems, against exact answers, of keys that training does not use.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import posterax
from posterax import save
from posterax_distribution_transformer import (
    BearingRange,
    DistributionTransformer,
    LengthScale,
    LinearGaussian,
    MixtureMetaPrior,
    NormalVariance,
    QuantumParameter,
)
from posterax_distribution_transformer._scores import score

EXPERIMENTS = {
    "normal-variance": (NormalVariance(), {"depth": 2, "num_steps": 20_000, "batch_size": 512}),
    "gaussian-mixture-1d": (
        LinearGaussian.of(MixtureMetaPrior(4)),
        {"depth": 3, "num_steps": 12_000, "batch_size": 256},
    ),
    "gaussian-mixture-2d": (
        LinearGaussian.of(MixtureMetaPrior(4, 2)),
        {"depth": 4, "width": 48, "hidden": 96, "num_steps": 20_000, "batch_size": 256},
    ),
    "quantum-parameter": (QuantumParameter(), {"depth": 3, "num_steps": 4000, "batch_size": 256}),
    "length-scale": (
        LengthScale(),
        {"depth": 3, "encoder_depth": 3, "width": 48, "hidden": 96, "num_steps": 24_000, "batch_size": 256},
    ),
    "bearing-range": (
        BearingRange(),
        {"depth": 4, "width": 48, "hidden": 96, "num_steps": 24_000, "batch_size": 256, "drop_sources": 0.1},
    ),
}
SCORED = {"normal-variance": 10_000}
NARROW = NormalVariance(10_000.0, 20_000.0)
SHIFTED = NormalVariance(24.0, 6.0)


def scores(name: str, fitted: DistributionTransformer, num: int | None = None) -> dict:
    """What the card says of the estimator."""
    num = SCORED.get(name, 4000) if num is None else num
    found = {"trained on": score(fitted, EXPERIMENTS[name][0], num, key=jr.key(12345)).card()}
    if name == "normal-variance":
        found["narrow"] = score(fitted, NARROW, num, key=jr.key(12346)).card()
        found["shifted, out of range"] = score(fitted, SHIFTED, num, key=jr.key(12347)).card()
    return found


def main(name: str, folder: Path, seed: int, steps: int | None) -> None:
    """Train, score, write."""
    experiment, settings = EXPERIMENTS[name]
    if steps is not None:
        settings = {**settings, "num_steps": steps}
    estimator = DistributionTransformer(**settings)
    began = time.process_time()
    fitted = estimator.fit(
        experiment.problem(), key=jr.key(seed), checkpoint=folder / f"{name}-{seed}.checkpoint", progress=False
    )
    seconds = time.process_time() - began
    report = fitted.report or {}
    fitted = dataclasses.replace(fitted, report={name: report[name] for name in report if name != "history"})
    file = folder / f"{name}-{seed}.posterax"
    save(file, fitted)
    card = {
        "estimator": "distribution-transformer", "experiment": repr(experiment), "settings": settings, "seed": seed,
        "script": "models/training/distribution_transformers.py", "data": "simulated from the experiment; nothing else",
        "device": "CPU, 2 cores, shared", "processor_seconds": round(seconds),
        "versions": {"posterax": posterax.__version__, "jax": jax.__version__, "equinox": eqx.__version__},
        "num_weights": report["num_weights"], "skipped_steps": report["num_skipped"],
        "scores": scores(name, fitted), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["scores"], indent=1), card["processor_seconds"], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(".cache") / "training" / "distribution_transformers"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    main(given.name, given.folder, given.seed, given.steps)
