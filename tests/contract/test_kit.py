"""The kit itself: what it says, how it counts, and what its cases do under pytest."""

import json
import re

import jax.numpy as jnp
import jax.random as jr
import mutate
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from posterax import Estimator, Objective, PosteraxError, Sampler, isolated
from posterax.plugin import ComponentSpec
from posterax.testing import (
    ConformanceError,
    JointModel,
    check_estimator,
    check_objective,
    check_sampler,
    checks,
    exact_start,
    geweke,
    parametrize_with_checks,
)
from posterax.testing._run import Runner
from posterax.testing._verdict import odds

RandomWalk = type(mutate.made("RandomWalk"))
KEY = jr.key(0)
pytestmark = pytest.mark.usefixtures("compiled_in_haste")


class Broken(RandomWalk):
    """A sampler to be broken."""

    def frozen(self, states):
        return type(self)(num_warmup=0)


class NoStep(Sampler):
    """Lacks `step`."""

    num_warmup: int = 0

    def init(self, target, position, *, key):
        return position

    def position(self, state):
        return state

    step = None  # pyright: ignore


class WrongShape(Broken):
    """Gives one number as its position."""

    def position(self, state):
        return state.log_density


class GrowingState(Broken):
    """Its state becomes float16."""

    def step(self, target, state, *, key):
        state, info = super().step(target, state, key=key)
        return type(state)(state.position, state.log_density.astype(jnp.float16), state.log_scale, state.steps), info


class GoesNaN(Broken):
    """Its position becomes NaN."""

    def step(self, target, state, *, key):
        state, info = super().step(target, state, key=key)
        position = {name: jnp.where(state.steps > 5, jnp.nan, value) for name, value in state.position.items()}
        return type(state)(position, state.log_density, state.log_scale, state.steps), info


class Raises(Broken):
    """Multiplies what does not fit, so that JAX complains."""

    def step(self, target, state, *, key):
        return jnp.ones((2, 3)) @ jnp.ones((2, 3)), None


class PositionalKey(Broken):
    """Takes another argument than `key`."""

    def init(self, target, position, seed):  # pyright: ignore
        return super().init(target, position, key=seed)


class KeyInState(Broken):
    """Keeps a key."""

    def init(self, target, position, *, key):
        return super().init(target, position, key=key), key


FAULTY = {
    NoStep: ("interface", "no method 'step'", "the methods init, step, position"),
    PositionalKey: ("interface", r"init\(target, position, seed\)", "2 positional arguments, and `key` by keyword"),
    WrongShape: ("shapes", r"position gives .*float32\[\]", r"beta.*float32\[2\]"),
    GrowingState: ("shapes", "'log_density' was float32.* and is now float16", "one structure, shape and dtype"),
    KeyInState: ("shapes", "the state holds random keys", "a state without keys"),
    Raises: (
        "shapes",
        r"`step` raised TypeError: .*\(in step, .*test_kit.py line \d+: `return jnp.ones",
        "`step` to work",
    ),
    GoesNaN: ("mixing", "NaN|not finite", "a run that reaches its end"),
}


@pytest.mark.parametrize("cls", FAULTY, ids=lambda cls: cls.__name__)
def test_a_broken_sampler_is_told_check_component_seen_and_expected(cls):
    check, seen, expected = FAULTY[cls]
    with pytest.raises(ConformanceError) as caught:
        check_sampler(cls(), tags={"exact"}, key=KEY, only=["interface", "shapes", "mixing"])
    outcome = caught.value.report[check]
    assert (outcome.status, outcome.component) == ("failed", cls.__name__)
    assert re.search(seen, outcome.seen, re.S), outcome.seen
    assert re.search(expected, outcome.expected, re.S), outcome.expected
    for part in (cls.__name__, repr(check), outcome.seen, outcome.expected):
        assert part in str(caught.value)
    assert "Traceback" not in str(caught.value)


class NoInfer(Estimator):
    """Lacks `infer`."""

    def fit(self, data, *, key):
        return self

    infer = None  # pyright: ignore


class WrongParameter(NoInfer):
    """Infers five numbers where there are two."""

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.Normal(jnp.zeros(5), 1.0).to_event(1)


class NaNScale(NoInfer):
    """Infers NaN."""

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.Delta(jnp.full(2, jnp.nan), event_dim=1)


@pytest.mark.parametrize(
    ("cls", "check", "seen"),
    [
        (NoInfer, "interface", "no method 'infer'"),
        (WrongParameter, "shapes", r"do not match the parameter, .*got an array of shape \(7, 5\)"),
        (NaNScale, "shapes", "draws that are not finite"),
    ],
)
def test_a_broken_estimator_is_told_what_is_wrong(cls, check, seen):
    with pytest.raises(ConformanceError, match=seen) as caught:
        check_estimator(cls(), tags={"exact", "amortised"}, key=KEY)
    assert caught.value.report[check].status == "failed"
    later = [outcome for outcome in caught.value.report.outcomes if outcome.check not in ("interface", "shapes")]
    assert {outcome.status for outcome in later} == {"skipped"}
    assert f"{check!r} failed, which this builds upon" in later[0].seen


class NoLoss(Objective):
    """Lacks `loss`."""

    loss = None  # pyright: ignore


class ManyLosses(Objective):
    """One loss a row."""

    def loss(self, model, batch, state, *, key):
        return batch[:, 0], (state, {})


class NaNLoss(Objective):
    """Always NaN."""

    def loss(self, model, batch, state, *, key):
        return jnp.nan * jnp.sum(batch), (state, {})


@pytest.mark.parametrize(
    ("cls", "check", "seen"),
    [
        (NoLoss, "interface", "no method 'loss'"),
        (ManyLosses, "shapes", r"a loss of shape \(64,\)"),
        (NaNLoss, "shapes", "a loss of nan"),
    ],
)
def test_a_broken_objective_is_told_what_is_wrong(cls, check, seen):
    with pytest.raises(ConformanceError, match=seen) as caught:
        check_objective(cls(), tags={"density-model"}, key=KEY)
    assert caught.value.report[check].status == "failed"


# Which checks, and what they need


def names(runner):
    return {check.name for check in runner.checks}


def test_tags_choose_the_checks_and_the_class_does_not():
    walk = mutate.made("RandomWalk")
    exact = names(Runner(walk, "sampler", key=KEY, level="standard", tags={"exact"}))
    rough = names(Runner(walk, "sampler", key=KEY, level="standard", tags={"approximate", "bias=0.2"}))
    assert "exact-start-regression" in exact - rough
    assert "known-answer-within-bias" in rough - exact
    assert "homogeneous" not in names(Runner(walk, "sampler", key=KEY, level="standard", tags={"exact", "auxiliary"}))
    assert "evidence" in names(Runner(walk, "sampler", key=KEY, level="smoke", tags={"exact", "population"}))
    smoke = names(Runner(walk, "sampler", key=KEY, level="smoke", tags={"exact"}))
    assert smoke < exact


def test_every_check_says_in_a_line_what_it_makes_sure_of():
    for kind in ("sampler", "estimator", "objective"):
        for check in checks(kind):
            assert check.summary.endswith("."), check.name
            assert re.fullmatch(r"[a-z0-9-]+", check.name)


def test_arguments_out_of_place_are_refused():
    walk = mutate.made("RandomWalk")
    with pytest.raises(ValueError, match="`level` must be one of smoke, standard, nightly; got 'deep'"):
        check_sampler(walk, tags={"exact"}, key=KEY, level="deep")
    with pytest.raises(ValueError, match=r"`only` names \['mixin'\]; the checks of a sampler are"):
        check_sampler(walk, tags={"exact"}, key=KEY, only=["mixin"])
    with pytest.raises(ValueError, match="RandomWalk is not registered, so `tags` must say what it promises"):
        check_sampler(walk, key=KEY)
    with pytest.raises(ValueError, match="The tag 'bias=much' must declare a bias between 0 and 1"):
        check_sampler(walk, tags={"approximate", "bias=much"}, key=KEY)
    with pytest.raises(TypeError, match="`key` of check_sampler must be a JAX random key; got the number 3"):
        check_sampler(walk, tags={"exact"}, key=3)  # pyright: ignore
    with pytest.raises(PosteraxError, match="no component of kind 'sampler' is called 'nutz'; did you mean 'nuts'"):
        check_sampler("nutz", key=KEY)


class NeedsSettings(Broken):
    """Cannot be made without a setting."""

    def __init__(self, size):
        super().__init__()


def example():
    return Broken(num_warmup=7)


def test_an_example_makes_the_instance_and_its_lack_is_explained():
    def spec(name, **more):
        target = f"{__name__}:NeedsSettings"
        return ComponentSpec(name, kind="sampler", target=target, summary="S.", tags={"exact"}, **more)

    with isolated(spec("bare"), spec("shown", example=f"{__name__}:example")):
        with pytest.raises(ValueError, match=r"local:bare cannot be made without size.*`example='module:function'`"):
            check_sampler("bare", key=KEY)
        report = check_sampler("shown", key=KEY, only=["interface"])
    assert (report.component, report.tags, report.passed) == ("local:shown", ("exact",), True)


class Remote(Broken):
    """A sampler that is stepped from Python."""

    host = True


def test_a_host_sampler_is_called_and_never_traced():
    report = check_sampler(
        Remote(num_warmup=2), tags={"exact", "host"}, key=KEY, only=["interface", "shapes", "reproducible", "pure"]
    )
    assert {outcome.check for outcome in report.outcomes} == {"interface", "shapes", "reproducible"}


# The report, expected failures, and the budget


def test_an_expected_failure_is_no_failure_and_an_unexpected_pass_is_one():
    tags, only = {"exact"}, ["interface", "shapes"]
    report = check_sampler(
        WrongShape(), tags=tags, key=KEY, only=only, expected_failed_checks={"shapes": "positions are to be mended"}
    )
    assert (report["shapes"].status, report.passed) == ("expected-failure", True)
    assert "positions are to be mended" in str(report)
    report = check_sampler(
        Broken(), tags=tags, key=KEY, only=only, expected_failed_checks={"shapes": "was so once"}, throw=False
    )
    assert (report["shapes"].status, report.passed) == ("unexpected-pass", False)
    assert "take it out of `expected_failed_checks`" in str(report)


def test_the_report_is_readable_and_strict_json():
    report = check_objective(
        mutate.made("Likelihood"), tags={"density-model", "proper"}, key=jr.key(5), only=["shapes", "score"]
    )
    text = str(report)
    assert "2 passed" in text
    assert "1 statistical checks; a correct component fails such a run by chance with probability below 1e-06" in text
    data = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert data["passed"] is True
    assert data["key"] == {"impl": "fry", "data": [0, 5]} or data["key"]["data"] == [0, 5]
    (stage,) = data["outcomes"][-1]["stages"]
    assert (stage["stage"], stage["size"]) == ("screen", 1)
    assert stage["p_value"] > stage["threshold"] == 1e-3


@pytest.mark.parametrize(("second", "status"), [(1e-3, "passed"), (1e-4, "failed")])
def test_a_check_is_repeated_with_fresh_keys_and_four_times_the_size(second, status):
    runner = Runner(mutate.made("RandomWalk"), "sampler", key=KEY, level="standard", tags={"exact"})
    (check,) = [check for check in runner.checks if check.name == "known-answer"]
    made = []

    def run(context):
        """Says what it is told."""
        made.append((context.size, tuple(jr.key_data(context.key).tolist())))
        return odds([1e-4, second][len(made) - 1], "odd", "even")

    object.__setattr__(check, "run", run)
    try:
        outcome = runner.run("known-answer")
    finally:
        from posterax.testing._sampler_law import known_answer

        object.__setattr__(check, "run", known_answer)
    assert outcome.status == status
    assert [size for size, _ in made] == [4, 16]
    assert made[0][1] != made[1][1]
    number = sum(check.statistical for check in runner.checks)
    assert [stage["threshold"] for stage in outcome.stages] == [1e-3, 1e-3 / number]


def test_pytest_cases_skip_fail_and_expect_as_the_outcomes_say(pytester_like):
    cases = pytester_like(
        [(WrongShape(), {"exact"})], expected_failed_checks={"WrongShape": {"shapes": "to be mended"}}
    )
    by_id = {case.id: case for case in cases}
    assert by_id["WrongShape-interface"].values[0]() is None
    (mark,) = by_id["WrongShape-shapes"].marks
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "to be mended", "strict": True})
    with pytest.raises(AssertionError, match="position gives"):
        by_id["WrongShape-shapes"].values[0]()
    with pytest.raises(pytest.skip.Exception, match="'shapes' failed"):
        by_id["WrongShape-mixing"].values[0]()
    with pytest.raises(ValueError, match=r"expected_failed_checks` names \['shape'\]"):
        pytester_like([(Broken(), {"exact"})], expected_failed_checks=lambda name: {"shape": "no such check"})


@pytest.fixture
def pytester_like():
    return lambda components, **options: parametrize_with_checks(components, **options).args[1]


# Diagnostics for users: a model of their own


def coin(num, heads=None):
    p = numpyro.sample("p", dist.Beta(2, 2))
    numpyro.sample("heads", dist.Normal(p, 0.3).expand([num]).to_event(1), obs=heads)


def test_a_numpyro_model_is_simulated_and_conditioned():
    joint = JointModel.from_numpyro(coin, 3, observed="heads")
    parameter, observed = joint.simulate(key=KEY)
    assert set(parameter) == {"p"}
    assert observed.shape == (3,)
    target = joint.target(observed)
    exact = dist.Beta(2, 2).log_prob(parameter["p"]) + dist.Normal(parameter["p"], 0.3).log_prob(observed).sum()
    terms = target.density.terms(target.unconstrain(parameter))
    np.testing.assert_allclose(terms.log_joint, exact, rtol=1e-5)
    with pytest.raises(ValueError, match=r"`observed` must name a site .* got 'tails', and the model draws"):
        JointModel.from_numpyro(lambda num, tails=None: coin(num), 3, observed="tails")
    with pytest.raises(ValueError, match="has no `posterior`"):
        JointModel(lambda key: {"x": jr.normal(key)}, lambda p, key: p["x"]).target(1.0)


class Hot(RandomWalk):
    """Accepts by the square root of the ratio."""

    def step(self, target, state, *, key):
        class Half:
            log_density = staticmethod(lambda x: 0.5 * target.log_density(x))

        return super().step(Half, state, key=key)

    def init(self, target, position, *, key):
        state = super().init(target, position, key=key)
        return type(state)(state.position, 0.5 * state.log_density, state.log_scale, state.steps)

    def frozen(self, states):
        return Hot(num_warmup=0, log_scale=jnp.mean(states.log_scale))


@pytest.mark.parametrize("test", [exact_start, geweke], ids=lambda f: f.__name__)
def test_users_find_a_wrong_sampler_by_simulation(test):
    joint = JointModel.from_numpyro(coin, 3, observed="heads")
    size = {"num_replicates": 4000, "num_steps": 10} if test is exact_start else {"num_chains": 100, "num_cycles": 50}
    right = test(mutate.made("RandomWalk"), joint, key=KEY, **size)
    wrong = test(Hot(), joint, key=KEY, **size)
    assert right.p_value > 1e-3
    assert wrong.p_value < 1e-6
    assert right.moved["p"] > 0.5
    table = wrong.summary()
    assert list(table.columns) == ["z", "p_value"]
    assert "p" in table.index[0]
    with pytest.raises(TypeError, match="`sampler` must be a Sampler; got str"):
        test("nuts", joint, key=KEY)
