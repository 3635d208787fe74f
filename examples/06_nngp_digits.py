"""Classes from an infinitely wide network with one random scale, and what becomes of them when images are corrupted.

Trained on clean 8 x 8 digits, asked about noisy, blurred and rotated ones. One number s scales the variance of the
network's outputs, for all images and classes together. Regression on labels with s = 1, with s at its likeliest value
and with s integrated out (inverse gamma prior: a Student-t process) has the same most likely class throughout, and
differs in how sure it is. With hundreds of labels s is known so well that the last two agree: that s is random, and
not only learnt, makes no difference. A learnt s is better calibrated near the training data; far from them (strong
rotation) the larger s = 1, less sure of everything, loses less. The softmax classifier is the sparse variational
Student-t process.

python examples/06_nngp_digits.py [--train 300] [--steps 800] [--output examples-output]     (needs scikit-learn)
"""

import argparse
import dataclasses
from pathlib import Path

import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax_nngp import MLPKernel, ScaleMixtureClassifier
from scipy import ndimage
from sklearn.datasets import load_digits

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NUM_TEST = 200
BINS = 15
SEVERITIES = {
    "noise": (0.0, 0.15, 0.3, 0.45, 0.6),  # standard deviation, of pixels in [0, 1]
    "blur": (0.0, 0.4, 0.7, 1.0, 1.3),  # pixels
    "rotation": (0.0, 15.0, 30.0, 45.0, 60.0),  # degrees
}
AXES = {
    "noise": "standard deviation of the noise",
    "blur": "width of the blur (pixels)",
    "rotation": "rotation (degrees)",
}
STYLES = {
    "labels, s = 1": {"color": "#9aa0a6", "marker": "s"},
    "labels, s by likelihood": {"color": "#1f77b4", "marker": "o", "linewidth": 4, "alpha": 0.45},
    "labels, inverse gamma": {"color": "#0b3d66", "marker": ".", "linestyle": "--"},
    "softmax, Student-t": {"color": "#d1495b", "marker": "^"},
}


def main(train: int, steps: int, output: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8) / 16
    order = np.random.default_rng(0).permutation(len(images))
    known, new = order[:train], order[train : train + min(NUM_TEST, train)]

    by_labels = ScaleMixtureClassifier(
        MLPKernel(depth=3), dist.InverseGamma(2.0, 2.0), "labels", num_classes=10, noise=0.01, learn_kernel=False
    )
    settings = {
        "labels, s = 1": dataclasses.replace(by_labels, scale_prior=dist.Delta(1.0), learn_scale=False),
        "labels, s by likelihood": dataclasses.replace(by_labels, scale_prior=dist.Delta(1.0)),
        "labels, inverse gamma": by_labels,
        "softmax, Student-t": ScaleMixtureClassifier(
            MLPKernel(depth=3),
            num_inducing=60,
            num_classes=10,
            num_steps=steps,
            num_draws=8,
            learning_rate=0.05,
            num_predictive_draws=400,
        ),
    }
    data = rows(images[known]), labels[known]
    fitted = {name: each.fit(data, key=jr.key(1)) for name, each in settings.items()}
    for name, model in fitted.items():
        print(f"{name}: s given the labels is about {float(middle(model.scale_posterior())):.3g}")

    asked = {(kind, level): corrupted(images[new], kind, level) for kind in SEVERITIES for level in SEVERITIES[kind]}
    log_probs = {name: log_probabilities(model, asked) for name, model in fitted.items()}
    for name, found in log_probs.items():
        clean = found["noise", 0.0]
        right = np.mean(clean.argmax(axis=1) == labels[new])
        print(f"{name}: clean digits, accuracy {right:.3f}, nats {nats(clean, labels[new]):.3f}")

    output.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("nngp_digits_calibration.png", draw_calibration(log_probs, labels[new], train)),
        ("nngp_digits_probabilities.png", draw_probabilities(log_probs, asked, labels[new])),
    ):
        figure.savefig(output / name, dpi=130)
        print(f"wrote {output / name}")
    plt.close("all")


def rows(images: np.ndarray) -> np.ndarray:
    return 2 * images.reshape(len(images), -1) - 1


def middle(scale: dist.Distribution) -> float:
    return scale.v if isinstance(scale, dist.Delta) else scale.rate / scale.concentration  # pyright: ignore


def corrupted(images: np.ndarray, kind: str, level: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind == "noise":
        images = images + level * rng.normal(size=images.shape)
    elif kind == "blur":
        images = ndimage.gaussian_filter(images, (0, level, level))
    else:
        turns = level * rng.choice([-1, 1], size=len(images))
        images = np.stack(
            [ndimage.rotate(image, turn, reshape=False, order=1) for image, turn in zip(images, turns, strict=True)]
        )
    return np.clip(images, 0, 1)


def log_probabilities(model: ScaleMixtureClassifier, asked: dict) -> dict:
    """Log probabilities `(n, 10)` for each set of images, all asked in one call."""
    found = np.asarray(model.infer(np.concatenate([rows(images) for images in asked.values()]), key=jr.key(2)).logits)
    return dict(zip(asked, np.split(found, len(asked)), strict=True))


def nats(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log probability of the label."""
    return float(-np.mean(log_probs[np.arange(len(labels)), labels]))


def calibration_error(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of confidence from accuracy, over bins of confidence."""
    sure, right = np.exp(log_probs.max(axis=1)), log_probs.argmax(axis=1) == labels
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return sum(abs(np.sum(right[place == i]) - np.sum(sure[place == i])) for i in range(BINS)) / len(labels)


def draw_calibration(log_probs: dict, labels: np.ndarray, train: int):
    figure, grid = plt.subplots(2, len(SEVERITIES), figsize=(11, 6.2), sharex="col", layout="constrained")
    for measure, panels, words in (
        (nats, grid[0], "nats for the right class"),
        (calibration_error, grid[1], "calibration error"),
    ):
        panels[0].set_ylabel(words)
        for panel, (kind, levels) in zip(panels, SEVERITIES.items(), strict=True):
            for name, style in STYLES.items():
                values = [measure(log_probs[name][kind, level], labels) for level in levels]
                panel.plot(levels, values, label=name, **({"linewidth": 1.8, "markersize": 6} | style))
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color="0.92")
            panel.set_axisbelow(True)
    for panel, kind in zip(grid[0], SEVERITIES, strict=True):
        panel.set_title(kind)
        panel.axhline(np.log(10), color="0.55", linewidth=1, linestyle=":")
        panel.annotate(
            "knowing nothing", (0.02, np.log(10)), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", color="0.45", fontsize=8,
        )  # fmt: skip
    for panel, kind in zip(grid[1], SEVERITIES, strict=True):
        panel.set_xlabel(AXES[kind])
    for panel in grid.ravel():
        panel.set_ylim(bottom=0)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Trained on {train} clean digits, asked about corrupted ones: lower is better")
    return figure


def draw_probabilities(log_probs: dict, asked: dict, labels: np.ndarray):
    """A few digits as they get worse, and below each what three of the classifiers say."""
    shown = ("labels, s = 1", "labels, inverse gamma", "softmax, Student-t")
    columns = [("noise", 0.0), ("noise", 0.3), ("noise", 0.6), ("blur", 0.7), ("blur", 1.3), ("rotation", 30.0)]
    columns += [("rotation", 60.0)]
    figure, grid = plt.subplots(
        6, len(columns), figsize=(12, 9.4), height_ratios=[1.5, 1, 1.5, 1, 1.5, 1], layout="constrained"
    )
    chosen = [int(np.flatnonzero(labels == digit)[0]) for digit in (3, 4, 8) if np.any(labels == digit)]
    for row, which in enumerate(chosen):
        for column, place in enumerate(columns):
            picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
            picture.imshow(asked[place][which], cmap="gray_r", vmin=0, vmax=1)
            picture.set_axis_off()
            if row == 0:
                picture.set_title("clean" if place[1] == 0 else f"{place[0]} {place[1]:g}", fontsize=11)
            for number, name in enumerate(shown):
                height = np.exp(log_probs[name][place][which])
                bars.bar(
                    np.arange(10) + 0.28 * (number - 1), height, 0.28, color=STYLES[name]["color"],
                    label=name if (row, column) == (0, 0) else None,
                )  # fmt: skip
            bars.set_ylim(0, 1.05)
            bars.set_xticks(range(10))
            bars.tick_params(length=0, labelsize=8)
            bars.get_xticklabels()[labels[which]].set(fontweight="bold", color="#2a7f3f", fontsize=10)
            bars.set_yticks([0, 1] if column == 0 else [])
            bars.spines[["top", "right", "left"]].set_visible(False)
    for panel in grid[2 * len(chosen) :].ravel():
        panel.set_axis_off()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Probability of each class (the right one in green)")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=300, help="digits to learn from")
    parser.add_argument("--steps", type=int, default=800, help="training steps of the softmax classifier")
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
