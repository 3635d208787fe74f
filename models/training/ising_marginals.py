"""Trains the marginalization models of 10 x 10 Ising lattices that are shipped; about 6 minutes each on one core.

python models/training/ising_marginals.py NAME [FOLDER]      NAME: ising-10x10-0, -1, -2 or ising-10x10-critical
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax.random as jr
from posterax_marginalization import DetailedBalance, Energy, MarginalizationModel
from posterax_marginalization._pretrained import architectures_of
from posterax_models import IsingLattice
from posterax_models._weights import weights_folder, write_weights

SIDE = 10
SETTINGS = {f"ising-10x10-{seed}": (0.2, 0.2, seed, 1500) for seed in range(3)}
SETTINGS["ising-10x10-critical"] = (0.4407, 0.0, 0, 2500)


def main(name: str, folder: Path) -> None:
    """Trains one, and writes weights and card."""
    coupling, field, seed, steps = SETTINGS[name]
    law = IsingLattice(SIDE, SIDE, coupling, field)
    energy = Energy(law.log_weight, (2,) * SIDE**2)
    facts = {"num_variables": SIDE**2, "rows": SIDE, "columns": SIDE, "coupling": coupling, "field": field}
    facts |= {"width": 16, "depth": 2}
    objective = DetailedBalance(energy, num_chains=16, span=25, refresh=8)
    model = MarginalizationModel(*architectures_of(facts), objective=objective, num_steps=steps, learning_rate=4e-3)
    began, used = time.perf_counter(), time.process_time()
    fitted = model.fit(energy, key=jr.key(seed), checkpoint=Path(".cache") / f"{name}-training")
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    assert fitted.report is not None
    assert fitted.support is not None
    found = fitted.log_partition(4000, key=jr.key(11))
    card = {
        "name": name,
        "model": "posterax_marginalization.Marginals with LatticeNetwork",
        **facts,
        "objective": "DetailedBalance, windows of 25 steps, 16 chains, blocks of 8",
        "data": "none: the energy alone; exact values of the lattice had no part in training",
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "trained_on": "2 cores shared with other work, no accelerator",
        "versions": {package: version(package) for package in ("posterax", "jax", "equinox", "optax")},
        "scores": {
            "reverse_kl": round(law.log_partition() - found.lower_bound, 4),
            "standard_error": round(found.bound_error, 4),
            "log_partition_error": round(found.learned - law.log_partition(), 4),
            "residual": round(fitted.report["residual"]["energy"], 4),
            "num_draws": 4000,
        },
        "least": [round(float(value), 3) for value in fitted.support.least],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / f"{name}.posterax", fitted.model, card, dtype="float32")
    print(card)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else weights_folder("posterax_marginalization"))
