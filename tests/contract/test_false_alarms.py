"""Correct components are not blamed by chance, and the screen rings as often as it says."""

import jax.random as jr
import mutate
import numpy as np
import pytest
from posterax.testing import _statistics, check_estimator, check_objective, check_sampler
from posterax.testing._budget import SCREEN, family_wise, threshold
from scipy import stats

pytestmark = pytest.mark.usefixtures("forgetful")
group = lambda item: None  # each takes minutes, and none shares anything with another  # noqa: E731
CHECK = {"sampler": check_sampler, "estimator": check_estimator, "objective": check_objective}
ONE_OF_EACH_KIND = ("RandomWalk", "LinearGaussian", "Likelihood")
OTHERS = [name for name in mutate.TAGS if name not in ONE_OF_EACH_KIND]
REPETITIONS = 10_000
# Under the null the number of screens that ring is binomial, 10 on average; more than 26 come once in 100 000 tests.
# Bonferroni's p-values may be conservative, so nothing is asked at the lower end but that the screen can ring at all.
MOST = stats.binom.isf(1e-5, REPETITIONS, SCREEN)


def runs(component, number, **options):
    thing = mutate.made(component)
    check = CHECK[mutate.kind(component)]
    return [
        check(thing, key=jr.key(1000 + i), tags=mutate.TAGS[component], throw=False, **options) for i in range(number)
    ]


def said(reports):
    return "\n".join(str(outcome) for report in reports for outcome in report.failures)


# Blame in a share q of runs is seen with probability 1 - (1 - q)^runs: 95 % at q = 1.5 % in 200 runs, 6 % in 50. A run
# of the sampler takes 1.5 s; the screen's own rate is tried below.
@pytest.mark.slow
@pytest.mark.parametrize(("component", "number"), list(zip(ONE_OF_EACH_KIND, (50, 200, 200), strict=True)))
def test_many_smoke_runs_blame_nobody(component, number):
    reports = runs(component, number)
    assert all(report.passed for report in reports), said(reports)


@pytest.mark.slow
@pytest.mark.parametrize("component", OTHERS)
def test_five_smoke_runs_of_the_others_blame_nobody(component):
    reports = runs(component, 5)
    assert all(report.passed for report in reports), said(reports)


def test_the_budget_is_a_millionth_whatever_the_number_of_tests():
    for number in (1, 2, 7, 50):
        assert family_wise(number) == pytest.approx(SCREEN**2)
        assert threshold(number) == pytest.approx(SCREEN / number)


# The statistics behind the checks, 10 000 times each on data from the null hypothesis.


def uniform(rng):
    return _statistics.are_uniform(["a", "b", "c"], rng.uniform(size=(200, 3)))


def zero_mean(rng):
    return _statistics.mean_is_zero(["a", "b"], rng.normal(size=(64, 2)))


def joint_unchanged(rng):
    # Three correlated quantities with heavy tails, and a chain that has half forgotten its start.
    mix = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0.3, 0.95]])
    draw = lambda n: rng.normal(size=(n, 3)) @ mix.T  # noqa: E731
    before = draw(500)
    after = 0.6 * before + 0.8 * draw(500)
    cube = lambda x: x**3  # noqa: E731
    reference = cube(draw(4000))
    ranker = _statistics.Ranker(["a", "b", "c"], reference)
    return _statistics.same_mean(ranker.labels, ranker(cube(before)), ranker(cube(after)), ranker(reference))


@pytest.mark.slow
@pytest.mark.parametrize("statistic", [uniform, zero_mean, joint_unchanged], ids=lambda f: f.__name__)
def test_the_screen_rings_as_often_as_it_says(statistic):
    rng = np.random.default_rng(0)
    p_values = np.array([statistic(rng).p_value for _ in range(REPETITIONS)])
    assert (p_values <= SCREEN).sum() <= MOST
    assert (p_values <= 0.05).sum() >= stats.binom.ppf(1e-5, REPETITIONS, 0.03)
