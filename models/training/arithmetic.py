"""Trains the language model of the arithmetic task; about 15 minutes on 2 cores.

    python models/training/arithmetic.py [FOLDER]

First on faultless texts, half of them easy ones, until it can calculate; then on the texts of a writer who slips at one
value in ten and goes on from the wrong one: a model that never errs has nothing to reason about. The texts choose the
chain with the dead end in 70 of 100 cases.
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from posterax import Batches, Objective, __version__, train
from posterax_models._arithmetic import DECODER, STYLES, arithmetic_problems, arithmetic_tokens
from posterax_models._decoder import Decoder
from posterax_models._weights import write_weights

SEED, NUM_PROBLEMS, NUM_TEST, BATCH = 1, 200_000, 2_000, 64
DEAD_END = 0.7
EASY, EASY_SEED, SLIP_SEED = 0.6, 100, 200
SLIP = 0.1
CALCULATING, SLIPPING = 4_000, 2_500  # steps


class NextToken(Objective):
    """Cross-entropy of the tokens after the prompt, in nats."""

    prompt_length: int

    def init(self, model, *, key):
        """Nothing to remember."""
        return

    def loss(self, model, batch, state, *, key):
        """Mean over tokens and texts."""
        logits = jax.vmap(model)(batch[:, :-1])[:, self.prompt_length - 1 :]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, self.prompt_length :])
        return losses.mean(), (state, {})


def texts(problems, seed: int) -> np.ndarray:
    """Prompts with faultless continuations, `(n, tokens)`."""
    rng = np.random.default_rng(seed)
    num = len(problems)
    chain = np.where(rng.random(num) < DEAD_END, 1 - problems.live, problems.live)
    return np.concatenate([problems.prompts, problems.solutions(chain, rng.integers(len(STYLES), size=num))], axis=1)


def slipped(problems, seed: int) -> np.ndarray:
    """The same by a writer who slips, and calculates rightly from the wrong value."""
    written = texts(problems, seed)
    rng = np.random.default_rng(seed + 1)
    length = problems.prompts.shape[1]
    chain = (written[:, length] == arithmetic_tokens("B")[0]).astype(int)
    rows, now, dead = np.arange(len(problems)), problems.start, np.zeros(len(problems), bool)
    plus, minus, times, by_zero, exclaim = arithmetic_tokens("+-*/!")
    for i in range(problems.num_steps - 1):
        op, by = problems.ops[rows, chain, i], problems.operands[rows, chain, i]
        now = np.select([op == plus, op == minus, op == times], [now + by, now - by, now * by], now) % 10
        now = np.where(rng.random(len(now)) < SLIP, (now + rng.integers(1, 10, size=len(now))) % 10, now)
        dead |= op == by_zero
        written[:, length + 3 + 2 * i] = np.where(dead, exclaim, now)
    return written


@eqx.filter_jit
def errors(model, batch, prompt_length):
    """Chance of a wrong value at each step of faultless texts, `(steps,)`, and of choosing the first chain, `(n,)`."""
    logits = jax.vmap(model)(batch[:, :-1])[:, prompt_length - 1 :]
    right = jnp.take_along_axis(jax.nn.log_softmax(logits), batch[:, prompt_length:, None], axis=-1)[..., 0]
    return 1 - jnp.exp(right[:, 3::2]).mean(axis=0), jnp.exp(right[:, 0])


def stacked(model):
    """The decoder with its layers in one stack."""
    blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *model.blocks)
    return eqx.tree_at(lambda m: m.blocks, model, blocks)


def main(folder: Path) -> None:
    """Train, watch, write."""
    test = arithmetic_problems(NUM_TEST, seed=SEED + 1)
    data = jnp.concatenate([
        jnp.asarray(texts(arithmetic_problems(NUM_PROBLEMS // 2, seed=seed, easy=easy), seed))
        for seed, easy in ((SEED, 0.0), (SEED + EASY_SEED, EASY))
    ])  # fmt: skip
    held_out = jnp.asarray(np.concatenate([test.prompts, test.solutions(test.live, np.zeros(NUM_TEST, int))], axis=1))
    prompt_length = test.prompts.shape[1]
    model, key = Decoder.init(DECODER, key=jr.key(SEED)).unstacked(), jr.key(SEED)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 300, 5 * CALCULATING, 3e-4)
    later = optax.cosine_decay_schedule(1e-3, SLIPPING, 0.05)
    sloppy = jnp.asarray(slipped(arithmetic_problems(NUM_PROBLEMS, seed=SEED + SLIP_SEED), SEED + SLIP_SEED))
    began = time.time()
    for name, batches, rate, steps in (
        ("calculating", data, schedule, CALCULATING),
        ("slipping", sloppy, later, SLIPPING),
    ):
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))
        for done in range(500, steps + 1, 500):
            trained = train(
                model, NextToken(prompt_length), Batches(batches, BATCH), num_steps=done, key=key, optimiser=optimiser,
                checkpoint=folder / name, progress=False,
            )  # fmt: skip
            wrong, live = errors(trained.model, held_out, prompt_length)
            print(
                f"{name}: {done} steps, {time.time() - began:.0f} s: loss {trained.losses[-100:].mean():.4f}, "
                f"wrong {np.asarray(wrong).round(3)}, live chain {float(live.mean()):.3f}", flush=True,
            )  # fmt: skip
        model = trained.model
    mean_wrong = float(wrong.mean())
    card = {
        "network": "Decoder",
        "config": {name: getattr(DECODER, name) for name in ("vocab_size", "hidden_size", "num_layers", "num_heads")},
        "data": f"arithmetic_problems({NUM_PROBLEMS // 2}, seed={SEED}) and as many of seed {SEED + EASY_SEED} with "
        f"easy={EASY}, then arithmetic_problems({NUM_PROBLEMS}, seed={SEED + SLIP_SEED}) by a writer who slips at "
        f"{SLIP}; 70 % by the chain with the dead end; nothing else",
        "script": "models/training/arithmetic.py",
        "seed": SEED,
        "steps": CALCULATING + SLIPPING,
        "batch": BATCH,
        "device": "CPU, 2 cores",
        "versions": {"posterax": __version__, "jax": jax.__version__, "equinox": eqx.__version__},
        "scores": {
            "problems": f"arithmetic_problems({NUM_TEST}, seed={SEED + 1}), not trained on, in style a",
            "wrong_per_step": round(mean_wrong, 4),
            "live_chain": round(float(live.mean()), 4),
        },
    }
    write_weights(folder / "arithmetic.posterax", stacked(trained.model), card)
    print(json.dumps(card["scores"]))


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".cache") / "training" / "arithmetic"
    where.mkdir(parents=True, exist_ok=True)
    main(where)
