from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from posterax import (
    CheckpointError,
    Draw,
    Draws,
    EssBelow,
    Estimator,
    Infer,
    JointDistribution,
    Move,
    Pipeline,
    PipelineError,
    Plan,
    Resample,
    Reweight,
    Sample,
    Sampler,
    Stage,
    Target,
    load,
    save,
    weights,
)

KEY = jr.key(11)


class Wide(Estimator):
    """Infers a normal of twice the width, whatever the data."""

    scale: float = 2.0

    def fit(self, data, *, key):
        return self

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.Normal(0.0, self.scale)


class Exact(Sampler):
    """Draws the target anew: the fastest sampler of a normal with this mean and variance one."""

    mean: float = 1.0
    num_warmup: int = 0

    def init(self, target, position, *, key):
        return position

    def step(self, target, state, *, key):
        return jax.tree.map(lambda leaf: self.mean + jr.normal(key, leaf.shape), state), {"lp": jnp.zeros(())}

    def position(self, state):
        return state


class Adaptive(Exact):
    num_warmup: int = 100


def shifted(x, mean):
    return dist.Normal(mean, 1.0).log_prob(x["x"]) + jnp.log(3.0)


def normal(mean=1.0):
    return Target(shifted, np.array(mean), like={"x": 0.0})


def weigh(num=4000, chains=1):
    return Infer(Wide()) >> Draw(num, chains) >> Reweight(normal())


def within(estimates, truth):
    """Independent replicates, 5 standard errors: false alarms 6e-7; catches 7.3 of them with 99 %."""
    return abs(np.mean(estimates) - truth) < 5 * np.std(estimates, ddof=1) / np.sqrt(len(estimates))


# Numbers


def test_reweighted_draws_have_the_targets_moments_and_evidence():
    draws = weigh(100, chains=4000).run(key=KEY)
    w = np.exp(draws.log_weights)
    assert within(np.exp(draws.log_evidence), 3.0)  # the target integrates to 3
    assert within((w * draws["x"]).mean(1), 3.0 * 1.0)
    assert within((w * draws["x"] ** 2).mean(1), 3.0 * 2.0)
    record = draws.history[-1]
    assert record["step"] == "reweight"
    assert 0 < record["ess"] < 400_000
    assert record["pareto_k"] < 0.7


def test_resampling_keeps_the_distribution_and_the_evidence():
    pipeline = weigh(100, chains=4000) >> Resample()
    draws = pipeline.run(key=KEY)
    assert draws.log_weights is None
    assert draws.dependent
    # One population's resampled mean is that of its weighted mean; populations are independent, biased by 1/n.
    assert abs(draws["x"].mean(1).mean() - 1.0) < 0.03
    assert np.array_equal(draws.log_evidence, weigh(100, chains=4000).run(key=KEY).log_evidence)
    assert np.allclose(draws.log_density, shifted({"x": draws["x"]}, 1.0), atol=1e-5)


def test_a_population_without_weight_cannot_be_resampled():
    nowhere = Target(lambda x: jnp.where(x["x"] > 1e9, 0.0, -jnp.inf), like={"x": 0.0})
    weighted = (Infer(Wide()) >> Draw(20, 3) >> Reweight(nowhere)).run(key=KEY)
    assert np.isneginf(weighted.log_evidence).all()
    with pytest.raises(PipelineError, match="3 of 3 populations have no draw of positive weight"):
        Pipeline((Resample(),)).run(weighted, key=KEY)
    with pytest.raises(ValueError, match="there is nothing to resample from"):
        weighted.resample(5, key=KEY)


def test_moving_keeps_weights_and_updates_the_density():
    weighted = weigh(500).run(key=KEY)
    moved = (Move(Exact(), normal(), steps=3)).__rshift__(Resample(when=EssBelow(1e-9))).run(weighted, key=KEY)
    assert np.array_equal(moved.log_weights, weighted.log_weights)
    assert moved.stats["lp"].shape == (1, 500)
    assert np.allclose(moved.log_density, shifted({"x": moved["x"]}, 1.0), atol=1e-5)
    assert abs(moved["x"].mean() - 1) < 5 / np.sqrt(500)
    assert len(np.unique(moved["x"])) == 500


class Stretch(Sampler):
    """A walk with steps of one size in all directions: bound to fail where scales differ."""

    num_warmup: int = 0

    def init(self, target, position, *, key):
        return position

    def step(self, target, state, *, key):
        one, two = jr.split(key)
        new = {"x": state["x"] + 1.5 * jr.normal(one, state["x"].shape)}
        accept = jnp.log(jr.uniform(two)) < target.log_density(new) - target.log_density(state)
        return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, state), {"accepted": accept}

    def position(self, state):
        return state


def narrow(x, width):
    z = (x["x"] - jnp.array([5.0, -3.0])) / width
    return dist.Normal().log_prob(jnp.array([z[0], z[1] - z[0]])).sum()


def test_a_whitened_move_has_one_step_size_for_all_scales():
    width = np.array([1e-3, 10.0])
    target = Target(narrow, width, like={"x": jnp.zeros(2)})
    z = np.random.default_rng(0).normal(size=(1, 4000, 2))
    exact = np.array([5.0, -3.0]) + width * np.stack([z[..., 0], z[..., 0] + z[..., 1]], -1)
    # Weighted draws of another law, twice as wide: the space must be that of the weighted ones.
    wide = np.array([5.0, -3.0]) + 2 * (exact - np.array([5.0, -3.0]))
    log_density = lambda x, scale: np.asarray(jax.vmap(lambda v: narrow({"x": v}, scale * width))(x[0]))[None]  # noqa: E731
    given = Draws({"x": wide}, {}, log_density=log_density(wide, 2.0), log_weights=None)
    weighted = Pipeline((Reweight(target),)).run(given, key=KEY)
    moved, still = (
        Pipeline((Move(Stretch(), target, steps=8, whiten=whiten),)).run(weighted, key=KEY) for whiten in (True, False)
    )
    assert moved.stats["accepted"].mean() > 0.25
    assert still.stats["accepted"].mean() < 0.01
    assert np.array_equal(moved.log_weights, weighted.log_weights)
    assert np.allclose(moved.log_density, log_density(moved["x"], 1.0), atol=0.02)
    scaled = (moved["x"] - exact.mean((0, 1))) / width
    weights = np.exp(moved.flat_log_weights() - np.logaddexp.reduce(moved.flat_log_weights()))
    assert np.allclose(np.cov(scaled[0].T, aweights=weights), [[1, 1], [1, 2]], atol=0.2)
    assert moved.history[-1]["whitened"]


def test_each_step_of_a_move_has_a_key_of_its_own():
    weighted = weigh(50).run(key=KEY)
    one, two = (Pipeline((Move(Exact(), normal(), steps=n),)).run(weighted, key=KEY)["x"] for n in (1, 2))
    assert not np.isin(one, two).any()


def test_weights_of_two_reweightings_multiply():
    direct = (Infer(Wide()) >> Draw(50) >> Reweight(normal(0.3))).run(key=KEY)
    detour = (Infer(Wide()) >> Draw(50) >> Reweight(normal(2.0)) >> Reweight(normal(0.3))).run(key=KEY)
    assert np.allclose(direct.log_weights, detour.log_weights, atol=1e-4)
    assert np.allclose(direct.log_evidence, detour.log_evidence, atol=1e-4)


def test_draws_outside_the_support_weigh_nothing():
    half = Target(lambda x: jnp.where(x["x"] > 0, -x["x"], -jnp.inf), like={"x": 0.0})
    draws = (Infer(Wide()) >> Draw(2000) >> Reweight(half)).run(key=KEY)
    assert (np.isneginf(draws.log_weights) == (draws["x"] <= 0)).all()
    assert abs(np.exp(draws.log_evidence[0]) - 1.0) < 0.1
    nan = Target(lambda x: jnp.log(x["x"]), like={"x": 0.0})
    with pytest.raises(PipelineError, match="draws have a density that is NaN"):
        (Infer(Wide()) >> Draw(20) >> Reweight(nan)).run(key=KEY)


def test_sampling_starts_from_the_draws_that_come_in():
    class Still(Exact):
        def step(self, target, state, *, key):
            return state, None

    draws = (weigh(300) >> Sample(Still(), normal(), num_draws=2, num_chains=5)).run(key=KEY)
    before = weigh(300).run(key=KEY)
    assert np.isin(draws["x"].round(4), before["x"].round(4)).all()
    assert [step["step"] for step in draws.history] == ["draw", "reweight", "sample"]
    alone = Pipeline((Sample(Exact(), normal(), num_draws=50),)).run(key=KEY)
    assert alone.shape == (4, 50)


def test_a_joint_distribution_is_the_push_forward_of_its_base():
    target = Target(lambda x: -x["tau"], like={"mu": 0.0, "tau": 1.0}, support={"tau": constraints.positive})
    joint = JointDistribution(dist.MultivariateNormal(jnp.array([1.0, -0.5]), jnp.diag(jnp.array([0.25, 4.0]))), target)
    values = joint.sample(jr.key(0), (3, 20_000))
    assert values["tau"].shape == (3, 20_000)
    assert within(values["mu"].ravel(), 1.0)
    assert within(jnp.log(values["tau"]).ravel(), -0.5)
    exact = dist.Normal(1.0, 0.5).log_prob(values["mu"]) + dist.LogNormal(-0.5, 2.0).log_prob(values["tau"])
    assert np.allclose(joint.log_prob(values), exact, rtol=1e-3, atol=1e-3)
    one = joint.sample(jr.key(0))
    assert joint.log_prob(one).shape == ()
    assert jax.vmap(lambda k: joint.sample(k)["mu"])(jr.split(jr.key(1), 4)).shape == (4,)


def test_a_pipeline_can_be_followed_stage_by_stage():
    pipeline = weigh(30) >> Resample() >> Move(Exact(), normal(), steps=2)
    names, values = zip(*pipeline.follow(key=KEY), strict=True)
    assert list(names) == pipeline.names()
    assert isinstance(values[0], dist.Normal)
    assert eqx.tree_equal(values[-1], pipeline.run(key=KEY))
    assert eqx.tree_equal(values[2], weigh(30).run(key=KEY))
    wide = (weigh(30) >> Move(Exact(), normal())).follow(key=KEY, plan=Plan(precision=64))
    kept = [(value, jnp.zeros(1).dtype) for _, value in wide]
    assert {dtype for _, dtype in kept} == {jnp.dtype("float32")}  # the caller's turn
    assert [value["x"].dtype for value, _ in kept[1:]] == [np.float64] * 3
    with pytest.raises(PipelineError, match="takes draws; `value` is nothing"):
        (Reweight(normal()) >> Resample()).follow(key=KEY)


# Keys


def test_a_stage_put_behind_changes_nothing_before_it_and_one_between_no_other_stages_key():
    short = (Infer(Wide()) >> Draw(30)).run(key=KEY)
    long = weigh(30).run(key=KEY)
    assert np.array_equal(short["x"], long["x"])
    key_of = lambda draws, step: next(s["key"] for s in draws.history if s["step"] == step)  # noqa: E731
    plain = (weigh(30) >> Resample()).run(key=KEY)
    between = (weigh(30) >> Move(Exact(), normal()) >> Resample()).run(key=KEY)
    assert key_of(plain, "resample") == key_of(between, "resample")


def test_names_choose_keys_and_must_differ():
    one = (Infer(Wide()) >> Draw(5, name="a")).run(key=KEY)
    other = (Infer(Wide()) >> Draw(5, name="b")).run(key=KEY)
    assert not np.array_equal(one["x"], other["x"])
    with pytest.raises(PipelineError, match="Stages must have names of their own"):
        (Reweight(normal(), name="a") >> Resample(name="a")).run(one, key=KEY)


# Wrong compositions


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Infer(Wide()) >> Reweight(normal()),
         "Stage 1 `Infer` gives distribution, but stage 2 `Reweight` takes draws. Put `Draw"),
        (lambda: Draw(5) >> Infer(Wide()), "stage 2 `Infer` takes nothing. It can only come first"),
        (lambda: weigh(5) >> Draw(5), "Stage 3 `Reweight` gives draws, but stage 4 `Draw` takes distribution"),
        (lambda: (Infer(Wide()) >> Draw(5)) >> (Draw(5) >> Resample()), "stage 3 `Draw` takes distribution"),
        (lambda: Move(Adaptive(), normal()), "must be frozen; Adaptive adapts for 100 steps.*posterax.warm_up"),
        (lambda: Move(Wide(), normal()), "`sampler` of Move must be a Sampler; got Wide"),
        (lambda: weigh(5).run(weigh(5).run(key=KEY), key=KEY), "Stage 1 `Infer` takes nothing; `value` is draws"),
        (lambda: (Reweight(normal()) >> Resample()).run(key=KEY), "takes draws; `value` is nothing"),
        (lambda: (Infer(Wide()) >> Draw(5, variable="z") >> Reweight(normal())).run(key=KEY),
         r"`target` has the latents \['x'\]; the draws lack \['x'\]: they have \['z'\]"),
    ],
)  # fmt: skip
def test_wrong_compositions_are_told_in_words(build, words):
    with pytest.raises(PipelineError, match=words):
        build()


def test_what_is_no_stage_is_pythons_own_error():
    with pytest.raises(TypeError, match="unsupported operand"):
        Draw(5) >> 3  # pyright: ignore
    with pytest.raises(TypeError, match=r"`when` must be Always\(\) or EssBelow\(share\)"):
        Resample(when=lambda share: True)  # pyright: ignore
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\]; got 2"):
        EssBelow(2)
    with pytest.raises(ValueError, match="must be at least 1; got 0, 1"):
        Draw(0)
    with pytest.raises(ValueError, match="`steps` must be at least 1; got 0"):
        Move(Exact(), normal(), steps=0)


def test_draws_without_a_known_density_cannot_be_reweighted():
    draws = Draws({"x": np.zeros((1, 5))}, {})
    with pytest.raises(PipelineError, match="do not know the density they target; `Reweight` needs it"):
        Pipeline((Reweight(normal()),)).run(draws, key=KEY)


class Liar(Stage):
    name: str | None = None
    takes: ClassVar = ("draws",)
    gives: ClassVar = "draws"

    def __call__(self, value: Any, run, *, key):
        return 3


class Breaks(Liar):
    def __call__(self, value: Any, run, *, key):
        raise RuntimeError("boom")


def test_faults_of_a_stage_name_it():
    with pytest.raises(PipelineError, match="Stage 4 Liar#1 said it gives draws, and gave int"):
        (weigh(5) >> Liar()).run(key=KEY)
    with pytest.raises(RuntimeError, match="boom") as e:
        (weigh(5) >> Breaks()).run(key=KEY)
    assert any("In stage 4 of 4, Breaks#1 (`Breaks`)" in note for note in e.value.__notes__)


# Values


def test_composition_is_associative_and_pipelines_compare_as_values():
    a, b, c = Infer(Wide()), Draw(5), Reweight(normal())
    left, right = (a >> b) >> c, a >> (b >> c)
    assert eqx.tree_equal(left, right)
    assert left == right
    assert not eqx.tree_equal(left, a >> b >> Reweight(normal(2.0)))
    assert not eqx.tree_equal(left, a >> Draw(6) >> c)
    text = str(left)
    assert text.index("Infer") < text.index("Draw") < text.index("Reweight")


def test_a_pipeline_prints_a_line_a_stage_with_what_was_set():
    pipeline = (
        Infer(Wide(3.0), {"seen": np.zeros(2)}, dist.Normal(jnp.zeros(3), 1.0))
        >> Draw(5, variable="y")
        >> Reweight(normal(), name="there")
        >> Resample(when=EssBelow(0.5), scheme=weights.SSP())
        >> Move(Exact(), normal(), steps=2, whiten=True)
    )
    assert str(pipeline).splitlines() == [
        "Infer(estimator=Wide(scale=3), observed={seen: float64[2]}, prior=Normal[3])",
        ">> Draw(num_draws=5, variable='y')",
        ">> Reweight(target=Target(x), name='there')",
        ">> Resample(when=EssBelow(share=0.5), scheme=SSP())",
        ">> Move(sampler=Exact(), target=Target(x), steps=2, whiten=True)",
    ]
    assert str(Resample() >> Resample()) == "Resample()\n>> Resample()"


def test_a_saved_pipeline_comes_back_equal_and_gives_the_same_numbers(tmp_path):
    pipeline = weigh(40) >> Resample(when=EssBelow(0.9), scheme=weights.SSP()) >> Move(Exact(), normal())
    save(tmp_path / "p", pipeline)
    with pytest.raises(CheckpointError, match="pass an equal object as `like=`"):
        load(tmp_path / "p")
    back = load(tmp_path / "p", like=pipeline)
    assert eqx.tree_equal(back, pipeline)
    assert np.array_equal(back.run(key=KEY)["x"], pipeline.run(key=KEY)["x"])


def test_a_pipeline_goes_on_behind_its_last_draws(tmp_path, monkeypatch):
    whole = (weigh(40) >> Resample()).run(key=KEY)
    first = weigh(40).run(key=KEY, checkpoint=tmp_path / "run")
    calls = []
    infer = Wide.infer
    monkeypatch.setattr(Wide, "infer", lambda self, *a, **k: calls.append(1) or infer(self, *a, **k))
    again = weigh(40).run(key=KEY, checkpoint=tmp_path / "run")
    longer = (weigh(40) >> Resample()).run(key=KEY, checkpoint=tmp_path / "run")
    assert calls == []
    assert eqx.tree_equal(again, first)
    assert eqx.tree_equal(longer, whole)
    with pytest.raises(CheckpointError, match="belongs to another run: its key differ"):
        weigh(40).run(key=jr.key(0), checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match="belongs to another run: its stages differ"):
        weigh(41).run(key=KEY, checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match="under another plan or other versions"):
        weigh(40).run(key=KEY, checkpoint=tmp_path / "run", plan=Plan(precision=64))


class WantsFloat64(Exact):
    precision: ClassVar = 64


def test_a_move_by_a_sampler_marked_for_float64_has_it():
    weighted = weigh(10).run(key=KEY)
    assert weighted["x"].dtype == np.float32
    assert (Pipeline((Move(WantsFloat64(), normal()),))).run(weighted, key=KEY)["x"].dtype == np.float64


def test_a_whole_pipeline_runs_in_float64():
    draws = (weigh(40) >> Move(Exact(), normal())).run(key=KEY, plan=Plan(precision=64))
    assert draws["x"].dtype == np.float64
    assert np.allclose(draws.log_density, shifted({"x": draws["x"]}, 1.0), rtol=1e-4)
