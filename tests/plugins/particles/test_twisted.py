"""Twisted models on enumerated paths: the same law whatever the twist, no variance where it is exact."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import posterax
import pytest
from posterax import Always, EssBelow
from posterax_particles import (
    Auxiliary,
    Bootstrap,
    FeynmanKac,
    Guided,
    ParticleFilter,
    Proposal,
    Twisted,
    run_filter,
    smooth,
)

from models import LEVELS, MOVES, SIGNAL, WALK, Chain, Walk, chain

SHORT = SIGNAL[:4]
PATHS = list(itertools.product(range(3), repeat=4))


class Rough(Proposal):
    """Moves that are not the chain's own."""

    def initial(self, observed):
        return dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5]))

    def transition(self, t, x, observed):
        return dist.Categorical(logits=-0.3 * (observed - LEVELS) ** 2 + 0.2 * x)


BASES = {
    "bootstrap": Bootstrap(Chain(), SHORT),
    "guided": Guided(Chain(), SHORT, Rough()),
    "auxiliary": Auxiliary(Bootstrap(Chain(), SHORT), lambda t, x: x),
    "twisted": Twisted(Bootstrap(Chain(), SHORT), lambda t, x: 0.4 * x - 0.1 * t),
}


def table(scale=3.0):
    """Any twist, also at the last time, where it must not count."""
    told = jnp.asarray(scale * np.random.default_rng(0).normal(size=(len(SIGNAL), 3)))
    return lambda t, x: told[t, x]


def exact():
    """What all observations after t are worth to a chain in each state at time t: the backward recursion."""
    moves, seen = np.asarray(MOVES, float), np.asarray(jax.vmap(chain().emission.log_prob)(SIGNAL), float)
    ahead = [np.ones(3)]
    for t in reversed(range(len(SIGNAL) - 1)):
        ahead.insert(0, moves @ (np.exp(seen[t + 1]) * ahead[0]))
    told = jnp.log(jnp.asarray(np.stack(ahead)))
    return lambda t, x: told[t, x]


def log_weights(model):
    """Log of moves times potentials, of every path."""

    @jax.jit
    def one(path):
        found, logs = model.choices(0, None)
        total = logs[path[0]] + model.log_start(found[path[0]])
        for t in range(1, model.num_steps):
            found, logs = model.choices(t, path[t - 1])
            total = total + logs[path[t]] + model.log_potential(t, path[t - 1], found[path[t]])
        return total

    return np.asarray([one(jnp.asarray(path)) for path in PATHS], float)


@pytest.mark.parametrize("base", BASES)
def test_paths_keep_their_weights_whatever_the_twist(base):
    before, after = log_weights(BASES[base]), log_weights(Twisted(BASES[base], table()))
    possible = before > -1e30
    assert possible.sum() == 55  # of 81: the others go from state 2 to state 1
    np.testing.assert_allclose(after[possible], before[possible], atol=1e-5)
    assert not (after[~possible] > -1e30).any()
    np.testing.assert_allclose(np.logaddexp.reduce(after[possible]), float(chain().log_likelihood(SHORT)), atol=1e-5)


@pytest.mark.parametrize("when", [Always(), EssBelow(0.5)])
def test_an_exact_twist_leaves_no_variance(when):
    model = Twisted(Bootstrap(Chain(), SIGNAL), exact())
    run = jax.jit(jax.vmap(lambda key: run_filter(ParticleFilter(4, when=when), model, key=key)))
    found = run(jr.split(jr.key(0), 20))
    likelihood = float(chain().log_likelihood(SIGNAL))
    np.testing.assert_allclose(found.state.log_evidence, likelihood, atol=1e-5)
    np.testing.assert_allclose(found.stats["log_evidence"], likelihood, atol=1e-5)  # at every time, the first included
    np.testing.assert_allclose(found.stats["ess"], 4, rtol=1e-5)


def test_constants_of_each_time_do_not_matter():
    twist, sampler = table(), ParticleFilter(16)
    shifted = Twisted(BASES["bootstrap"], lambda t, x: twist(t, x) + 5.0 * t - 3.0)
    models = Twisted(BASES["bootstrap"], twist), shifted
    found = [float(run_filter(sampler, m, key=jr.key(1)).log_evidence) for m in models]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_paths_by_backward_simulation_are_those_of_the_recursion():
    model = Twisted(Bootstrap(Chain(), SIGNAL), table(1.0))
    found = run_filter(ParticleFilter(4000, paths=True), model, key=jr.key(0))
    paths = np.asarray(smooth(found, model, 4000, key=jr.key(1)))
    shares = np.stack([(paths == k).mean(axis=0) for k in range(3)], axis=1)
    np.testing.assert_allclose(shares, chain().smooth(SIGNAL).probs, atol=0.05)


def test_the_density_of_moves_depends_on_what_was_before_as_it_must():
    model = Twisted(BASES["bootstrap"], table())
    for t, x in itertools.product((1, 2, 3), range(3)):
        apart = []
        for before in range(3):
            if MOVES[before, x] > 0:
                found, logs = model.choices(t, jnp.asarray(before))
                true = logs[x] + model.log_potential(t, jnp.asarray(before), found[x])
                apart.append(float(model.log_transition(t, jnp.asarray(before), found[x]) - true))
        assert np.ptp(apart) < 1e-5


def test_particles_are_those_of_the_model_itself():
    draws = posterax.sample(
        ParticleFilter(50, paths=True), Twisted(BASES["bootstrap"], table()), num_chains=2, key=jr.key(0),
        progress=False,
    )  # fmt: skip
    assert draws["states"].shape == (2, 50, 4)
    assert set(np.unique(draws["states"])) <= {0, 1, 2}


def test_models_that_cannot_be_listed_are_refused_with_the_cure():
    with pytest.raises(TypeError, match="Twisted runs on a FeynmanKac model; got Walk"):
        Twisted(Walk(), table())
    with pytest.raises(TypeError, match=r"got Normal of shape \(\)\. Else a guess can choose ancestors alone"):
        run_filter(ParticleFilter(4), Twisted(Bootstrap(Walk(), WALK), table()), key=jr.key(0))

    class Own(FeynmanKac):
        @property
        def num_steps(self):
            return 2

        def start(self, *, key):
            return jr.normal(key)

        def log_start(self, x):
            return x

        def move(self, t, before, *, key):
            return before

        def log_potential(self, t, before, x):
            return x

    with pytest.raises(NotImplementedError, match="Own has no `choices`"):
        run_filter(ParticleFilter(4), Twisted(Own(), table()), key=jr.key(0))
