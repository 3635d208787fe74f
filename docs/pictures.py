"""Makes the pictures of README.md and of the guides: runs the examples that draw them.

python docs/pictures.py [NAME ...]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = {
    "ising_marginals": "17_ising_marginals.py",
    "nile_by_particles": "08_nile_by_particles.py",
    "nngp_bands": "05_nngp_regression.py",
    "prior_on_the_fly": "14_prior_on_the_fly.py",
    "ratchet": "20_flashing_ratchet.py",
}


def main(names: list[str]) -> None:
    """Run the example of each picture with its defaults, one after the other, and keep the picture with few colours."""
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, ROOT / "examples" / PICTURES[name], "--output", folder], check=True)
            picture = Image.open(Path(folder) / f"{name}.png").convert("RGB").quantize(128)
            picture.save(ROOT / "docs" / "pictures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
