"""A section of `posterax demo`: filters over the texts of a small language model, against the law of all its texts."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from posterax_models import ArithmeticReward, Decoder, DecoderConfig, arithmetic_decoder, arithmetic_problems

from ._filter import EntropicParticleFilter, ParticleFilter
from ._schedules import DelayedSchedule, EssSchedule
from .language import DecodedSteps, Written, filter_tokens

_LETTERS, _LENGTH = 4, 4
_RUNS = 500
_PROBLEMS, _PARTICLES, _KAPPA = 100, 8, 4.0


class _Table(eqx.Module):
    """A log potential for every text."""

    values: Array

    def __call__(self, written):
        place = jnp.arange(_LENGTH)
        seen = jnp.where(place <= written.step, written.tokens * _LETTERS**place, 0)
        return self.values[written.step, jnp.sum(seen)]


def language(report: Any) -> None:
    """Evidence against enumeration, and premature exploitation on a reasoning task."""
    report.say(f"a random decoder of {_LETTERS} letters, all {_LETTERS**_LENGTH} texts enumerated")
    config = DecoderConfig(_LETTERS, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    decoder = Decoder.init(config, key=jr.key(1)).unstacked()
    table = _Table(0.7 * jr.normal(jr.key(2), (_LENGTH, _LETTERS**_LENGTH)))
    model = DecodedSteps(decoder, jnp.array([1, 2]), table, _LENGTH, 1)
    exact = _evidence(model)
    rows = []
    for name, sampler in {
        "particle filter": ParticleFilter(8, moments=False),
        "annealed, residual weights": EntropicParticleFilter(
            8, schedule=EssSchedule(0.9, 1.0), correction="residual", moments=False
        ),
    }.items():
        found = jax.vmap(lambda key, sampler=sampler: filter_tokens(sampler, model, key=key).log_evidence)
        ratio = np.exp(np.asarray(jax.jit(found)(jr.split(jr.key(3), _RUNS)), float) - exact)
        rows.append((f"estimated over exact, {name}", ratio.mean(), ratio.std(ddof=1) / np.sqrt(_RUNS), 1.0))
    report.compare("Evidence of a language model's texts under a reward", rows)

    report.say(f"{_PROBLEMS} problems of chained arithmetic, {_PARTICLES} texts each, an overconfident reward")
    methods = {
        "PF": ParticleFilter(_PARTICLES, moments=False),
        "ePF": EntropicParticleFilter(_PARTICLES, schedule=EssSchedule(), moments=False),
        "no selection in the first half": EntropicParticleFilter(_PARTICLES, schedule=DelayedSchedule(), moments=False),
        "best of N": EntropicParticleFilter(_PARTICLES, schedule=DelayedSchedule(1.0), moments=False),
    }
    found = {name: _solved(sampler) for name, sampler in methods.items()}
    for name, (share, _) in found.items():
        error = np.sqrt(share * (1 - share) / _PROBLEMS)
        report.say(f"{name}: {share:.2f} ± {error:.2f} solved")
    report.picture(
        "lineages", lambda path: _plot(path, found),
        "How many first steps still have descendants: selection by an early reward throws most of them away.",
    )  # fmt: skip


def _evidence(model: DecodedSteps) -> float:
    """Log of the sum over all texts of chance times potentials."""
    texts, steps = jnp.array(list(itertools.product(range(_LETTERS), repeat=_LENGTH))), jnp.arange(_LENGTH)

    def mass(text):
        logits = model.decoder(jnp.concatenate([model.prompt, text]))[model.prompt.size - 1 : -1]
        chance = jnp.sum(jax.nn.log_softmax(logits)[steps, text])
        told = jax.vmap(lambda t: model.log_potential_of(Written(text, t, jnp.zeros(0), jnp.zeros(0))))(steps)
        return chance + jnp.sum(told)

    return float(jax.nn.logsumexp(jax.vmap(mass)(texts)))


def _solved(sampler: Any) -> tuple[float, np.ndarray]:
    """The share of problems solved, and the mean number of lineages at each step."""
    made, decoder = arithmetic_problems(_PROBLEMS, seed=11), arithmetic_decoder().unstacked()
    arrays = (made.prompts, made.answers, made.live, made.values, np.arange(_PROBLEMS))

    @jax.jit
    def run(arrays):
        def one(problem):
            prompt, answer, live, values, number = problem
            reward = ArithmeticReward(live, values, number, jnp.asarray(_KAPPA))
            model = DecodedSteps(decoder, prompt, reward, values.shape[-1] + 1, 2)
            found = filter_tokens(sampler, model, key=jr.fold_in(jr.key(0), number))
            best = jnp.argmax(found.log_potentials)
            return found.tokens[best, -1] == answer, found.trace["unique_lineages"]

        return jax.lax.map(one, arrays, batch_size=_PROBLEMS)

    right, lineages = run(tuple(jnp.asarray(part, jnp.int32) for part in arrays))
    return float(np.mean(right)), np.asarray(lineages, float).mean(axis=0)


def _plot(path: Any, found: dict[str, tuple[float, np.ndarray]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for name, (share, lineages) in found.items():
        axes.plot(
            1 + np.arange(len(lineages)),
            lineages,
            "o-",
            markersize=3,
            linewidth=1.2,
            label=f"{name}: {share:.0%} solved",
        )
    axes.set(xlabel="step", ylabel="first steps with descendants", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
