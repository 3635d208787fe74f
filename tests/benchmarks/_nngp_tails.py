"""Held-out tails of UCI inputs: the models of `_nngp_uci`, asked about inputs beyond those that they were fitted to.

All data sets have as many training rows and as many inputs, so that each model is compiled once for all of them.
"""

import _nngp_uci
import numpy as np

TRAIN, WIDTH = 250, 312  # 312 inputs are 52 times 6, 39 times 8 and 24 times 13


def on_tails(core: int | None, models: list[str], names: list[str]) -> list[dict]:
    """`ours` on the held-out tails of some data sets, on one core; networks of two layers."""
    _nngp_uci.pin(core)
    return [_nngp_uci.ours(*rows, models, depths=(2,)) for name in names for rows in tails(name)]


def tails(name: str) -> list[tuple[np.ndarray, ...]]:
    """For each of `columns`, as from `split`: held out are rows of its upper tail, and trained on are others.

    At random `TRAIN` rows, and as many held-out rows as the smallest tail has. The inputs stand side by side as often
    as it takes to make `WIDTH` of them: kernels see x.z / d alone, which stays as it is.
    """
    x, y = _nngp_uci.everything(name)
    far = [x[:, column] >= border(x[:, column]) for column in columns(name)]
    x = np.tile(x, WIDTH // x.shape[1])
    held = min(np.sum(one) for one in far)
    random, found = np.random.default_rng(0), []
    for one in far:
        old, new = (random.permutation(np.flatnonzero(rows))[:size] for rows, size in ((~one, TRAIN), (one, held)))
        found.append((x[old], y[old], x[new], y[new]))
    return found


def border(values: np.ndarray) -> float:
    """Where the upper tail begins: the value with a share of rows at or above it nearest to a tenth."""
    found = np.unique(values)
    shares = np.array([np.mean(values >= value) for value in found])
    return float(found[np.argmin(np.abs(shares - 0.1))])


def columns(name: str) -> list[int]:
    """The three inputs with the most different values, of those with a tail of 3 to 20 per cent of the rows."""
    x, _ = _nngp_uci.everything(name)
    held = np.array([np.mean(x[:, j] >= border(x[:, j])) for j in range(x.shape[1])])
    counts = np.array([len(np.unique(x[:, j])) for j in range(x.shape[1])]) * ((held > 0.03) & (held < 0.2))
    return sorted(np.argsort(-counts, kind="stable")[: min(3, np.sum(counts > 0))].tolist())
