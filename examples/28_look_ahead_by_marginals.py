"""A network of marginals as the look-ahead of a particle filter: where it pays at equal cost, and where it does not.

python examples/28_look_ahead_by_marginals.py [--particles 32] [--keys 24] [--steps 3000] [--output examples-output]

Two laws, known up to a constant, are drawn from site by site. A critical lattice of 100 spins, a third of them known:
the look-ahead makes each particle worth many, and costs more than that. A chain whose sum must come near a value that
it hardly ever reaches by itself: nothing tells a plain filter before the end. Exact answers by transfer matrices.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from posterax import EssBelow
from posterax_marginalization import Dense, DetailedBalance, Energy, MarginalizationModel, Marginals, card, pretrained
from posterax_models import IsingLattice
from posterax_particles import FeynmanKac, ParticleFilter, Twisted, run_filter

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NETWORK, SIDE, COUPLING = "ising-10x10-critical", 10, 0.4407
LENGTH, STAY, SUM, WITHIN, RIGHT = 32, 0.5, 60, 2.0, 0.5
COLOURS = {"plain, as many": "0.65", "plain": "0.15", "network alone": "C0", "look-ahead": "C3"}


class Scan(FeynmanKac):
    """One site after another is given a value, and weighed by the factors that it completes.

    - `given`: all sites, -1 where the value is not known. `order`: these sites, as they come.
    - `log_new`: function of (x, site, last): logs of the new factors for each value of the site, given x so far.
    - `log_seen`: `(sites, values)`, log-likelihoods of what was seen of each site.
    """

    given: jax.Array
    order: jax.Array
    log_new: Callable
    log_seen: jax.Array

    @property
    def num_values(self):
        return self.log_seen.shape[1]

    @property
    def num_steps(self):
        return len(self.order)

    def choices(self, t, before):
        x = self.given if before is None else before
        found = jax.vmap(x.at[self.order[t]].set)(jnp.arange(self.num_values, dtype=x.dtype))
        return found, jnp.full(self.num_values, -np.log(self.num_values))

    def start(self, *, key):
        return self.move(0, self.given, key=key)

    def move(self, t, before, *, key):
        return before.at[self.order[t]].set(jr.randint(key, (), 0, self.num_values, before.dtype))

    def log_start(self, x):
        return self.log_potential(0, self.given, x)

    def log_potential(self, t, before, x):
        return self.log_factors(t, before)[x[self.order[t]]] + np.log(self.num_values)

    def log_factors(self, t, before):
        """Logs of all that each value of the next site brings."""
        site = self.order[t]
        return self.log_new(before, site, t == self.num_steps - 1) + self.log_seen[site]


class ByConditionals(FeynmanKac):
    """The same scan, moved by a network's conditionals times what was seen."""

    scan: Scan
    model: Marginals

    @property
    def num_steps(self):
        return self.scan.num_steps

    def start(self, *, key):
        return self.move(0, self.scan.given, key=key)

    def move(self, t, before, *, key):
        return before.at[self.scan.order[t]].set(jr.categorical(key, self.log_move(t, before)).astype(before.dtype))

    def log_start(self, x):
        return self.log_potential(0, self.scan.given, x)

    def log_potential(self, t, before, x):
        value = x[self.scan.order[t]]
        return self.scan.log_factors(t, before)[value] - self.log_move(t, before)[value]

    def log_move(self, t, before):
        """Log probabilities of the values of the next site."""
        site = self.scan.order[t]
        told = self.model.log_probs(*known(before))[site] + self.scan.log_seen[site]
        return jax.nn.log_softmax(told)


def known(x):
    """As the network takes it: values, and which are known."""
    return jnp.maximum(x, 0).astype(jnp.int32), x >= 0


@dataclasses.dataclass
class Problem:
    """A law to be scanned, its network, and exact answers.

    - `log_so_far`: of x, -1 where nothing is known: log of all factors whose sites are known.
    - `log_z`: log of the evidence of the scan. `means`: of each site. `particles`: times as many as asked for.
    """

    name: str
    scan: Scan
    log_so_far: Callable
    network: MarginalizationModel
    log_z: float
    means: np.ndarray
    particles: int = 1


def lattice(share: float) -> Problem:
    """Spins on a torus of which a third are known; the network is part of the package."""
    law, network = IsingLattice(SIDE, SIDE, COUPLING, 0.0), pretrained(NETWORK)
    truth = np.asarray(law.sample(1, key=jr.key(0)))[0]
    given = np.where(np.random.default_rng(0).uniform(size=SIDE**2) < share, truth, -1)
    sites = np.arange(SIDE**2).reshape(SIDE, SIDE)
    near = jnp.asarray(np.stack([np.roll(sites, by, axis).ravel() for by in (-1, 1) for axis in (0, 1)], 1))

    def log_new(x, site, last):
        del last
        return law.coupling * jnp.sum(spins(x[near[site]])) * jnp.array([-1.0, 1.0])

    def log_so_far(x):
        s = spins(x).reshape(SIDE, SIDE)
        return law.coupling * jnp.sum(s * (jnp.roll(s, -1, 0) + jnp.roll(s, -1, 1)))

    log_sum, probs = law.given(given)
    log_z = log_sum - float(log_so_far(jnp.asarray(given)))  # the known sites among themselves are no part of the scan
    print(f"network of the lattice: shipped, trained in {card(NETWORK)['processor_seconds']} processor seconds")
    scan = Scan(jnp.asarray(given, jnp.int8), jnp.asarray(np.flatnonzero(given < 0)), log_new, jnp.zeros((SIDE**2, 2)))
    return Problem("critical lattice, a third known", scan, log_so_far, network, log_z, probs)


def spins(x):
    """-1 and 1; 0 where nothing is known."""
    return jnp.where(x < 0, 0.0, 2.0 * x - 1.0)


def chain(steps: int) -> Problem:
    """Three values that like to stay, their sum near a far value; the network is trained here, on the energy alone."""

    def log_new(x, site, last):
        values = jnp.arange(3)
        stays = jnp.where(site > 0, STAY * (values == x[site - 1]), 0.0)
        return stays + jnp.where(last, log_end(jnp.sum(jnp.maximum(x, 0)) + values), 0.0)

    def log_so_far(x):
        return STAY * jnp.sum((x[1:] == x[:-1]) & (x[1:] >= 0))

    began = time.perf_counter()
    energy = Energy(lambda x: log_so_far(x) + log_end(jnp.sum(x)), (3,) * LENGTH)
    objective = DetailedBalance(energy, num_chains=32, span=4)
    model = MarginalizationModel(Dense(32, 1), objective=objective, num_steps=steps, learning_rate=4e-3)
    network = model.fit(energy, key=jr.key(0), progress=False)
    print(f"network of the chain: trained here in {time.perf_counter() - began:.0f} s")
    rarely = exact_chain(np.zeros((LENGTH, 3)))[0] - np.log(3) - (LENGTH - 1) * np.log(np.exp(STAY) + 2)
    print(f"the chain's end weighs {np.exp(rarely):.1e} on average over the chain by itself")
    rng = np.random.default_rng(1)
    truth = np.asarray(network.sample(1, key=jr.key(1)))[0]
    seen = np.where(rng.uniform(size=LENGTH) < RIGHT, truth, (truth + rng.integers(1, 3, LENGTH)) % 3)
    log_seen = np.log(np.where(np.arange(3) == seen[:, None], RIGHT, (1 - RIGHT) / 2))
    log_z, means = exact_chain(log_seen)
    scan = Scan(jnp.full(LENGTH, -1, jnp.int8), jnp.arange(LENGTH), log_new, jnp.asarray(log_seen, jnp.float32))
    return Problem("chain seen through noise, its sum told at the end", scan, log_so_far, network, log_z, means, 8)


def log_end(total):
    """Log of the factor that the sum brings."""
    return -0.5 * ((total - SUM) / WITHIN) ** 2


def exact_chain(log_seen: np.ndarray) -> tuple[float, np.ndarray]:
    """Log Z and the mean of each site, by recursions over value and sum."""
    size, stay, seen = 2 * LENGTH + 1, np.exp(STAY * np.eye(3)), np.exp(log_seen)[:, :, None]

    def shifted(table, by):
        return np.stack([np.roll(row, by * value) for value, row in enumerate(table)])

    ahead = [seen[0] * shifted(np.eye(size)[[0, 0, 0]], 1)]
    back = [np.tile(np.exp(log_end(np.arange(size))), (3, 1))]
    for t in range(1, LENGTH):
        ahead.append(seen[t] * shifted(stay @ ahead[-1], 1))
        back.insert(0, stay @ shifted(seen[-t] * back[0], -1))
    each = np.stack([np.sum(one * two, 1) for one, two in zip(ahead, back, strict=True)])
    return float(np.log(each[0].sum())), each @ np.arange(3) / each.sum(1)


def look_ahead(problem: Problem) -> Twisted:
    """The network's marginal of what is known so far, over the factors so far: what is still to come."""
    model, _ = problem.network.fitted()

    def log_twist(t, x):
        return model.log_marginal(*known(x)) - problem.log_so_far(x)

    return Twisted(problem.scan, log_twist)


@dataclasses.dataclass
class Found:
    """Runs of one contender: log Z `(keys,)`, means of sites `(keys, sites)`, effective share `(keys, time)`."""

    num: int
    seconds: float
    log_z: np.ndarray
    means: np.ndarray
    share: np.ndarray

    def told(self, problem: Problem) -> str:
        """A line of the table."""
        error, off = self.log_z - problem.log_z, np.sqrt(np.mean((self.means - problem.means) ** 2))
        rmse = np.sqrt(np.mean(error**2))
        spread = np.std(error**2, ddof=1) / np.sqrt(len(error)) / (2 * rmse)
        return (
            f"{self.num:9,} {1000 * self.seconds:8.1f} {rmse:9.3f} +- {spread:5.3f} {np.mean(error):9.3f} {off:9.4f} "
            f"{100 * self.share.mean(0).min():8.1f}"
        )


def filtered(model: FeynmanKac, num: int, keys: int, resampled: bool = True) -> Found:
    """Particle filters; or, never resampled, importance sampling, whose weights mean something at the end alone."""
    sampler = ParticleFilter(num, when=EssBelow(0.5 if resampled else 1e-9), moments=False)

    @jax.jit
    def run(key):
        found = run_filter(sampler, model, key=key)
        means = jax.nn.softmax(found.state.log_weights) @ found.state.particles.astype(float)
        return found.log_evidence, means, found.stats["ess"][0 if resampled else -1 :] / num

    return repeated(run, num, keys)


def repeated(run: Callable, num: int, keys: int) -> Found:
    """One run a key; seconds are the median of all but the first, which compiles."""
    jax.block_until_ready(run(jr.key(keys)))
    found, seconds = [], []
    for number in range(keys):
        began = time.perf_counter()
        found.append(jax.block_until_ready(run(jr.key(number))))
        seconds.append(time.perf_counter() - began)
    return Found(num, float(np.median(seconds)), *(np.array(each, float) for each in zip(*found, strict=True)))


def compared(problem: Problem, particles: int, keys: int) -> dict[str, Found]:
    """All contenders: plain filters, with as many particles and for as many seconds, and the network both ways."""
    plain = Twisted(problem.scan, lambda t, x: 0.0)  # moves by the factors that each choice brings, no twist
    alone = ByConditionals(problem.scan, problem.network.fitted()[0])
    ahead = filtered(look_ahead(problem), particles, keys)

    def for_as_long(contender: Callable[[int, int], Found], pilot: int) -> Found:
        per_second = pilot / contender(pilot, 5).seconds
        return contender(max(particles, round(per_second * ahead.seconds)), keys)

    return {
        "plain, as many": filtered(plain, particles, keys),
        "plain": for_as_long(lambda num, keys: filtered(plain, num, keys), 40 * particles),
        "network alone": for_as_long(lambda num, keys: filtered(alone, num, keys, False), 4 * particles),
        "look-ahead": ahead,
    }


def main(particles: int, keys: int, steps: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    problems = [lattice(1 / 3), chain(steps)]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), layout="constrained")
    for problem, row in zip(problems, axes, strict=True):
        found = compared(problem, problem.particles * particles, keys)
        print(f"\n{problem.name}: {len(problem.scan.order)} sites, log Z {problem.log_z:.3f}, {keys} keys")
        print("                particles       ms    RMSE of log Z        bias  of means  least ESS %")
        for name, one in found.items():
            print(f"{name:15} {one.told(problem)}")
        rmse = {name: np.sqrt(np.mean((one.log_z - problem.log_z) ** 2)) for name, one in found.items()}
        told = ", ".join(f"{name} {rmse[name] / rmse['look-ahead']:.2f}" for name in ("plain", "network alone"))
        print(f"at about equal seconds, RMSE of log Z over that of the look-ahead: {told}")
        plot(row, problem, found)
    figure.savefig(output / "look_ahead_by_marginals.png", dpi=110)
    print(f"\n{time.perf_counter() - began:.0f} s; wrote {output / 'look_ahead_by_marginals.png'}")


def plot(axes, problem: Problem, found: dict[str, Found]) -> None:
    """Errors of log Z key by key; effective sizes along the sequence; errors of the means, site by site."""
    rng = np.random.default_rng(0)
    for place, (name, one) in enumerate(found.items()):
        colour, error = COLOURS[name], one.log_z - problem.log_z
        axes[0].plot(place + rng.uniform(-0.2, 0.2, len(error)), error, "o", ms=3, alpha=0.7, color=colour)
        last, label = len(problem.scan.order) - 1, f"{name}: {one.num:,}"
        at, style = (last, "D") if one.share.shape[1] == 1 else (np.arange(last + 1), "-")
        axes[1].plot(at, 100 * one.share.mean(0), style, ms=5, lw=1.4, color=colour, label=label)
        off = np.sqrt(np.mean((one.means - problem.means) ** 2, 0))[np.asarray(problem.scan.order)]
        axes[2].plot(np.maximum(off, 1e-4), color=colour, lw=1.2)
    axes[0].axhline(0, color="0.3", lw=0.8)
    axes[0].set_xticks(range(len(found)), [name.replace(", ", ",\n").replace(" alone", "\nalone") for name in found])
    if max(np.abs(one.log_z - problem.log_z).max() for one in found.values()) > 20:
        axes[0].set_yscale("symlog", linthresh=1.0)
    axes[0].set(title=problem.name, ylabel="error of log Z, nats")
    axes[1].set(ylabel="effective share of the particles, %", ylim=(0, 102))
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    axes[2].set(yscale="log", ylabel="error of the site's mean, rms over keys")
    for axis in axes[1:]:
        axis.set_xlabel("site, in the order of the scan")
    for axis in axes:
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=32)
    parser.add_argument("--keys", type=int, default=24)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    given = parser.parse_args()
    main(given.particles, given.keys, given.steps, given.output)
