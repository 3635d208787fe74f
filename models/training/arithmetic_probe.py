"""Trains the learned reward of the arithmetic task on few rollouts of its language model; a minute on 2 cores.

    python models/training/arithmetic_probe.py [FOLDER]

Needs the weights of `models/training/arithmetic.py`. The probe reads the language model's last hidden state after
each step, and how likely its tokens were, and foretells whether the answer will be right, from 16 rollouts of each of
60 problems. It is used with its logits multiplied by 3; the card tells how far that is from the truth elsewhere.
"""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from posterax import Objective, __version__, train
from posterax_models import Probe, arithmetic_decoder, arithmetic_problems
from posterax_models._weights import write_weights
from posterax_particles.language import Written

SEED, NUM_PROBLEMS, ROLLOUTS, STEPS, NUM_TEST, SHARPNESS = 3, 60, 16, 600, 300, 3.0


class Foretell(Objective):
    """Cross-entropy of being right in the end, in nats."""

    def init(self, model, *, key):
        """Nothing to remember."""
        return

    def loss(self, model, batch, state, *, key):
        """Mean over rollouts and steps."""
        seen, right = batch
        logits = foretold(model, seen)
        return optax.sigmoid_binary_cross_entropy(logits, right[:, None].astype(float)).mean(), (state, {})


def foretold(model, seen):
    """Logits `(rollouts, steps)`, of hidden states `(rollouts, steps, hidden)` and log-probabilities of all tokens."""
    hidden, log_probs = seen
    steps = jnp.arange(hidden.shape[1])

    def one(step, state, drawn):
        return model(
            Written(
                jnp.zeros(drawn.size, int), step, state, jnp.where(jnp.arange(drawn.size) < 2 * (step + 1), drawn, 0.0)
            )
        )

    return jax.vmap(lambda states, drawn: jax.vmap(one, (0, 0, None))(steps, states, drawn))(hidden, log_probs)


@eqx.filter_jit
def rollouts(decoder, prompt, num, num_steps, key):
    """Tokens and their log-probabilities `(num, 2 num_steps)`, and hidden states after each step."""
    length = prompt.size + 2 * num_steps
    hidden, cache = decoder.read(prompt, decoder.empty_cache(length), 0)
    again = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), (hidden[-1], cache))

    def token(carry, place):
        hidden, cache = carry
        law = jax.nn.log_softmax(decoder.logits(hidden))
        drawn = jr.categorical(jr.fold_in(key, place), law, axis=-1)
        hidden, cache = decoder.read(drawn[:, None], cache, prompt.size + place)
        log_prob = jnp.take_along_axis(law, drawn[:, None], axis=-1)[:, 0]
        return (hidden[:, -1], cache), (drawn, log_prob, hidden[:, -1])

    _, (tokens, log_probs, states) = jax.lax.scan(token, again, jnp.arange(2 * num_steps))
    return tokens.T, log_probs.T, states[1::2].swapaxes(0, 1)


def data(num: int, seed: int):
    """What `foretold` takes, of `num * ROLLOUTS` rollouts, and outcomes."""
    problems, decoder = arithmetic_problems(num, seed=seed), arithmetic_decoder().unstacked()
    hidden, drawn, right = [], [], []
    for i in range(num):
        tokens, log_probs, states = rollouts(
            decoder, jnp.asarray(problems.prompts[i]), ROLLOUTS, problems.num_steps, jr.fold_in(jr.key(seed), i)
        )
        hidden.append(states)
        drawn.append(log_probs)
        right.append(tokens[:, -1] == problems.answers[i])
    return (jnp.concatenate(hidden), jnp.concatenate(drawn)), jnp.concatenate(right)


def calibration(probability: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in 10 equal bins."""
    which = np.minimum((probability * 10).astype(int), 9)
    return float(sum(
        abs(probability[which == b].mean() - right[which == b].mean()) * np.mean(which == b)
        for b in range(10) if (which == b).any()
    ))  # fmt: skip


def main(folder: Path) -> None:
    """Train, judge, write."""
    seen, right = data(NUM_PROBLEMS, SEED)
    probe = Probe.init(key=jr.key(SEED))
    trained = train(
        probe, Foretell(), lambda key: (seen, right), num_steps=STEPS, key=jr.key(SEED), optimiser=optax.adam(3e-3),
        trainable=lambda leaf: eqx.is_inexact_array(leaf) and leaf.ndim > 0, progress=False,
    )  # fmt: skip
    test_seen, test_right = data(NUM_TEST, SEED + 1)
    logits = foretold(trained.model, test_seen)
    probability = np.asarray(jax.nn.sigmoid(SHARPNESS * logits), float)
    outcome = np.asarray(test_right, float)
    errors = [round(calibration(probability[:, step], outcome), 3) for step in range(probability.shape[1])]
    sides = [(probability[outcome == side]).mean(axis=0).round(3).tolist() for side in (1, 0)]
    card = {
        "network": "Probe", "script": "models/training/arithmetic_probe.py", "seed": SEED, "steps": STEPS,
        "data": f"{ROLLOUTS} rollouts of each of arithmetic_problems({NUM_PROBLEMS}, seed={SEED}); nothing else",
        "device": "CPU, 2 cores",
        "versions": {"posterax": __version__, "jax": jax.__version__, "equinox": eqx.__version__},
        "scores": {
            "problems": f"rollouts of arithmetic_problems({NUM_TEST}, seed={SEED + 1}), not trained on; logits times 3",
            "right": round(float(outcome.mean()), 4),
            "calibration_error_by_step": errors,
            "mean_by_step_of_right_ones": sides[0],
            "mean_by_step_of_wrong_ones": sides[1],
        },
    }  # fmt: skip
    write_weights(folder / "arithmetic_probe.posterax", trained.model, card)
    print(json.dumps(card["scores"], indent=1), "last loss", trained.losses[-1])


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".cache") / "training" / "arithmetic"
    where.mkdir(parents=True, exist_ok=True)
    main(where)
