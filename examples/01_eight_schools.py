"""NUTS on the eight schools, read in ArviZ: from a model to draws, diagnostics and pictures.

python examples/01_eight_schools.py [--draws 1000] [--output examples-output]
"""

import argparse
from pathlib import Path

import arviz_plots
import arviz_stats
import jax.random as jr
import matplotlib
from posterax import get, sample
from posterax_models import eight_schools

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(draws: int, output: Path) -> None:
    problem = eight_schools()
    problem.target.check(key=jr.key(0))

    nuts = get("nuts")(num_warmup=max(200, draws // 2), target_accept=0.95)
    result = sample(nuts, problem.target, num_draws=draws, key=jr.key(1))
    print(result.summary().round(2))

    # The exact posterior of this model is known by quadrature: compare.
    for name in ("mu", "tau"):
        print(f"{name}: estimated {result.mean()[name]:.3f}, exact {problem.mean[name]:.3f}")

    tree = result.to_datatree(problem.target, log_likelihood=True, prior=500, posterior_predictive=True)
    print(arviz_stats.loo(tree))

    output.mkdir(parents=True, exist_ok=True)
    arviz_plots.plot_forest(tree, var_names=["mu", "tau", "theta"], combined=True, backend="matplotlib")
    plt.savefig(output / "eight_schools_forest.png", bbox_inches="tight", dpi=110)
    plt.close("all")
    print(f"wrote {output / 'eight_schools_forest.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
