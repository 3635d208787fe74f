"""Runs that are killed: `python kill_job.py KIND FOLDER CHUNK DELAY SIGNAL` runs one with checkpoints, in small steps.

`make(kind)` gives a function of a checkpoint (or None) that runs it whole. The child gets its SIGKILL, or SIGINT twice,
from a thread of its own, DELAY seconds after chunk CHUNK (or case, or text) has begun: a killer in another process may
find no core free until the run has ended.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
from posterax import (
    Batches,
    Checkpoint,
    Draw,
    Estimator,
    Infer,
    Move,
    Objective,
    Plan,
    Resample,
    Reweight,
    Sample,
    Target,
    _chains,
    _loop,
    _move,
    _study,
    _train,
    sample,
    study,
    train,
)
from posterax_numpyro import HMC, NUTS
from posterax_particles.language import AtString, CallableModel, CallableReward, Reasoning, StepFilter, solve

CHUNK = 8
CHUNKS = {"sample": 50, "train": 50, "pipeline": 50, "study": 50, "fits": 50, "language": 50}  # how often `tick` comes
tick = lambda: None  # noqa: E731  (called when a chunk, a case or a text begins)


def log_density(x, data):
    return -0.5 * jnp.sum((x["x"] - data) ** 2 / (1 + x["x"][0] ** 2))


TARGET = Target(log_density, np.array([0.5, -1.0]), like={"x": jnp.zeros(2)})
ROWS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)


class Squares(Objective):
    def init(self, model, *, key):
        return jnp.zeros(())

    def loss(self, model, batch, state, *, key):
        noise = 0.1 * jr.normal(key, (batch.shape[0],))
        error = jnp.mean((batch[:, 1] - model(batch[:, :1].T)[0] + noise) ** 2)
        return error, (0.9 * state + 0.1 * error, {"mean": state})


class Network(eqx.Module):
    first: jnp.ndarray
    second: jnp.ndarray

    def __call__(self, x):
        return self.second @ jnp.tanh(self.first @ x)


class Wide(Estimator):
    def fit(self, data, *, key):
        return self

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2))


def simulate(number, *, key):
    draws = jr.normal(key, (20,)) + number
    return {"mean": draws.mean(), "sd": draws.std()}


def fit(number, *, key):
    tick()
    rng = np.random.default_rng(np.asarray(jr.key_data(key)).tolist())
    x, y = rng.normal(size=(2, 30))
    return {"slope": float(x @ y / (x @ x)), "number": number}


def write(prefix, seed):
    tick()
    return f"{np.random.default_rng(seed).choice(['heads', 'tails', 'edge'])}\n"


def judge(prefix):
    return (1 + prefix.text.count("heads")) / (2 + len(prefix))


def make(kind):
    if kind == "study":
        return lambda where: study(simulate, CHUNK * CHUNKS[kind], key=jr.key(4), on=Plan(), checkpoint=where)
    if kind == "fits":
        return lambda where: study(fit, CHUNKS[kind], key=jr.key(5), checkpoint=where)
    if kind == "language":
        problem = Reasoning("Toss.", CallableModel(write), CallableReward(judge), end=AtString("\n"), max_steps=10)
        return lambda where: solve(
            StepFilter(5), problem, key=jr.key(6), checkpoint=None if where is None else f"{where.folder}/replies.jsonl"
        )
    if kind == "sample":
        steps = CHUNK * CHUNKS[kind]
        return lambda where: sample(
            NUTS(num_warmup=steps // 4), TARGET, num_draws=steps - steps // 4, num_chains=2, key=jr.key(1),
            checkpoint=where,
        )  # fmt: skip
    if kind == "train":
        network = Network(jr.normal(jr.key(0), (5, 1)), jr.normal(jr.key(1), (1, 5)))
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-2, 400)))
        return lambda where: train(
            network, Squares(), Batches(ROWS, 7), num_steps=CHUNK * CHUNKS[kind], optimiser=optimiser, key=jr.key(2),
            checkpoint=where,
        )  # fmt: skip
    # HMC: compiling NUTS for two more stages is most of what a run would cost.
    frozen = HMC(num_warmup=0, step_size=0.5)
    pipeline = (
        Infer(Wide())
        >> Draw(64, variable="x")
        >> Reweight(TARGET)
        >> Resample()
        >> Move(frozen, TARGET, steps=CHUNK * 20)
        >> Sample(HMC(num_warmup=CHUNK * 10), TARGET, num_draws=CHUNK * 20, num_chains=2)
    )
    return lambda where: pipeline.run(key=jr.key(3), checkpoint=where)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)


def main():
    kind, folder, instant, delay = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    killer = threading.Timer(delay, interrupt if sys.argv[5] == "SIGINT" else kill)
    begun, original = 0, _loop.run

    def begin():
        nonlocal begun
        begun += 1
        if begun == instant:
            killer.start()

    def run(advance, state, **options):
        def counted(state, start, stop):
            begin()
            return advance(state, start, stop)

        return original(counted, state, **options)

    _loop._FIRST_CHUNK = CHUNK
    _loop._next_size = lambda made, seconds: CHUNK
    for module in (_chains, _move, _study, _train):
        module.run_loop = run
    global tick
    tick = begin
    if kind == "language":
        (folder / "run").mkdir(exist_ok=True)
    make(kind)(Checkpoint(str(folder / "run"), every=0.0))
    killer.join()  # a run that ends within the delay is killed at its end


if __name__ == "__main__":
    import kill_job  # under its own name, so that its classes and functions are the same as the tests'

    kill_job.main()
