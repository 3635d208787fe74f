"""Runs that are killed: `python kill_job.py KIND FOLDER CHUNK DELAY` runs one with checkpoints, in small steps.

`make(kind)` gives a function of a checkpoint (or None) that runs it whole. The child gets its SIGKILL, from a thread of
its own, DELAY seconds after chunk CHUNK has begun: a killer in another process may find no core free until the run has
ended.
"""

import os
import signal
import sys
import threading
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
    Resample,
    Reweight,
    Sample,
    Target,
    _chains,
    _loop,
    _move,
    _train,
    sample,
    train,
)
from posterax_numpyro import HMC, NUTS

CHUNK = 8
CHUNKS = {"sample": 50, "train": 50, "pipeline": 50}


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


def make(kind):
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


def main():
    kind, folder, instant, delay = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    killer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
    begun = 0
    original = _loop.run

    def run(advance, state, **options):
        def counted(state, start, stop):
            nonlocal begun
            begun += 1
            if begun == instant:
                killer.start()
            return advance(state, start, stop)

        return original(counted, state, **options)

    _loop._FIRST_CHUNK = CHUNK
    _loop._next_size = lambda made, seconds: CHUNK
    for module in (_chains, _move, _train):
        module.run_loop = run
    make(kind)(Checkpoint(str(folder / "run"), every=0.0))
    killer.join()  # a run that ends within the delay is killed at its end


if __name__ == "__main__":
    import kill_job  # under its own name, so that its classes and functions are the same as the tests'

    kill_job.main()
