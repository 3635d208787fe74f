"""Accuracy against tokens on a synthetic reasoning task: particle filters, ePF, and the plain ways to beat them.

python examples/11_reasoning_accuracy.py [--problems 200] [--particles 2 8 32] [--output examples-output]

A small language model, trained in this repository, solves chains of arithmetic with a dead end that shows late. The
reward is made overconfident by a dial, kappa. Everything runs inside one jitted program per method and size.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from posterax.weights import Multinomial
from posterax_models import ArithmeticReward, arithmetic_decoder, arithmetic_problems
from posterax_particles import DelayedSchedule, EntropicParticleFilter, EssSchedule, LookAhead, ParticleFilter
from posterax_particles.language import DecodedSteps, filter_tokens

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SCOUTED = LookAhead(1, mode="replace", correct=False)
METHODS = {  # target, sampler of n particles, tokens beside those of the answers
    "best of N": ("product", lambda n: EntropicParticleFilter(n, schedule=DelayedSchedule(1.0), moments=False), 0),
    "PF, multinomial": ("product", lambda n: ParticleFilter(n, resampler=Multinomial(), moments=False), 0),
    "PF, systematic": ("product", lambda n: ParticleFilter(n, moments=False), 0),
    "ePF": ("product", lambda n: EntropicParticleFilter(n, schedule=EssSchedule(), moments=False), 0),
    "ePF, look-ahead": (
        "product", lambda n: EntropicParticleFilter(n, schedule=EssSchedule(), look_ahead=SCOUTED, moments=False), 1
    ),
    "PF, telescoping target": ("telescoping", lambda n: ParticleFilter(n, moments=False), 0),
    "no selection in the first half": (
        "product", lambda n: EntropicParticleFilter(n, schedule=DelayedSchedule(0.5), moments=False), 0
    ),
}  # fmt: skip


@eqx.filter_jit
def solved(sampler, target, decoder, problems, kappa, key):
    """Whether the text with the best last reward has the right answer, for each problem."""
    prompts, answers, live, values = problems

    def one(problem):
        prompt, answer, live, values, number = problem
        reward = ArithmeticReward(live, values, number, kappa)
        model = DecodedSteps(decoder, prompt, reward, values.shape[-1] + 1, 2, target)
        found = filter_tokens(sampler, model, key=jr.fold_in(key, number))
        return found.tokens[jnp.argmax(found.log_potentials), -1] == answer

    num = len(prompts)  # in equal parts: a smaller last one would be compiled for itself
    size = next(size for size in range(max(1, 1024 // sampler.num_particles), 0, -1) if num % size == 0)
    return jax.lax.map(one, (prompts, answers, live, values, jnp.arange(len(prompts))), batch_size=size)


def main(problems: int, particles: list[int], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    made = arithmetic_problems(problems, seed=2024)
    arrays = tuple(jnp.asarray(part, jnp.int32) for part in (made.prompts, made.answers, made.live, made.values))
    decoder = arithmetic_decoder().unstacked()
    steps = made.num_steps
    kappas = (0.25, 1.0, 4.0)
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    print(f"{'':32}" + "".join(f"{f'kappa {kappa:g}, N = {max(particles)}':>22}" for kappa in kappas))
    for name, (target, make, scouts) in METHODS.items():
        table = np.array([
            [np.mean(solved(make(n), target, decoder, arrays, jnp.asarray(kappa), jr.key(0))) for kappa in kappas]
            for n in particles
        ])  # fmt: skip
        tokens = [2 * n * (steps + scouts * (steps - 1)) for n in particles]
        for panel, row in zip(panels, table.T, strict=True):
            panel.plot(tokens, row, "o-", markersize=3, linewidth=1.2, label=name)
        print(f"{name:32}" + "".join(f"{row[-1]:22.3f}" for row in table.T), flush=True)
    print(f"one standard error of {problems} problems is at most {0.5 / problems**0.5:.3f}")
    for panel, kappa in zip(panels, kappas, strict=True):
        title = {0.25: "timid reward", 1.0: "reward at face value", 4.0: "overconfident reward"}[kappa]
        panel.set(xscale="log", xlabel="tokens a problem", title=f"{title} (κ = {kappa:g})", ylim=(0, 1))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of problems solved")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(output / "reasoning_accuracy.png", dpi=110)
    print(f"wrote {output / 'reasoning_accuracy.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--particles", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
