"""What cannot be run is told so, in words with the cure; what goes wrong in a run has a documented outcome."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import posterax
import pytest
from posterax import SamplingError, Target, TargetError
from posterax_numpyro import HMC, NUTS
from posterax_particles import (
    Bootstrap,
    EntropicParticleFilter,
    FeynmanKac,
    Guided,
    Importance,
    LookAhead,
    ParticleFilter,
    ParticleGibbs,
    ParticleMarginal,
    Proposal,
    RandomWalk,
    TargetEssSchedule,
    TemperedSMC,
    conditional_sweep,
    run_filter,
    smooth,
    state_space_target,
)

from models import WALK, Chain, Optimal, Walk

MODEL = Bootstrap(Walk(), WALK)
KEY = jr.key(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParticleFilter(0), "`num_particles` must be an integer, 1 or more; got 0"),
        (lambda: ParticleFilter(10.0), "got 10.0"),
        (lambda: ParticleFilter(10, when=0.5), r"Always\(\) or EssBelow"),
        (lambda: ParticleFilter(10, resampler="systematic"), "scheme of posterax.weights"),
        (lambda: EntropicParticleFilter(10, correction="some"), '"none" or "residual"'),
        (lambda: EntropicParticleFilter(10, num_steps=0), "`num_steps` must be at least 1"),
        (lambda: TargetEssSchedule(0.0), r"`share` must lie in \(0, 1\]"),
        (lambda: LookAhead(0), "`num` must be an integer, 1 or more"),
        (lambda: LookAhead(mode="add"), '"multiply" or "replace"'),
        (lambda: ParticleGibbs(num_particles=1), "2 or more, as one particle is the reference itself; got 1"),
        (lambda: ParticleGibbs(moves=NUTS()), "`moves` must not adapt"),
        (lambda: ParticleMarginal(filter=ParticleFilter(9, look_ahead=LookAhead(correct=False))), "unbiased evidence"),
        (lambda: TemperedSMC(moves=HMC()), "without warm-up"),
        (lambda: TemperedSMC(ess_share=1.0), "`ess_share` must lie between 0 and 1"),
        (lambda: TemperedSMC(inverse_temperatures=[0.5, 0.2, 1.0]), "must ascend from above 0 to 1"),
        (lambda: Importance(0), "`num_draws` must be an integer"),
        (lambda: Importance(10, proposal="prior"), "`sample` and `log_prob`; str lacks"),
        (lambda: RandomWalk(scale=-1.0), "`scale` must be positive"),
        (lambda: Bootstrap(Walk(), jnp.zeros((0,))), "is empty"),
        (lambda: Bootstrap(Walk(), jnp.zeros((5, 2))), r"must have shape \(time\), .* got \(5, 2\)"),
        (lambda: Bootstrap(Walk(), {"a": np.zeros(3), "b": np.zeros(4)}), "one leading axis of time"),
        (lambda: Bootstrap(Walk(), np.float64(3.0)), "one leading axis of time"),
        (lambda: state_space_target(Walk(), jnp.zeros((5, 2))), "must have shape"),
        (lambda: state_space_target(Chain(), WALK), "one array of real numbers"),
        (lambda: state_space_target(lambda: numpyro.sample("a", dist.Normal()), WALK), "must return the StateSpaceM"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(make, message):
    with pytest.raises((ValueError, TypeError, TargetError), match=message):
        make()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: posterax.sample(ParticleFilter(9), Walk(), key=KEY), r"for a state-space model .*Bootstrap\(model"),
        (lambda: posterax.sample(TemperedSMC(9), MODEL, key=KEY), "samples a Target; got Bootstrap"),
        (lambda: posterax.sample(TemperedSMC(9), Target(lambda x: -x["x"] ** 2, like={"x": 0.0}), key=KEY), "prior"),
        (lambda: posterax.sample(Importance(9), Target(lambda x: -x["x"] ** 2, like={"x": 0.0}), key=KEY), "prior"),
        (lambda: posterax.sample(ParticleGibbs(), Target(lambda x: -x["x"] ** 2, like={"x": 0.0}), key=KEY),
         "state_space_target"),
        (lambda: posterax.sample(ParticleMarginal(), state_space_target(Walk(), WALK), key=KEY), "with parameters"),
        (lambda: run_filter(RandomWalk(), MODEL, key=KEY), "ParticleFilter or EntropicParticleFilter"),
        (lambda: smooth(run_filter(ParticleFilter(9), MODEL, key=KEY), MODEL, 3, key=KEY), "`paths=True`"),
        (lambda: conditional_sweep(MODEL, jnp.zeros(3), 5, key=KEY), "leading axis of 10"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be(run, message):
    with pytest.raises((ValueError, TypeError, TargetError), match=f"(?i){message}"):
        run()


def test_one_time_and_one_particle_are_enough():
    draws = posterax.sample(ParticleFilter(1), Bootstrap(Walk(), WALK[:1]), num_chains=2, key=KEY, progress=False)
    assert draws["states"].shape == (2, 1)
    assert draws.stats["ess"].shape == (2, 1)
    long = posterax.sample(ParticleFilter(1), MODEL, num_chains=2, key=KEY, progress=False)
    np.testing.assert_allclose(long.stats["ess"], 1)
    entropic = posterax.sample(EntropicParticleFilter(1), MODEL, num_chains=2, key=KEY, progress=False)
    assert np.isfinite(entropic["states"]).all()


class Wall(Bootstrap):
    """Nothing can be at time 4."""

    value: float = eqx.field(default=-np.inf, static=True)

    def log_potential(self, t, before, x):
        return jnp.where(t == 4, self.value, super().log_potential(t, before, x))


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_population_without_weight_is_an_error_with_the_draws_in_it(value):
    with pytest.raises(SamplingError, match="no particle of positive weight") as caught:
        posterax.sample(ParticleFilter(20), Wall(Walk(), WALK, value), num_chains=2, key=KEY, progress=False)
    draws = caught.value.draws
    good = np.isfinite(draws.stats["log_evidence"])
    np.testing.assert_array_equal(good, np.broadcast_to(np.arange(10) < 4, good.shape))  # it tells when it happened
    found = run_filter(ParticleFilter(20), Wall(Walk(), WALK, value), key=KEY)
    assert not np.isfinite(found.log_evidence)


def test_a_single_particle_without_weight_is_never_an_ancestor():
    class Half(Bootstrap):
        def log_potential(self, t, before, x):
            return jnp.where(x > 0, 0.0, -jnp.inf)

    found = run_filter(ParticleFilter(200, paths=True), Half(Walk(), WALK), key=KEY)
    history = found.state.history
    for t in range(2, 10):
        assert (np.asarray(history.particles[t - 1])[history.ancestors[t]] > 0).all()


class Undensed:
    """A law that can be drawn from, and no more."""

    def sample(self, key, shape=()):
        return jr.normal(key, shape)


def test_a_proposal_without_density_is_told_so():
    class Blind(Proposal):
        def initial(self, observed):
            return Undensed()

        def transition(self, t, x, observed):
            return Undensed()

    with pytest.raises(TypeError, match="has no density"):
        run_filter(ParticleFilter(9), Guided(Walk(), WALK, Blind()), key=KEY)


def test_backward_simulation_needs_a_transition_density():
    class Own(FeynmanKac):
        @property
        def num_steps(self):
            return 3

        def start(self, *, key):
            return jr.normal(key)

        def log_start(self, x):
            return -(x**2)

        def move(self, t, before, *, key):
            return before + jr.normal(key)

        def log_potential(self, t, before, x):
            return -(x**2)

    found = run_filter(ParticleFilter(9, paths=True), Own(), key=KEY)
    assert smooth(found, Own(), 4, key=KEY, method="genealogy").shape == (4, 3)
    with pytest.raises(NotImplementedError, match="log_transition"):
        smooth(found, Own(), 4, key=KEY)


def test_entries_that_belong_together_cannot_be_missing_alone():
    class Plane(Walk):
        independent: bool = eqx.field(default=False, static=True)

        def emission(self, t, x):
            if self.independent:
                return dist.Normal(jnp.stack([x, -x]), 1.0)
            return dist.MultivariateNormal(jnp.stack([x, -x]), jnp.eye(2) + 0.5)

    observed = np.zeros((4, 2))
    observed[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"single entries .* at time 2"):
        Bootstrap(Plane(), observed)
    apart = Bootstrap(Plane(independent=True), observed)
    assert float(apart.log_potential(2, 0.0, jnp.asarray(0.3))) == pytest.approx(
        float(dist.Normal().log_prob(0.3)), rel=1e-5
    )
    observed[2] = np.nan
    assert float(Bootstrap(Plane(), observed).log_potential(2, 0.0, jnp.asarray(0.3))) == 0


def test_a_proposal_sees_what_is_missing_as_nan():
    observed = WALK.at[2].set(jnp.nan)
    assert np.isnan(Guided(Walk(), observed, Optimal()).at(2))
