"""An approximation corrected: guide, weights, resampling and moves, with the evidence, on the flow of the Nile.

python examples/02_pipeline.py [--draws 4000] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax import Draw, EssBelow, Infer, Move, Resample, Reweight, get, warm_up
from posterax_models import nile

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(draws: int, output: Path) -> None:
    problem = nile()
    target = problem.target
    guide = get("svi")().fit(target, key=jr.key(0))
    kernel = warm_up(get("nuts")(num_warmup=300), target, key=jr.key(1))

    weigh = Infer(guide) >> Draw(draws) >> Reweight(target)
    weighted = weigh.run(key=jr.key(2))
    moved = (weigh >> Resample(when=EssBelow(0.95)) >> Move(kernel, target, steps=5)).run(key=jr.key(2))

    print(f"weights are worth {weighted.effective_sample_size():.0f} of {draws} draws, k-hat {weighted.pareto_k():.2f}")
    print(f"log evidence {float(weighted.log_evidence[0]):.3f}, exact {problem.log_evidence:.3f}")
    for name in ("sigma_obs", "sigma_level"):
        estimates = f"weighted {weighted.mean()[name]:.2f}, moved {moved.mean()[name]:.2f}"
        print(f"{name}: {estimates}, exact {problem.mean[name]:.2f}")

    output.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    weights = np.exp(weighted.log_weights - weighted.log_weights.max()).ravel()
    axes[0].scatter(
        weighted["sigma_obs"].ravel(), weighted["sigma_level"].ravel(), s=8 * weights, alpha=0.5, linewidths=0
    )
    axes[0].set(xlabel="sigma_obs", ylabel="sigma_level", title="weighted draws of the guide", xlim=(60, 180))
    axes[1].plot(moved["sigma_obs"].ravel(), moved["sigma_level"].ravel(), ".", markersize=2, alpha=0.5, color="C1")
    axes[1].set(xlabel="sigma_obs", title="resampled and moved", xlim=(60, 180), ylim=axes[0].get_ylim())
    figure.savefig(output / "pipeline.png", dpi=110)
    plt.close(figure)
    print(f"wrote {output / 'pipeline.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
