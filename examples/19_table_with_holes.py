"""A table of tumours: missing cells filled in and odd rows found, beside a circuit whose marginals are exact.

python examples/19_table_with_holes.py [--steps 1500] [--output examples-output]
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import optax
import pandas as pd
from posterax import Batches, train
from posterax_marginalization import Dense, MarginalizationModel
from posterax_models import CircuitLikelihood, TreeCircuit
from sklearn.datasets import load_breast_cancer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BINS = ("low", "medium", "high", "very high")


def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows: ten measurements in four bins each, and the diagnosis."""
    raw = load_breast_cancer(as_frame=True)
    table = pd.DataFrame(
        {name: pd.qcut(raw.data[name], len(BINS), labels=list(BINS)) for name in raw.data.columns[:10]}
    )
    table["diagnosis"] = pd.Categorical(np.where(raw.target == 1, "benign", "malignant"))
    order = np.random.default_rng(0).permutation(len(table))
    return table.iloc[order[:400]], table.iloc[order[400:]]


def main(steps: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    learned, test = data()
    learned = learned.mask(rng.uniform(size=learned.shape) < 0.1)  # a tenth of the cells was never filled in
    model = MarginalizationModel(Dense(128, 2, dropout=0.2), num_steps=steps, marginal_steps=steps, num_imagined=2048)
    fitted = model.fit(learned, key=jr.key(0))
    columns = fitted.columns

    # Imputation: a fifth of the test cells hidden; what probability does each method give to what was there?
    hidden = rng.uniform(size=test.shape) < 0.2
    x, _ = columns.encode(test)
    imputed = fitted.impute(test.mask(hidden), key=jr.key(1))
    print(imputed.head(3).to_string())
    at = np.nonzero(hidden)
    by_network = np.log(fitted.probs(x, ~hidden)[(*at, x[at])])
    codes, there = columns.encode(learned)
    counts = [np.bincount(codes[there[:, d], d], minlength=k) + 1.0 for d, k in enumerate(columns.num_values)]
    by_frequency = np.array([np.log(counts[d][x[n, d]] / counts[d].sum()) for n, d in zip(*at, strict=True)])
    circuit = learned_circuit(columns.num_values, codes, there, steps)
    by_circuit = circuit_probs(circuit, x, ~hidden)[at]
    print("\nmean log probability of a hidden cell, nats")
    print(
        f"  network {by_network.mean():.3f}, circuit {by_circuit.mean():.3f}, frequencies {by_frequency.mean():.3f}"
        f" ({len(by_network)} cells)"
    )

    # Outliers: rows in which half of the measurements come from other patients.
    mixed = test.copy()
    for name in test.columns[:5]:
        mixed[name] = test[name].to_numpy()[rng.permutation(len(test))]
    scores = [-fitted.log_marginal(rows, check=False) for rows in (test, mixed)]
    rival = [-np.asarray(_circuit_rows(circuit, columns.encode(rows)[0])) for rows in (test, mixed)]
    print(f"odd rows told from sound ones, area under the curve: network {auc(scores):.3f}, circuit {auc(rival):.3f}")
    print(fitted.error_report(test.head(50), key=jr.key(2)).words)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    bins = np.linspace(min(map(np.min, scores)), max(map(np.max, scores)), 30)
    left.hist(scores[0], bins, alpha=0.6, color="C0", label="test rows")
    left.hist(scores[1], bins, alpha=0.6, color="C3", label="half of the values from other rows")
    left.set(xlabel="outlier score: -log p of the row, nats", ylabel="rows")
    left.legend(frameon=False)
    names = list(test.columns)
    scored = [[logs[at[1] == d].mean() for d in range(len(names))] for logs in (by_network, by_circuit, by_frequency)]
    for offset, (label, values) in enumerate(zip(("network", "circuit", "frequencies"), scored, strict=True)):
        right.barh(
            np.arange(len(names)) + 0.27 * (1 - offset), values, 0.27, label=label, color=("C0", "C1", "0.7")[offset]
        )
    right.set_yticks(np.arange(len(names)), names)
    right.set(xlabel="mean log probability of hidden cells, nats")
    right.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.3, 1.0))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / "table_with_holes.png", dpi=110)
    print(f"wrote {output / 'table_with_holes.png'}")


def learned_circuit(num_values, codes, there, steps: int) -> TreeCircuit:
    """The exact-marginal competitor, on the same rows."""
    circuit = TreeCircuit.init(num_values, 8, key=jr.key(0))
    batches = Batches({"x": codes, "observed": there}, 100)
    return train(
        circuit,
        CircuitLikelihood(),
        batches,
        num_steps=steps,
        optimiser=optax.adam(1e-2),
        key=jr.key(3),
        progress=False,
    ).model


def circuit_probs(circuit: TreeCircuit, x, observed) -> np.ndarray:
    """Log probability of each value of `x` given the observed ones; means nothing where these are observed."""
    size = x.shape[1]

    @jax.jit
    def ratios(x, observed):
        def one(x, observed):
            each = jax.vmap(lambda d: circuit.log_marginal(x, observed | (jnp.arange(size) == d)))(jnp.arange(size))
            return each - circuit.log_marginal(x, observed)

        return jax.vmap(one)(x, observed)

    return np.asarray(ratios(x, observed))


@jax.jit
def _circuit_rows(circuit: TreeCircuit, x):
    return jax.vmap(lambda row: circuit.log_marginal(row, jnp.ones(row.shape, bool)))(x)


def auc(scores: list[np.ndarray]) -> float:
    """How often an odd row has the larger score."""
    sound, odd = scores
    return float(np.mean((odd[:, None] > sound) + 0.5 * (odd[:, None] == sound)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.steps, given.output)
