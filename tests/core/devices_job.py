"""What is divided over devices: `python devices_job.py` runs it where there are several and prints figures as JSON."""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from posterax import (
    Batches,
    Draw,
    Estimator,
    Infer,
    Move,
    Objective,
    Plan,
    Reweight,
    Target,
    _population,
    sample,
    study,
    train,
)
from posterax_numpyro import HMC
from posterax_particles import Bootstrap, ParticleFilter, StateSpaceModel

KEY = jr.key(3)
DATA = np.array([1.0, -1.0])
MEAN, SD = DATA * 4 / 4.25, (1 / (1 / 4 + 4)) ** 0.5  # of the posterior
SEEN = np.sin(np.arange(12.0))
NUM = 4  # devices


def log_prior(x, y):
    del y
    return dist.Normal(0.0, 2.0).log_prob(x["x"]).sum()


def log_likelihood(x, y):
    return {"y": dist.Normal(x["x"], 0.5).log_prob(y)}


TARGET = Target(log_prior=log_prior, log_likelihood=log_likelihood, data=(DATA,), like={"x": jnp.zeros(2)})


class Wide(Estimator):
    def fit(self, data, *, key):
        return self

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2))


class Level(StateSpaceModel):
    noise: jax.Array

    def initial(self):
        return dist.Normal(0.0, 1.0)

    def transition(self, t, x):
        return dist.Normal(0.9 * x, 0.5)

    def emission(self, t, x):
        return dist.Normal(x, self.noise)


class Squares(Objective):
    def loss(self, model, batch, state, *, key):
        x, y = batch
        return jnp.mean((jax.vmap(model)(x)[:, 0] - y) ** 2), (state, {})


def kalman() -> float:
    """The exact log evidence of `SEEN`."""
    mean, variance, total = 0.0, 1.0, 0.0
    for y in SEEN:
        spread = variance + 0.49
        total -= 0.5 * (np.log(2 * np.pi * spread) + (y - mean) ** 2 / spread)
        gain = variance / spread
        mean, variance = 0.9 * (mean + gain * (y - mean)), 0.81 * gain * 0.49 + 0.25
    return total


def chains(plan, folder=None):
    return sample(HMC(num_warmup=100), TARGET, num_draws=50, num_chains=8, key=KEY, plan=plan, checkpoint=folder)["x"]


def moved(plan):
    move = Move(HMC(num_warmup=0, step_size=0.5), TARGET, steps=5)
    pipeline = Infer(Wide()) >> Draw(400, variable="x") >> Reweight(TARGET) >> move
    return pipeline.run(key=KEY, plan=plan)["x"]


def populations(plan, num=1024):
    model = Bootstrap(Level(jnp.asarray(0.7)), SEEN)
    return sample(ParticleFilter(num), model, num_chains=4, key=KEY, plan=plan).log_evidence


def trained(plan, folder=None):
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    data = Batches((x, np.sin(3 * x[:, 0])), 16)
    network = eqx.nn.MLP(1, 1, 8, 1, key=jr.key(0))
    found = train(network, Squares(), data, num_steps=60, key=KEY, plan=plan, checkpoint=folder)
    weights = jax.tree.leaves(eqx.filter(found.model, eqx.is_array))
    return np.concatenate([found.losses, *map(np.ravel, weights)])


def simulated(centre, *, key):
    draws = centre + jr.normal(key, (100,))
    return {"mean": draws.mean(), "covered": jnp.abs(draws.mean() - centre) < 0.196}


def studied(plan, folder=None):
    return study(simulated, np.linspace(0, 1, 50), key=KEY, on=plan, at_once=3, checkpoint=folder)


def shards() -> list:
    """On how many devices the particles of populations lie, and the shape of one part: `(populations, particles)`."""
    plan = Plan(devices=NUM, divide="particles")
    model, keys = Bootstrap(Level(jnp.asarray(0.7)), SEEN), plan.copy(jr.split(KEY, 4))
    weights = _population._begin(ParticleFilter(1024), model, keys, plan).log_weights
    return [len(weights.addressable_shards), list(weights.addressable_shards[0].data.shape)]


def refused() -> list[str]:
    """What is said of work that cannot be divided."""
    rows, plan = np.zeros(60, np.float32), Plan(devices=NUM)
    said = []
    for work in (
        lambda: train(jnp.zeros(()), Squares(), Batches((rows[:, None], rows), 15), num_steps=1, key=KEY, plan=plan),
        lambda: train(jnp.zeros(()), Squares(), None, num_steps=1, key=KEY, plan=plan),
        lambda: populations(Plan(devices=NUM, divide="particles"), 1023),
    ):
        try:
            work()
        except ValueError as error:
            said.append(str(error))
    return said


def values(plan: Plan, wide: Plan) -> dict[str, np.ndarray]:
    """What each kind of work gives."""
    return {
        "chains": chains(plan), "moved": moved(plan), "populations": populations(plan), "particles": populations(wide),
        "trained": trained(plan), "studied": studied(plan)["mean"],
    }  # fmt: skip


def figures() -> dict:
    """Distances between one device and several, and between two runs of the same plan."""
    many = Plan(devices=NUM), Plan(devices=NUM, divide="particles")
    divided, alone, again = values(*many), values(Plan(), Plan()), values(*many)
    told = {
        name: [float(np.abs(alone[name] - divided[name]).max()), np.array_equal(divided[name], again[name])]
        for name in divided
    }
    draws = divided["chains"]
    return {
        **told, "mean": (draws.mean((0, 1)) - MEAN).tolist(), "sd": (draws.std((0, 1)) / SD).tolist(),
        "evidence": [float(np.mean(divided[name]) - kalman()) for name in ("populations", "particles")],
        "covered": float(studied(many[0])["covered"].mean()), "shards": shards(), "refused": refused(),
    }  # fmt: skip


def hosts(folder: str) -> dict:
    """Of two processes: all that a process sees of results, as bytes; made at once, and resumed by half."""
    many, wide = Plan(devices=NUM), Plan(devices=NUM, divide="particles")
    sample(HMC(num_warmup=100), TARGET, num_draws=20, num_chains=8, key=KEY, plan=many, checkpoint=f"{folder}/chains")
    made = values(many, wide)
    trained(many, f"{folder}/trained")
    again = {"chains": chains(many, f"{folder}/chains"), "trained": trained(many, f"{folder}/trained")}
    return {
        "values": plain(made),
        "resumed": [np.array_equal(again[name], made[name]) for name in again],
        "processes": jax.process_count(), "devices": len(jax.devices()),
    }  # fmt: skip


def plain(found: dict) -> dict[str, list[float]]:
    """For JSON."""
    return {name: np.asarray(value, np.float64).tolist() for name, value in found.items()}


if __name__ == "__main__":
    both = Plan(devices=NUM), Plan(devices=NUM, divide="particles")
    print(json.dumps(plain(values(*both)) if sys.argv[1:] == ["values"] else figures()))
