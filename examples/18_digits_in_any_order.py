"""Handwritten digits of 8 by 8 pixels: half of each is hidden and filled in, in several orders.

python examples/18_digits_in_any_order.py [--steps 3000] [--marginal-steps 1500] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
from posterax_marginalization import Dense, MarginalizationModel
from sklearn.datasets import load_digits

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDE, SIZE = 8, 64
RASTER = np.arange(SIZE)
FROM_CENTRE = np.argsort(np.hypot(*(np.indices((SIDE, SIDE)).reshape(2, -1) - 3.5)), kind="stable")
ORDERS = {"row by row": RASTER, "backwards": RASTER[::-1], "from the centre": FROM_CENTRE}
HIDDEN = {"lower half": RASTER >= SIZE // 2, "right half": RASTER % SIDE >= SIDE // 2}


def data() -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows: pixels above 7.5."""
    pixels = (load_digits().data > 7.5).astype(int)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order[:1497]], pixels[order[1497:]]


def main(steps: int, marginal_steps: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    train, test = data()
    model = MarginalizationModel(
        Dense(256, 2, dropout=0.3), Dense(256, 2), num_steps=steps, marginal_steps=marginal_steps
    )
    fitted = model.fit(train, num_values=(2,) * SIZE, key=jr.key(0))
    bits = -fitted.log_marginal_by_orders(test, num_orders=5, key=jr.key(1)) / SIZE / np.log(2)
    rate = np.clip(train.mean(0), 1e-3, 1 - 1e-3)
    alone = -np.mean(test * np.log2(rate) + (1 - test) * np.log2(1 - rate))
    print(f"test digits: {bits.mean():.3f} bits a pixel in one order; independent pixels {alone:.3f}")

    shown = test[[3, 8, 11, 17]]
    figure, axes = plt.subplots(len(shown) * 2, 6, figsize=(8, 10), layout="constrained")
    for number, (digit, (label, hidden)) in enumerate((d, h) for d in shown for h in HIDDEN.items()):
        row, seen = axes[number], np.where(hidden, -1, digit)
        _draw(row[0], digit, "digit")
        _draw(row[1], np.where(hidden, 0.5, digit), f"{label} hidden")
        _draw(row[2], fitted.probs(seen)[:, 1], "P(ink), one pass")
        for axis, (name, order) in zip(row[3:], ORDERS.items(), strict=True):
            filled = fitted.sample(1, given=seen, order=order, key=jr.key(number))[0]
            _draw(axis, filled, name)
    figure.savefig(output / "digits_in_any_order.png", dpi=110)

    half = HIDDEN["lower half"]
    told = fitted.log_conditional(test, of=half, given=~half, check=False)
    print(f"log p(lower half | upper half), two passes: {told.mean():.1f} nats on average")
    report = fitted.error_report(test[:50], ~half, key=jr.key(2))
    print(report.words)
    print(f"wrote {output / 'digits_in_any_order.png'}")


def _draw(axis, pixels, title: str) -> None:
    axis.imshow(np.reshape(pixels, (SIDE, SIDE)), cmap="gray_r", vmin=0, vmax=1)
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--marginal-steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.steps, given.marginal_steps, given.output)
