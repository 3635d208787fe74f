"""Shift robustness of classifiers: trained on clean digits, asked about corrupted ones (8 x 8 digits of scikit-learn).

`python tests/benchmarks/_nngp_digits.py [--seeds 5] [--small] [--output FILE.json]` prints the tables.

Each seed draws its own training rows, test rows and corruptions. All that is learnt is learnt from training rows, by
their evidence or its bound. Every model answers the same test images, so that differences are paired.

Groups of models:

- labels, shared: regression on one-hot labels with one kernel and one noise for all, the kernel given (3 hidden layers
  of ReLU, weight variance 2, bias variance 0.1), the noise by evidence; only the prior of s differs.
- labels, own: each with kernel and noise by its own evidence.
- variational: softmax likelihood, 100 inducing points, kernel, points and q by the bound.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

BINS = 15  # of confidence, for the expected calibration error
METRICS = ("accuracy", "nll", "ece", "brier")
BASELINES = {"labels, shared": "s by likelihood", "labels, own": "s by likelihood", "variational": "Gaussian"}
_CORRUPTIONS = {
    "noise": (0.15, 0.3, 0.5),  # standard deviation, of pixels in [0, 1]
    "impulse": (0.05, 0.15, 0.3),  # share of pixels set to 0 or 1
    "blur": (0.5, 0.8, 1.2),  # pixels
    "rotation": (15.0, 30.0, 45.0),  # degrees, either way
}


@dataclasses.dataclass(frozen=True)
class Size:
    """Of one run: rows to train on and to test, inducing points, training steps."""

    train: int
    test: int
    inducing: int
    steps: int


FULL, SMALL = Size(500, 300, 100, 1200), Size(100, 60, 20, 300)


# Data


def images_of_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images `(1797, 8, 8)` with pixels in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8) / 16.0, labels


def corrupted(images: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The images with noise, with impulses, blurred or rotated; pixels stay in [0, 1]."""
    from scipy import ndimage

    if kind == "noise":
        images = images + severity * rng.normal(size=images.shape)
    elif kind == "impulse":
        hit, white = rng.uniform(size=images.shape) < severity, rng.uniform(size=images.shape) < 0.5
        images = np.where(hit, white, images)
    elif kind == "blur":
        images = ndimage.gaussian_filter(images, (0, severity, severity))
    elif kind == "rotation":
        angles = severity * rng.choice([-1, 1], size=len(images))
        images = np.stack(
            [ndimage.rotate(image, angle, reshape=False, order=1) for image, angle in zip(images, angles, strict=True)]
        )
    else:
        raise ValueError(f"`kind` must be one of {', '.join(_CORRUPTIONS)}; got {kind!r}.")
    return np.clip(images, 0.0, 1.0)


def test_sets(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The clean images, and these under each corruption: "clean", "noise 0.15", ..."""
    made = {"clean": images}
    for kind, severities in _CORRUPTIONS.items():
        made |= {f"{kind} {severity:g}": corrupted(images, kind, severity, rng) for severity in severities}
    return made


def as_rows(images: np.ndarray) -> np.ndarray:
    """Rows of 64 numbers in [-1, 1]."""
    return 2.0 * images.reshape(len(images), -1) - 1.0


# Figures


def figures(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy; mean negative log probability of the label, in nats; expected calibration error; Brier score."""
    probs = np.exp(log_probs)
    chosen, sure = probs.argmax(axis=1), probs.max(axis=1)
    right = chosen == labels
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(np.sum(right[place == i]) - np.sum(sure[place == i])) for i in range(BINS)]
    return {
        "accuracy": float(np.mean(right)),
        "nll": float(-np.mean(log_probs[np.arange(len(labels)), labels])),
        "ece": float(np.sum(gaps) / len(labels)),
        "brier": float(np.mean(np.sum((probs - np.eye(probs.shape[1])[labels]) ** 2, axis=1))),
    }


# Models


def models(x: np.ndarray, labels: np.ndarray, size: Size, seed: int) -> dict[str, dict]:
    """Fitted classifiers, by group and name."""
    import jax.random as jr
    import numpyro.distributions as dist
    from posterax_nngp import BurrXII, MLPKernel, ScaleMixtureClassifier, ScaleMixtureNNGP

    key, kernel, one_hot = jr.key(seed), MLPKernel(3), np.eye(10)[labels]
    named = {
        "s = 1": (dist.Delta(1.0), False),
        "s by likelihood": (dist.Delta(1.0), True),
        "inverse gamma": (dist.InverseGamma(2.0, 2.0), False),
        "Burr XII": (BurrXII(2.0, 2.0), False),
    }
    noise = float(
        ScaleMixtureNNGP(kernel, dist.Delta(1.0), learn=("noise", "scale_prior")).fit((x, one_hot), key=key).noise
    )

    def by_labels(prior, learn_scale, **settings):
        settings = ScaleMixtureClassifier(kernel, prior, "labels", num_classes=10, learn_scale=learn_scale, **settings)
        return settings.fit((x, labels), key=key)

    def variational(prior):
        settings = ScaleMixtureClassifier(
            kernel,
            prior,
            num_classes=10,
            num_inducing=size.inducing,
            num_steps=size.steps,
            num_draws=8,
            learning_rate=0.05,
        )
        return settings.fit((x, labels), key=key, progress=False)

    shared = {name: by_labels(*one, learn_kernel=False, noise=noise) for name, one in named.items()}
    own = {name: by_labels(*one) for name, one in named.items()}
    softmax = {"Gaussian": variational(dist.Delta(1.0)), "Student-t": variational(dist.InverseGamma(2.0, 2.0))}
    return {"labels, shared": shared, "labels, own": own, "variational": softmax}


def one(seed: int, small: bool = False) -> dict:
    """`{"figures": {group: {model: {test set: {metric: value}}}}, "learnt": ..., "seconds": ...}` of one seed."""
    import scipy.linalg  # noqa: F401  the limit below holds for libraries that are loaded
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    with threadpool_limits(1):  # matrices are small here, and threads of LAPACK that wait cost more than they give
        return _one(seed, SMALL if small else FULL)


def _one(seed: int, size: Size) -> dict:
    import jax.random as jr

    began, rng = time.perf_counter(), np.random.default_rng(seed)
    images, labels = images_of_digits()
    order = rng.permutation(len(labels))
    train, test = order[: size.train], order[size.train : size.train + size.test]
    sets = test_sets(images[test], rng)
    x_new, y_new = np.concatenate([as_rows(each) for each in sets.values()]), labels[test]
    found: dict = {}
    learnt: dict = {}
    for group, fitted in models(as_rows(images[train]), labels[train], size, seed).items():
        for name, model in fitted.items():
            log_probs = np.asarray(model.infer(x_new, key=jr.key(seed)).logits, np.float64)
            parts = np.split(log_probs, len(sets))
            found.setdefault(group, {})[name] = {
                which: figures(part, y_new) for which, part in zip(sets, parts, strict=True)
            }
            learnt.setdefault(group, {})[name] = _learnt(model)
    return {"figures": found, "learnt": learnt, "seconds": time.perf_counter() - began}


def _learnt(model) -> dict[str, float]:
    """What the training rows have taught: evidence or bound in nats, kernel, noise, and the typical size of s."""
    known = model.regression if model.method == "labels" else model.process
    kernel = known.kernel
    told = {"weight_variance": float(kernel.weight_variance), "bias_variance": float(kernel.bias_variance)}
    if model.method == "labels":
        prior = known.scale_prior
        quad, count = float(known.knowledge.state["quad"]), known.knowledge.y.size
        told |= {
            "log_evidence": known.report["log_evidence"],
            "noise": float(known.noise),
            "quad_per_label": quad / count,
        }
        return told | ({"s": float(prior.v)} if hasattr(prior, "v") else {})
    return told | {"bound": float(-np.mean(model.report.losses[-50:])), "s": float(known.scale.level)}


# Tables


def summary(results: list[dict]) -> dict:
    """Means over seeds with standard errors, and paired differences to the group's baseline, both as [mean, error].

    `{group: {model: {test set: {metric: {"value": ..., "difference": ...}}}}}`; "all corrupted" averages over the
    corrupted sets within each seed. Differences are model minus baseline: negative is better, but for accuracy.
    """

    def values(group, name, which, metric):
        sets = results[0]["figures"][group][name]
        which = [each for each in sets if each != "clean"] if which == "all corrupted" else [which]
        return np.array([np.mean([run["figures"][group][name][each][metric] for each in which]) for run in results])

    def pair(sample):
        return [float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(len(sample))) if len(sample) > 1 else None]

    def row(group, name, which):
        base = BASELINES[group]
        return {
            metric: {
                "value": pair(values(group, name, which, metric)),
                "difference": pair(values(group, name, which, metric) - values(group, base, which, metric)),
            }
            for metric in METRICS
        }

    return {
        group: {
            name: {which: row(group, name, which) for which in (*sets, "all corrupted")} for name, sets in one.items()
        }
        for group, one in results[0]["figures"].items()
    }


def table(summed: dict, sets: tuple[str, ...] = ("clean", "all corrupted")) -> str:
    """The figures in words: value ± standard error, and below the paired difference to the baseline."""
    width = 20
    lines = []
    for which in sets:
        lines.append(f"\n{which}".ljust(width + 1) + "".join(metric.rjust(width) for metric in METRICS))
        for group, found in summed.items():
            lines.append(f"  {group}")
            for name, one in found.items():
                cells = one[which]
                lines.append(f"    {name}".ljust(width) + _cells(cells, "value", width))
                if name != BASELINES[group]:
                    lines.append("      less baseline".ljust(width) + _cells(cells, "difference", width))
    return "\n".join(lines)


def _cells(cells: dict, kind: str, width: int) -> str:
    sign = "+" if kind == "difference" else ""
    return "".join(
        f"{mean:{sign}.4f}{'' if error is None else f' ± {error:.4f}'}".rjust(width)
        for mean, error in (cells[metric][kind] for metric in METRICS)
    )


def study(seeds: int = 5, small: bool = False) -> dict:
    """Runs the seeds, prints the table, and returns plain data: settings, results of each seed, summary."""
    results = []
    for seed in range(seeds):
        results.append(one(seed, small))
        print(f"seed {seed}: {results[-1]['seconds']:.0f} s", flush=True)
    summed = summary(results)
    severities = tuple(f"{kind} {each[-1]:g}" for kind, each in _CORRUPTIONS.items())
    print(table(summed, ("clean", "all corrupted", *severities)))
    settings = {
        **dataclasses.asdict(SMALL if small else FULL),
        "seeds": seeds,
        "corruptions": _CORRUPTIONS,
        "bins": BINS,
    }
    return {"settings": settings, "results": results, "summary": summed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = study(given.seeds, given.small)
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")
