"""A run that may be killed: start it, kill it (kill -9, Ctrl-C, a power cut), start it again. It goes on where it was.

python examples/03_long_run.py [--draws 20000] [--folder long-run]
"""

import argparse
from pathlib import Path

import jax.random as jr
from posterax import Checkpoint, get, sample, save
from posterax_models import NealsFunnel


def main(draws: int, folder: Path) -> None:
    funnel = NealsFunnel(5)
    result = sample(
        get("nuts")(num_warmup=500, target_accept=0.99),
        funnel.target,
        num_draws=draws,
        key=jr.key(0),
        checkpoint=Checkpoint(str(folder), every=1.0),
    )
    print(result, result.result.words)
    print(result.summary().round(2))
    save(folder / "draws.posterax", result)
    print(f"wrote {folder / 'draws.posterax'}; the same call with more draws extends the run")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("long-run"))
    main(**vars(parser.parse_args()))
