"""How far from equilibrium? Entropy production of a flashing ratchet against its potential, with intervals.

python examples/21_entropy_production.py [--paths 1000] [--output examples-output]

A posterior of 18 free rates never puts the entropy production at exactly 0, even in equilibrium. So two models are
weighed by their evidence: free rates, and rates in detailed balance, which produce none.
"""

import argparse
import warnings
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax import Draws, PosteraxWarning
from posterax_mjp import MJPLikelihood, PanelData, PooledRates, Process, answers, pretrained
from posterax_models import FlashingRatchet

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TIMES = np.linspace(0.0, 2.5, 100)
POTENTIALS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)


def main(paths: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    found = []
    print("  V    exact   estimate   95 % interval      equilibrium")
    for number, potential in enumerate(POTENTIALS):
        ratchet = FlashingRatchet(potential=potential)
        process = Process(ratchet.rates, ratchet.stationary_law)
        states = process.sample(TIMES, paths, key=jr.fold_in(jr.key(0), number))
        panel = PanelData.from_paths(np.asarray(states), TIMES, num_states=6)
        draws, balance = entropy_production(panel, jr.fold_in(jr.key(1), number))
        low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
        found.append((low, middle, high))
        print(
            f"{potential:4} {ratchet.entropy_production:8.4f} {middle:9.4f}    {low:.4f} to {high:.4f}   {balance:.3f}"
        )
    covered = sum(
        low <= FlashingRatchet(potential=v).entropy_production <= high
        for v, (low, _, high) in zip(POTENTIALS, found, strict=True)
    )
    print(f"{covered} of {len(POTENTIALS)} intervals hold the exact value")
    plot(output / "entropy_production.png", np.array(found))
    print(f"wrote {output / 'entropy_production.png'}")


def entropy_production(panel: PanelData, key) -> tuple[np.ndarray, float]:
    """Equally weighted draws, and the probability of detailed balance.

    Jumps are those that the network finds likely, in either direction: what can be done can be undone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteraxWarning)  # large potentials lie outside of what the network knows
        likely = np.asarray(pretrained().law(panel).edge_probs) > 0.5
    settings = {"method": "laplace", "edges": likely | likely.T, "prior": PooledRates(), "num_draws": 2000}
    free = MJPLikelihood(**settings).fit(panel, key=key)
    balanced = MJPLikelihood(**settings, reversible=True).fit(panel, key=key)
    draws, others = free.infer(key=key), balanced.infer(key=key)
    balance = 1 / (1 + np.exp(np.clip(evidence(draws) - evidence(others), -500, 500)))
    values = np.asarray(answers(free, draws)["entropy_production"]).ravel()
    weights = np.exp(draws.flat_log_weights() - np.max(draws.flat_log_weights()))
    rng = np.random.default_rng(0)
    chosen = rng.choice(values, 10_000, p=weights / weights.sum())
    return np.where(rng.uniform(size=10_000) < balance, 0.0, chosen), balance


def evidence(draws: Draws) -> float:
    """Log evidence of one run."""
    return float(np.mean(np.asarray(draws.log_evidence)))


def plot(path: Path, found: np.ndarray) -> None:
    """Exact curve and intervals."""
    fine = np.linspace(0, max(POTENTIALS), 60)
    figure, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    axes.plot(fine, [FlashingRatchet(potential=v).entropy_production for v in fine], color="k", lw=1, label="exact")
    low, middle, high = found.T
    axes.errorbar(POTENTIALS, middle, [middle - low, high - middle], fmt="o", ms=4, color="C3", label="inferred, 95 %")
    axes.set(xlabel="potential V", ylabel="entropy production, nats per unit of time")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    arguments = parser.parse_args()
    main(arguments.paths, arguments.output)
