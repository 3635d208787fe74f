"""The synthetic reasoning task: accuracy of every method, across a dial of overconfidence, at equal cost.

One run of a method on a problem gives N texts of 11 steps of 2 tokens; its answer is that of the text with the best
last reward, unless the method votes. Problems, seeds and rewards are the same for all methods, so that differences are
paired by problem.
"""

import functools
import time
import zlib
from typing import Any, NamedTuple

import numpy as np
from _study import FULL, kept, study
from _timing import Figure, rows

NUM_PROBLEMS, SEEDS = 500, 5
PROBLEM_SEED = 77  # the language model has seen seeds 1 and 2, the probe 3
TOKENS_PER_STEP = 2
REWARDS = ("1/4", "1", "4", "learned")
KAPPA = {"1/4": 0.25, "1": 1.0, "4": 4.0}
MAIN = ("BoN", "PF", "PF systematic", "ePF")
SIZES = (2, 4, 8, 16, 32, 64)
BATCH = 1024  # particles at a time


class Method(NamedTuple):
    """How texts are made, and which one is the answer.

    - `target`: "product" or "telescoping".
    - `make`: the sampler of N particles.
    - `choose`: "best" last reward, "majority" or "vote" by rewards.
    - `scouts`: look-aheads of each particle and selection.
    """

    target: str
    make: Any
    choose: str = "best"
    scouts: int = 0

    def tokens(self, num: int, steps: int = 11) -> int:
        """Written in one run."""
        return num * TOKENS_PER_STEP * (steps + self.scouts * (steps - 1))


@functools.cache
def methods() -> dict[str, Method]:
    """All of them by name."""
    from posterax import EssBelow
    from posterax.weights import Multinomial
    from posterax_particles import (
        DelayedSchedule,
        EntropicParticleFilter,
        EntropySchedule,
        EssSchedule,
        LookAhead,
        ParticleFilter,
        TargetEssSchedule,
    )

    def plain(**settings):
        return lambda num: ParticleFilter(num, moments=False, **settings)

    def annealed(schedule, **settings):
        return lambda num: EntropicParticleFilter(num, schedule=schedule, moments=False, **settings)

    product, telescoping = "product", "telescoping"
    never, late = DelayedSchedule(1.0), DelayedSchedule(0.5)
    ess, replace = EssSchedule(), LookAhead(1, mode="replace", correct=False)
    exact_look, multiply = LookAhead(1), LookAhead(1, correct=False)
    return {
        "BoN": Method(product, annealed(never)),
        "weighted BoN": Method(product, annealed(never), "vote"),
        "self-consistency": Method(product, annealed(never), "majority"),
        "beam search": Method(product, "beam"),
        "PF": Method(product, plain(resampler=Multinomial())),
        "PF systematic": Method(product, plain()),
        "PF by ESS": Method(product, plain(when=EssBelow(0.5))),
        "ePF": Method(product, annealed(ess)),
        "ePF multinomial": Method(product, annealed(ess, resampler=Multinomial())),
        "ePF entropy": Method(product, annealed(EntropySchedule())),
        "ePF target ESS": Method(product, annealed(TargetEssSchedule(0.5, early_phase=0.5))),
        "ePF residual": Method(product, annealed(ess, correction="residual")),
        "no selection in first half": Method(product, annealed(late)),
        "telescoping": Method(telescoping, plain()),
        "telescoping by ESS": Method(telescoping, plain(when=EssBelow(0.5))),
        "telescoping ePF": Method(telescoping, annealed(ess)),
        "telescoping ePF residual": Method(telescoping, annealed(ess, correction="residual")),
        "telescoping, late": Method(telescoping, annealed(late, correction="residual")),
        "PF look-ahead": Method(product, plain(look_ahead=replace), scouts=1),
        "ePF look-ahead": Method(product, annealed(ess, look_ahead=replace), scouts=1),
        "ePF look-ahead, multiply": Method(product, annealed(ess, look_ahead=multiply), scouts=1),
        "telescoping look-ahead": Method(telescoping, plain(look_ahead=exact_look), scouts=1),
    }


@functools.cache
def variants() -> dict[str, Method]:
    """The annealed methods with other settings than their defaults, and with steps that were misjudged by four."""
    from posterax_particles import DelayedSchedule, EntropicParticleFilter, EssSchedule, LookAhead, ParticleFilter
    from posterax_particles._schedules import Schedule

    class Misjudged(Schedule):
        """A schedule that goes by a wrong number of steps."""

        of: Schedule
        factor: float

        def inverse_temperature(self, log_weights, progress):
            return self.of.inverse_temperature(log_weights, progress * self.factor)

    def annealed(schedule):
        return Method("product", lambda num: EntropicParticleFilter(num, schedule=schedule, moments=False))

    def ahead(num_scouts):
        look = LookAhead(num_scouts, mode="replace", correct=False)
        return Method("product", lambda num: ParticleFilter(num, look_ahead=look, moments=False), scouts=num_scouts)

    published, late = EssSchedule(), DelayedSchedule(0.5)
    return {
        "ePF, ess_threshold 0.25": annealed(EssSchedule(ess_threshold=0.25)),
        "ePF, ess_threshold 0.75": annealed(EssSchedule(ess_threshold=0.75)),
        "ePF, early_phase 0.25": annealed(EssSchedule(early_phase=0.25)),
        "ePF, early_phase 0.75": annealed(EssSchedule(early_phase=0.75)),
        "ePF, early_phase 1": annealed(EssSchedule(early_phase=1.0)),
        "ePF, steps 4 times too many": annealed(Misjudged(published, 0.25)),
        "ePF, steps 4 times too few": annealed(Misjudged(published, 4.0)),
        "no selection in first quarter": annealed(DelayedSchedule(0.25)),
        "no selection in first three quarters": annealed(DelayedSchedule(0.75)),
        "no selection in first half, steps 4 times too many": annealed(Misjudged(late, 0.25)),
        "no selection in first half, steps 4 times too few": annealed(Misjudged(late, 4.0)),
        "PF look-ahead by two": ahead(2),
    }


def spec(method: str) -> Method:
    """Of a method or a variant."""
    return {**methods(), **variants()}[method]


@functools.cache
def task(num: int = NUM_PROBLEMS, seed: int = PROBLEM_SEED):
    """Problems and the language model."""
    from posterax_models import arithmetic_decoder, arithmetic_problems

    return arithmetic_problems(num, seed=seed), arithmetic_decoder().unstacked()


@functools.cache
def _program():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    from posterax_models import ArithmeticReward, Probe
    from posterax_particles.language import DecodedSteps, TokenPopulation, filter_tokens

    def beam(model, num, key):
        width = min(4, num // 2) if num > 1 else 1
        x = model.starts(num, key=jr.fold_in(key, 0))

        def step(x, t):
            best = jnp.repeat(jax.lax.top_k(x["log_psi"], width)[1], num // width)
            x = jax.tree.map(lambda leaf: leaf[best], x)
            return model.moves(t, x, key=jr.fold_in(key, t)), None

        x, _ = jax.lax.scan(step, x, jnp.arange(1, model.num_steps))
        nothing = jnp.zeros(num)
        return TokenPopulation(x["tokens"], nothing, x["log_psi"], jnp.zeros(()), {})

    class Either(eqx.Module):
        """Either reward, so that one program serves both."""

        dial: ArithmeticReward
        probe: Probe
        learned: jax.Array

        def __call__(self, written):
            return jnp.where(self.learned, self.probe(written), self.dial(written))

    @eqx.filter_jit
    def program(sampler, num, target, decoder, problems, probe, kappa, learned, key):
        prompts, answers, live, values, numbers = problems
        steps = values.shape[-1] + 1

        def one(problem):
            prompt, answer, live, values, number = problem
            reward = Either(ArithmeticReward(live, values, number, kappa), probe, learned)
            model = DecodedSteps(decoder, prompt, reward, steps, TOKENS_PER_STEP, target)
            own = jr.fold_in(key, number)
            found = beam(model, num, own) if sampler == "beam" else filter_tokens(sampler, model, key=own)
            last, psi = found.tokens[:, -1], found.log_potentials
            digits = jnp.arange(10) == last[:, None]
            votes = {"best": None, "majority": digits.sum(axis=0), "vote": jax.nn.sigmoid(psi) @ digits}
            told = {name: found.trace[name] for name in ("ess", "unique_lineages") if name in found.trace}
            chosen = [last[jnp.argmax(psi)] if v is None else jnp.argmax(v) for v in votes.values()]
            return jnp.stack(chosen) == answer, told

        size = next(size for size in range(max(1, BATCH // num), 0, -1) if len(prompts) % size == 0)
        return jax.lax.map(one, (prompts, answers, live, values, numbers), batch_size=size)

    return program


def run(method: str, num: int, reward: str, seed: int, problems: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Whether each problem was solved, `(problems,)`, and the mean trace."""
    import jax.numpy as jnp
    import jax.random as jr
    from posterax_models import arithmetic_probe

    how = spec(method)
    made, decoder = task() if problems is None else (problems, task()[1])
    arrays = [made.prompts, made.answers, made.live, made.values, np.arange(len(made))]
    learned, kappa = reward == "learned", KAPPA.get(reward, 1.0)
    sampler = how.make if how.make == "beam" else how.make(num)
    chosen, told = _program()(
        sampler, num, how.target, decoder, [jnp.asarray(a, jnp.int32) for a in arrays], arithmetic_probe(),
        jnp.asarray(kappa), jnp.asarray(learned), jr.key(seed),
    )  # fmt: skip
    column = ("best", "majority", "vote").index(how.choose)
    return np.asarray(chosen)[:, column], {name: np.asarray(rows, float).mean(axis=0) for name, rows in told.items()}


def plan() -> list[tuple[str, int]]:
    """Every method and number of particles: all at 8 and 16, the main ones also elsewhere."""
    return [(method, num) for method in methods() for num in SIZES if method in MAIN or num in (8, 16)]


def whole(seed: int) -> dict[str, Any]:
    """One seed of the study: solved problems as bits, and traces, by reward, method and N."""
    found: dict[str, Any] = {}
    began = time.perf_counter()
    for method, num in plan():
        for reward in REWARDS:
            solved, told = run(method, num, reward, seed)
            found[f"{reward}|{method}|{num}"] = {
                "accuracy": float(solved.mean()),
                "solved": np.packbits(solved).tobytes().hex(),
                "tokens": methods()[method].tokens(num),
                **{name: np.round(row, 3).tolist() for name, row in told.items()},
            }
        print(f"  {time.perf_counter() - began:6.0f} s: {method}, {num}", flush=True)
    return found


def settings(seed: int) -> dict[str, Any]:
    """One seed of the variants at N = 16, as in `whole`."""
    found: dict[str, Any] = {}
    for method in variants():
        for reward in REWARDS:
            answers, _ = run(method, 16, reward, seed)
            found[f"{reward}|{method}|16"] = {
                "accuracy": float(answers.mean()), "solved": np.packbits(answers).tobytes().hex(),
                "tokens": spec(method).tokens(16),
            }  # fmt: skip
        print(f"  {method}", flush=True)
    return found


def solved(results: list[dict[str, Any]], reward: str, method: str, num: int) -> np.ndarray:
    """`(seeds, problems)`, from what `whole` gave."""
    bits = [np.frombuffer(bytes.fromhex(result[f"{reward}|{method}|{num}"]["solved"]), np.uint8) for result in results]
    return np.stack([np.unpackbits(row)[:NUM_PROBLEMS] for row in bits]).astype(float)


def difference(one: np.ndarray, other: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean paired difference of accuracies and its interval, by bootstrap over problems."""
    gaps = (one - other).mean(axis=0)
    rng = np.random.default_rng(zlib.crc32(gaps.tobytes()))
    means = gaps[rng.integers(len(gaps), size=(4000, len(gaps)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(gaps.mean()), float(low), float(high)


def _both(one: str, other: str, num: int, reward: str) -> tuple[np.ndarray, np.ndarray]:
    """Solved problems of two methods, `(seeds, problems)`, made anew."""
    found = [np.stack([run(method, num, reward, seed)[0] for seed in range(SEEDS)]) for method in (one, other)]
    return found[0].astype(float), found[1].astype(float)


@rows("epf-gain-8", "epf-gain-16", "epf-calm-8", "epf-calm-16")
def claim():
    """The published claim with its control: ePF against particle filtering with the same resampling scheme."""
    for num in (8, 16):
        mean, low, high = difference(*_both("ePF", "PF systematic", num, "4"))
        text = f"ePF - systematic PF at N = {num}, kappa 4: {mean:+.3f}, 95 % from {low:+.3f} to {high:+.3f}"
        yield f"epf-gain-{num}", Figure(low, text)
    for num in (8, 16):
        mean, low, high = difference(*_both("ePF", "PF systematic", num, "1/4"), level=0.9)
        text = f"the same at kappa 1/4: {mean:+.3f}, 90 % from {low:+.3f} to {high:+.3f}"
        yield f"epf-calm-{num}", Figure(max(abs(low), abs(high)), text)


def recommended(results: list[dict[str, Any]], num: int = 16) -> dict[str, Any]:
    """The method that is best at equal tokens across the dial: chosen on even problems, judged on odd ones.

    Methods with scouts have half the particles. What counts is the mean accuracy over the four rewards.
    """
    table = {}
    for method, spec in methods().items():
        size = num // (1 + spec.scouts)
        table[method] = np.stack([solved(results, reward, method, size) for reward in REWARDS])
    chosen = max(table, key=lambda method: table[method][:, :, ::2].mean())
    judged = {method: rows[:, :, 1::2].mean(axis=(1, 2)) for method, rows in table.items()}
    gaps = {
        method: difference(table[chosen][:, :, 1::2].mean(axis=0), rows[:, :, 1::2].mean(axis=0))
        for method, rows in table.items()
        if method != chosen
    }
    return {"chosen": chosen, "accuracy": judged, "ahead": gaps}


@rows("recommended")
def recommendation():
    """On the half of the problems that did not choose it, the recommended method is not behind any other."""
    results = study("reasoning", range(SEEDS), whole) if FULL else list(kept("reasoning", range(SEEDS)).values())
    if len(results) < SEEDS:
        yield "recommended", Figure(None, "the long study has not been run: FULL=1 make bench NAME=particles")
        return
    found = recommended(results)
    lines = [f"{found['chosen']} is chosen; on the other problems, N = 16 or equal tokens, by reward {REWARDS}:"]
    for method, row in sorted(found["accuracy"].items(), key=lambda item: -item[1].mean()):
        gap = found["ahead"].get(method)
        tail = "" if gap is None else f"   behind by {gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})"
        lines.append(f"  {method:28}" + " ".join(f"{value:.3f}" for value in row) + tail)
    yield "recommended", Figure(min(gap[2] for gap in found["ahead"].values()), "\n".join(lines))


@rows("settings")
def sensitivity():
    """How far accuracy depends on settings that nobody knows beforehand; reported, not judged."""
    over = range(2)
    results = study("reasoning-settings", over, settings) if FULL else list(kept("reasoning-settings", over).values())
    if len(results) < len(over):
        yield "settings", Figure(None, "the study of settings has not been run: FULL=1 make bench NAME=particles")
        return
    lines = [f"accuracy at N = 16 by reward {REWARDS}, 500 problems x {len(over)} seeds:"]
    for method in variants():
        lines.append(f"  {method:52}" + " ".join(f"{solved(results, r, method, 16).mean():.3f}" for r in REWARDS))
    yield "settings", Figure(len(variants()), "\n".join(lines))
