"""Makes the pictures of README.md and of the guides: runs the examples that draw them.

python docs/pictures.py [NAME ...]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = {
    "ising_marginals.png": "17_ising_marginals.py",
    "nile_by_particles.png": "08_nile_by_particles.py",
    "nngp_regression.png": "05_nngp_regression.py",
    "prior_on_the_fly.png": "14_prior_on_the_fly.py",
    "ratchet.png": "20_flashing_ratchet.py",
}


def main(names: list[str]) -> None:
    """Run the example of each picture with its defaults, one after the other."""
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, ROOT / "examples" / PICTURES[name], "--output", folder], check=True)
            shutil.copy(Path(folder) / name, ROOT / "docs" / "pictures" / name)


if __name__ == "__main__":
    main(sys.argv[1:])
