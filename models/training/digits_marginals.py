"""Trains the marginalization models of handwritten digits that are shipped; about 6 minutes each on one core.

python models/training/digits_marginals.py SEED [FOLDER]      SEED: 0, 1 or 2
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax.random as jr
import numpy as np
from posterax_marginalization import MarginalizationModel, SelfConsistency
from posterax_marginalization._pretrained import architectures_of
from posterax_models._weights import weights_folder, write_weights
from sklearn.datasets import load_digits

SIZE, NUM_LEARNED = 64, 1497
FACTS = {"num_variables": SIZE, "width": 256, "marginal_width": 384, "depth": 2, "dropout": 0.5}
STEPS, MARGINAL_STEPS, BATCH, IMAGINED = 3000, 3000, 256, 16_384


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for tests: pixels above 7.5."""
    pixels = (np.asarray(load_digits(return_X_y=True)[0]) > 7.5).astype(int)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order[:NUM_LEARNED]], pixels[order[NUM_LEARNED:]]


def main(seed: int, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    learned, test = data()
    model = MarginalizationModel(
        *architectures_of(FACTS),
        objective=SelfConsistency(span=SIZE),
        num_steps=STEPS,
        marginal_steps=MARGINAL_STEPS,
        batch_size=BATCH,
        num_imagined=IMAGINED,
    )
    began, used = time.perf_counter(), time.process_time()
    name = f"digits-{seed}"
    fitted = model.fit(
        learned, num_values=(2,) * SIZE, key=jr.key(seed), checkpoint=Path(".cache") / f"{name}-training"
    )
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    assert fitted.support is not None
    bits = -fitted.log_marginal_by_orders(test, num_orders=10, key=jr.key(1)).mean() / SIZE / np.log(2)
    card = {
        "name": name,
        "model": "posterax_marginalization.Marginals with DenseNetwork",
        **FACTS,
        "objective": "OrderAgnostic, then SelfConsistency over whole orders",
        "data": "1,497 of the 1,797 images of scikit-learn's digits (UCI, Optical Recognition of Handwritten Digits, "
        "CC BY 4.0), pixels above 7.5, numpy.random.default_rng(0).permutation; the other 300 are the test set",
        "settings": "chosen by 299 of the training images, learned on the other 1,198 (mam-digits-settings of the "
        "benchmarks' results); before that, width, batch and optimiser were varied with the test images in view",
        "seed": seed,
        "steps": STEPS,
        "marginal_steps": MARGINAL_STEPS,
        "batch_size": BATCH,
        "num_imagined": IMAGINED,
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "trained_on": "2 cores shared with other work, no accelerator",
        "versions": {package: version(package) for package in ("posterax", "jax", "equinox", "optax")},
        "scores": {"bits_per_pixel": round(float(bits), 4), "num_orders": 10, "num_test": len(test)},
        "least": [round(float(value), 3) for value in fitted.support.least],
        "seen": fitted.support.seen.astype(int).tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / f"{name}.posterax", fitted.model, card)
    print(card["scores"], seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else weights_folder("posterax_marginalization"))
