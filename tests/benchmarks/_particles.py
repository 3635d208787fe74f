"""What posterax_particles must reach: the speed of `particles`, of a loop written by hand, and of BlackJAX's pieces."""

import statistics
import time

import _decoder_speed
import _its_hub
import _particles_peers
import _reasoning
import _serve
from _particles_peers import DECAY, NOISE_SD, STEP_SD, N, T
from _race import race
from _timing import Figure, fresh, rows

_MANY, _STEPS = 1_000_000, 20


def program(num_particles: int = N, num_steps: int = T):
    """Our bootstrap filter of the peers' model, compiled at the first call."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    import numpyro.distributions as dist
    from posterax_particles import Bootstrap, ParticleFilter, StateSpaceModel, run_filter

    class Walk(StateSpaceModel):
        def initial(self):
            return dist.Normal(jnp.zeros(()), STEP_SD)

        def transition(self, t, x):
            return dist.Normal(DECAY * x, STEP_SD)

        def emission(self, t, x):
            return dist.Normal(x, NOISE_SD)

    sampler = ParticleFilter(num_particles, moments=False)
    model, key = Bootstrap(Walk(), _particles_peers.observations(num_steps)), jr.key(0)

    def once():
        found = jax.block_until_ready(run_filter(sampler, model, key=key))
        return np.array([found.log_evidence])

    return once


def seconds_a_particle(num_particles: int, repeats: int) -> float:
    """Median seconds of one step of one particle."""
    once = program(num_particles, _STEPS)
    once()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / (num_particles * _STEPS)


def _speed(row: str, environment: str | None, peer: str, name: str):
    @rows(row)
    def measure():
        figure, children = race(environment, ("_particles.py", "ours"), peer, (name,), "_particles_peers.py")
        if children:
            exact = _particles_peers.exact()
            off = ", ".join(f"{child.label} {child.value - exact:+.2f}" for child in children)
            if not all(abs(child.value - exact) < 2 for child in children):  # ten standard errors and more
                raise RuntimeError(f"log evidence less the exact one, {exact:.2f}: {off}")
            figure = Figure(figure.value, f"{figure.text}\nlog evidence less Kalman's {exact:.2f}: {off}")
        yield row, figure

    return measure


@rows("million")
def million():
    """Equal work of particles and steps takes equal time, from ten thousand to a million particles."""
    sizes = (N, 100_000, _MANY)
    found = [fresh("particles", "seconds_a_particle", size, max(3, 2 * _MANY // size // 10)) for size in sizes]
    text = ", ".join(f"N = {size:,}: {1e9 * one:.1f} ns" for size, one in zip(sizes, found, strict=True))
    yield "million", Figure(found[-1] / found[0], f"of a particle and step: {text}")


MEASURES = (
    _speed("speed-particles", "particles", "particles 0.4", "particles"),
    _speed("speed-naive", None, "a naive lax.scan with searchsorted", "naive"),
    _speed("speed-blackjax", "blackjax", "BlackJAX 1.7.1's systematic resampling in that loop", "blackjax"),
    million,
    *_decoder_speed.MEASURES,
    *_its_hub.MEASURES,
    _reasoning.claim,
    _reasoning.recommendation,
    _reasoning.sensitivity,
)

if __name__ == "__main__":
    _serve.serve(program)
