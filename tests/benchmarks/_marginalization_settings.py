"""Settings of the digits' models, judged by 299 of the training images, without the test images.

FULL=1 PYTHONPATH=tests/benchmarks python tests/benchmarks/_marginalization_settings.py      over an hour of one core
"""

from typing import Any
from unittest import mock

import numpy as np
from _marginalization import judged
from _study import study
from _timing import ROOT, load

BASE = {"marginal_width": 384, "batch_size": 256, "dropout": 0.3, "b2": 0.999, "span": 8}
OTHERS = (
    {},
    {"b2": 0.99},
    {"marginal_width": 256},
    {"batch_size": 128},
    {"dropout": 0.0},
    {"dropout": 0.5},
    {"span": 64},
    {"dropout": 0.5, "span": 64},
    {"dropout": 0.6, "span": 64},
)


def one(number: int) -> dict[str, Any]:
    """Validation scores of one candidate: bits a pixel, and marginals' errors over those of one order."""
    import jax.random as jr
    from posterax_marginalization import Dense, MarginalizationModel, SelfConsistency, _stages

    chosen = BASE | OTHERS[number]
    rows = load(ROOT / "models" / "training" / "digits_marginals.py").data()[0]
    order = np.random.default_rng(1).permutation(len(rows))
    learned, held = rows[order[299:]], rows[order[:299]]
    model = MarginalizationModel(
        Dense(256, 2, dropout=chosen["dropout"]),
        Dense(chosen["marginal_width"], 2),
        objective=SelfConsistency(span=chosen["span"]),
        num_steps=3000,
        marginal_steps=3000,
        batch_size=chosen["batch_size"],
        num_imagined=16_384,
    )
    with mock.patch.dict(_stages.optimiser.__kwdefaults__, b2=chosen["b2"]):
        fitted = model.fit(learned, num_values=(2,) * 64, key=jr.key(0), progress=False)
    scores = judged(fitted, held)
    return {"changed": OTHERS[number], "bits": scores["bits"], "ratio": scores["ratio"]}


if __name__ == "__main__":
    for number in range(len(OTHERS)):
        print(study("mam-digits-settings", range(number, number + 1), one)[0], flush=True)
