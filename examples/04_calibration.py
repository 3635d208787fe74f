"""Can a posterior be believed? Calibration of NUTS and of a mean-field guide on a line with correlated coefficients.

python examples/04_calibration.py [--simulations 100] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.autoguide import AutoDiagonalNormal
from posterax import get
from posterax.testing import JointModel, coverage, sbc

matplotlib.use("Agg")

X = np.linspace(1.0, 3.0, 8)  # all on one side of zero: intercept and slope can make up for each other


def line(x, y=None):
    intercept = numpyro.sample("intercept", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(intercept + slope * x, 0.5), obs=y)


def main(simulations: int, output: Path) -> None:
    joint = JointModel.from_numpyro(line, X, observed="y")
    svi = get("svi")(guide=AutoDiagonalNormal, num_steps=500)

    def mean_field(y, key):
        """A method is any function of (observed, key) that returns a distribution or draws."""
        return svi.fit(joint.target(y), key=key, progress=False).infer()

    exact = sbc(get("nuts")(num_warmup=200), joint, num_simulations=simulations, key=jr.key(0))
    narrow = sbc(mean_field, joint, num_simulations=simulations, key=jr.key(1))
    regions = coverage(mean_field, joint, num_simulations=simulations, key=jr.key(2))

    print(f"NUTS: {exact.words}")
    print(f"mean field: {narrow.words}")
    print(f"regions of the mean field: {regions.words}")
    print(regions.summary().round(3))

    output.mkdir(parents=True, exist_ok=True)
    plots = {"calibration_nuts": exact, "calibration_mean_field": narrow, "coverage_mean_field": regions}
    for name, result in plots.items():
        result.plot(output / f"{name}.png")
        print(f"wrote {output / f'{name}.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
