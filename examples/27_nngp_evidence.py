"""Which network made these data? Evidence of wide networks by tempered SMC with NUTS moves, beside quadrature.

python examples/27_nngp_evidence.py [--rows 15] [--particles 200] [--datasets 12] [--output examples-output]

Three wide networks of random scale, with laws on their variances and the noise. Tempered SMC goes from these laws to
the posterior; quadrature over all three hyper-parameters and a long run of NUTS check it. Then predictions: at the
hyper-parameters of maximum marginal likelihood, averaged over their posterior, and averaged over networks, too.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import numpyro.distributions as dist
from posterax import get, sample
from posterax_nngp import MLPKernel, ScaleMixtureNNGP
from posterax_particles import Importance, TemperedSMC

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NETWORKS = {"ReLU, 1 layer": (1, "relu"), "erf, 1 layer": (1, "erf"), "erf, 3 layers": (3, "erf")}
MIDDLE = {"kernel.bias_variance": 1.0, "kernel.weight_variance": 2.0, "noise": 0.05}
NAMES = tuple(MIDDLE)  # of hyper-parameters; their logarithms are normal around these, with standard deviation
WIDTH = 2.0
LAWS = {name: dist.LogNormal(float(np.log(value)), WIDTH) for name, value in MIDDLE.items()}
CENTRE = np.log(list(MIDDLE.values()))
SCALE = dist.InverseGamma(2.0, 2.0)
TRUTH = ScaleMixtureNNGP(MLPKernel(1, "erf", 6.0, 2.0), SCALE, 0.01, learn=())
MOVES = get("nuts")(num_warmup=0, step_size=0.6, max_tree_depth=4)


def simulated(rows: int, number: int):
    """Rows to learn from, and 200 fresh points of the same function with noise of their own."""
    rng = np.random.default_rng(number)
    x = np.concatenate([np.sort(rng.uniform(-2, 2, rows)), np.sort(rng.uniform(-2.5, 2.5, 200))])[:, None]
    y = np.asarray(TRUTH.prior(x, observation_noise=True).sample(jr.key(number)), float)
    return (x[:rows], y[:rows]), (x[rows:], y[rows:])


def model_of(network: str) -> ScaleMixtureNNGP:
    depth, activation = NETWORKS[network]
    return ScaleMixtureNNGP(MLPKernel(depth, activation, 2.0, 1.0), SCALE, 0.05)


class Quadrature(NamedTuple):
    """Log evidence, also by every second point; masses of standardised log hyper-parameters; their mean and sd."""

    log_evidence: float
    halved: float
    points: np.ndarray
    mass: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


@eqx.filter_jit
def _log_likelihood(target, z):
    def one(z):
        return target.density.terms({name: CENTRE[i] + WIDTH * z[i] for i, name in enumerate(NAMES)}).log_likelihood

    return jax.lax.map(one, z, batch_size=500)


def quadrature(target, num: int = 41) -> Quadrature:
    """The trapezoid rule between minus and plus four and a half standard deviations of the laws."""
    points = np.linspace(-4.5, 4.5, num)
    z = np.stack(np.meshgrid(points, points, points, indexing="ij"), -1).reshape(-1, 3)
    log_joint = np.asarray(_log_likelihood(target, jnp.asarray(z)), float) - 0.5 * (z**2).sum(-1)
    log_joint += 3 * np.log((points[1] - points[0]) / np.sqrt(2 * np.pi))
    total = np.logaddexp.reduce(log_joint)
    halved = np.logaddexp.reduce(log_joint.reshape(num, num, num)[::2, ::2, ::2].ravel()) + 3 * np.log(2)
    mass = np.exp(log_joint - total)
    mean = mass @ z
    sd = np.sqrt(mass @ (z - mean) ** 2)
    return Quadrature(float(total), float(halved), points, mass.reshape(num, num, num), mean, sd)


def standardised(draws) -> np.ndarray:
    """Standardised log hyper-parameters of draws, `(chain, draw, 3)`."""
    return (np.log(np.stack([draws[name] for name in NAMES], -1).astype(float)) - CENTRE) / WIDTH


def probabilities(log_evidence: np.ndarray) -> np.ndarray:
    """Of the networks, alike before the data; networks come first."""
    return np.exp(log_evidence - np.logaddexp.reduce(log_evidence, axis=0))


def evidence_table(data, particles: int) -> tuple[dict, dict]:
    """Prints the evidence of each network by all methods; gives what quadrature and tempered SMC found."""
    smc, many = tempered(particles), Importance(40 * particles)
    exact, found, rival = {}, {}, {}
    print(f"{'log evidence':16}{'quadrature':>11}{'halved':>9}{'tempered SMC':>18}{'steps':>6}{'s':>6}"
          f"{'importance from the laws':>26}{'ESS':>6}{'s':>6}")  # fmt: skip
    for network in NETWORKS:
        target = model_of(network).target(data, hyper_prior=LAWS)
        exact[network] = quadrature(target)
        (found[network], ours), (rival[network], theirs) = repeated(smc, target), repeated(many, target)
        print(f"{network:16}{exact[network].log_evidence:11.4f}{exact[network].halved:9.4f}{spread(evidences(found[network])):>18}"
              f"{found[network][0].stats['inverse_temperature'].shape[1]:6}{ours:6.2f}"
              f"{spread(evidences(rival[network])):>26}{rival[network][0].effective_sample_size() / 4:6.0f}"
              f"{theirs:6.2f}")  # fmt: skip
    print("(halved: by every second point; mean and standard deviation of twelve populations; seconds of four)")
    truth = probabilities(np.array([one.log_evidence for one in exact.values()]))
    ours, theirs = (probabilities(np.stack([evidences(runs) for runs in each.values()])) for each in (found, rival))
    print("probability      quadrature   tempered SMC   importance")
    for i, network in enumerate(NETWORKS):
        print(f"{network:16}{truth[i]:11.3f}{spread(ours[i]):>15}{spread(theirs[i]):>15}")
    return exact, found


def tempered(particles: int) -> TemperedSMC:
    return TemperedSMC(particles, MOVES, num_moves=1)


def repeated(sampler, target) -> tuple[list, float]:
    """Three runs of four populations, and the seconds of one, compiled."""
    runs, clock = [], []
    for number in range(3):
        clock.append(time.perf_counter())
        runs.append(sample(sampler, target, num_chains=4, key=jr.key(number), progress=False))
    return runs, (time.perf_counter() - clock[1]) / 2


def evidences(runs: list) -> np.ndarray:
    return np.concatenate([np.asarray(draws.log_evidence, float) for draws in runs])


def spread(values) -> str:
    values = np.asarray(values, float)
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def mean_of(values: np.ndarray) -> str:
    """With its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():.3f} ± {error:.3f}"


def moments_table(network: str, data, exact: Quadrature, runs: list) -> None:
    """Prints posterior moments of one network by quadrature, tempered SMC and a long run of NUTS."""
    target = model_of(network).target(data, hyper_prior=LAWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a divergence here and there; the moments stand beside the exact ones
        chains = sample(get("nuts")(num_warmup=300), target, num_draws=1000, key=jr.key(3), progress=False)
    print(f"\n{network}: mean and sd of standardised log hyper-parameters")
    print(f"{'':24}" + "".join(f"{name.removeprefix('kernel.'):>20}" for name in NAMES))
    told = {"quadrature": (exact.mean, exact.sd)}
    for method, each in (("tempered SMC, 12 runs", runs), ("NUTS, 4 x 1000 draws", [chains])):
        z = np.concatenate([standardised(draws) for draws in each])
        told[method] = (z.mean((0, 1)), z.std((0, 1)))
    for method, (mean, sd) in told.items():
        print(f"{method:24}" + "".join(f"{f'{a:.3f}, {b:.3f}':>20}" for a, b in zip(mean, sd, strict=True)))


def predictions(number: int, rows: int, particles: int) -> tuple[dict, dict]:
    """Mean negative log density of fresh points under each law; and what there is to draw of them."""
    data, (x, y) = simulated(rows, number)
    averaged, plug_in, evidence, best = [], [], [], []
    for network in NETWORKS:
        model = model_of(network)
        target = model.target(data, hyper_prior=LAWS)
        draws = sample(tempered(particles), target, num_chains=4, key=jr.key(4), progress=False)
        averaged.append(model.averaged(data, draws, x, num=100))
        evidence.append(np.logaddexp.reduce(np.asarray(draws.log_evidence, float)) - np.log(4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some evidences rise for ever, to no noise or an infinite variance
            fitted = model.fit(data, key=jr.key(5))
        plug_in.append(fitted.infer(x, joint=False))
        best.append(fitted.report["log_evidence"])
    weights, one, first = probabilities(np.array(evidence)), int(np.argmax(evidence)), int(np.argmax(best))
    each = np.stack([np.asarray(law.log_prob(y), float) for law in averaged])
    laws = {
        "of the truth": np.asarray(TRUTH.condition(data).infer(x, joint=False).log_prob(y), float),
        "maximum marginal likelihood": np.asarray(plug_in[first].log_prob(y), float),
        "averaged, likeliest network": each[one],
        "averaged over networks": np.logaddexp.reduce(np.log(weights)[:, None] + each, axis=0),
    }
    drawn = {"maximum marginal likelihood": plug_in[first], "averaged over hyper-parameters": averaged[one]}
    return {name: -float(value.mean()) for name, value in laws.items()}, {"data": data, "new": (x, y), "laws": drawn}


def main(rows: int, particles: int, datasets: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    data, _ = simulated(rows, 1)
    exact, found = evidence_table(data, particles)
    likeliest = max(exact, key=lambda network: exact[network].log_evidence)
    moments_table(likeliest, data, exact[likeliest], found[likeliest])
    told, drawn = zip(*(predictions(number, rows, particles) for number in range(1, datasets + 1)), strict=True)
    scores = {name: np.array([one[name] for one in told]) for name in told[0]}
    print(f"\nnegative log density of 200 fresh points, nats each, less that of the true law; {datasets} data sets")
    for name in list(scores)[1:]:
        excess = scores[name] - scores["of the truth"]
        print(f"{name:28} mean {mean_of(excess)}, median {np.median(excess):.3f}, worst {excess.max():.3f}")
    gain = scores["maximum marginal likelihood"] - scores["averaged over networks"]
    print(f"{'gained by averaging, paired':28} mean {mean_of(gain)}, positive in {np.sum(gain > 0)} of {datasets}")
    figure = plot(exact, found, likeliest, scores, drawn[0])
    figure.savefig(output / "nngp_evidence.png", dpi=110)
    print(f"wrote {output / 'nngp_evidence.png'}")


def plot(exact, found, likeliest: str, scores, drawn):
    """Evidences; the posterior of two hyper-parameters; bands of two laws; losses of prediction."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    places = np.arange(len(NETWORKS))
    axes[0, 0].plot(places, [one.log_evidence for one in exact.values()], "k_", markersize=28, label="quadrature")
    for place, runs in zip(places, found.values(), strict=True):
        axes[0, 0].plot(np.full(12, place), evidences(runs), "o", color="C0", markersize=4, alpha=0.6)
    axes[0, 0].plot([], [], "o", color="C0", markersize=4, label="populations of tempered SMC")
    axes[0, 0].set_xticks(places, NETWORKS)
    axes[0, 0].set(ylabel="log evidence", xlim=(-0.5, len(NETWORKS) - 0.5))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left", markerscale=0.4)

    one, z = exact[likeliest], standardised(found[likeliest][0])
    across, up = (np.exp(CENTRE[i] + WIDTH * one.points) for i in (1, 2))
    mass = one.mass.sum(0).T
    heights = np.sort(mass.ravel())[::-1]
    levels = heights[np.searchsorted(np.cumsum(heights), (0.99, 0.9, 0.5))]
    axes[0, 1].contourf(across, up, mass, [*levels, heights[0]], colors=["0.88", "0.74", "0.56"])
    places = np.exp(CENTRE[1:] + WIDTH * z[..., 1:]).reshape(-1, 2)
    axes[0, 1].plot(*places.T, ".", color="C0", markersize=2, alpha=0.5)
    low, high = (np.exp(CENTRE[1:] + WIDTH * (one.mean[1:] + side * 4 * one.sd[1:])) for side in (-1, 1))
    axes[0, 1].set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]),
                   xlabel="variance of weights", ylabel="noise",
                   title=f"{likeliest}: quadrature (grey) and particles")  # fmt: skip

    (x, y), (new, fresh) = drawn["data"], drawn["new"]
    for (name, law), colour in zip(drawn["laws"].items(), ("C3", "C0"), strict=True):
        mean, sd = np.asarray(law.mean), np.sqrt(np.asarray(law.variance))
        axes[1, 0].plot(new[:, 0], mean, color=colour, linewidth=1, label=name)
        axes[1, 0].fill_between(new[:, 0], mean - 2 * sd, mean + 2 * sd, color=colour, alpha=0.15, linewidth=0)
    axes[1, 0].plot(new[:, 0], fresh, ".", color="0.6", markersize=2)
    axes[1, 0].plot(x[:, 0], y, "o", color="0.15", markersize=4)
    axes[1, 0].set(xlabel="x", ylabel="y", title="mean ± 2 sd of new observations")
    axes[1, 0].legend(frameon=False, fontsize=8)

    excess = {name: scores[name] - scores["of the truth"] for name in list(scores)[1:]}
    axes[1, 1].plot(np.stack(list(excess.values())), "o-", color="0.7", markersize=3, linewidth=0.8)
    axes[1, 1].plot([each.mean() for each in excess.values()], "o", color="C0", markersize=7)
    axes[1, 1].set_xticks(
        range(3), ["maximum marginal\nlikelihood", "averaged,\nlikeliest network", "averaged over\nnetworks"]
    )
    axes[1, 1].set(ylabel="loss to the true law, nats a point", xlim=(-0.4, 2.4))
    for axis in axes.ravel():
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=15)
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--datasets", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.rows, given.particles, given.datasets, given.output)
