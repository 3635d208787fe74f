import functools
import itertools
import math
from collections import Counter
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax import _resampling
from posterax import weights as w
from posterax._precision import in_float64, precision
from posterax.weights import SSP, Multinomial, Residual, Stratified, Systematic

SCHEMES = {
    "multinomial": Multinomial(),
    "stratified": Stratified(),
    "systematic": Systematic(),
    "residual": Residual(),
    "residual-stratified": Residual(Stratified()),
    "residual-systematic": Residual(Systematic()),
    "ssp": SSP(),
}
FLOOR_OR_CEIL = ["systematic", "residual-systematic", "ssp"]
AT_LEAST_FLOOR = [*FLOOR_OR_CEIL, "residual", "residual-stratified"]
UNUSABLE = {
    "no weight": [-np.inf, -np.inf, -np.inf],
    "NaN": [0, np.nan, 0],
    "NaN beside none": [np.nan, -np.inf, -np.inf],
    "infinite weight": [0, np.inf, 0],
}
each_scheme = pytest.mark.parametrize("name", SCHEMES)


def log(amounts):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(amounts, np.float64))


# The law of the numbers of copies, by enumeration in fractions: written from the definitions, sharing nothing
# with the module. `x` is num * W, as fractions.


def _independent(x, num):
    total = sum(x)
    law = Counter()
    for choice in itertools.product(range(len(x)), repeat=num):
        law[tuple(choice.count(i) for i in range(len(x)))] += math.prod(x[i] / total for i in choice)
    return law


def _cells(x):
    """For each cell [k, k+1), the pieces of draws in it: (draw, length)."""
    ends = list(itertools.accumulate(x))
    starts = [0, *ends[:-1]]
    for k in range(int(ends[-1])):
        yield [
            (i, min(e, k + 1) - max(s, k))
            for i, (s, e) in enumerate(zip(starts, ends, strict=True))
            if min(e, k + 1) > max(s, k)
        ]


def _stratified(x, num):
    law = Counter()
    for choice in itertools.product(*_cells(x)):
        ancestors = [i for i, _ in choice]
        law[tuple(ancestors.count(i) for i in range(len(x)))] += math.prod(length for _, length in choice)
    return law


def _systematic(x, num):
    ends = list(itertools.accumulate(x))
    borders = sorted({end % 1 for end in ends} | {Fraction(0), Fraction(1)})
    law = Counter()
    for low, high in itertools.pairwise(borders):
        below = [math.ceil(end - (low + high) / 2) for end in ends]
        law[tuple(np.diff([0, *below]).tolist())] += high - low
    return law


def _residual(rest_law):
    def law_of(x, num):
        certain = [math.floor(xi) for xi in x]
        rest = [xi - c for xi, c in zip(x, certain, strict=True)]
        left = num - sum(certain)
        law = rest_law(rest, left) if left else {(0,) * len(x): Fraction(1)}
        return Counter({tuple(c + r for c, r in zip(certain, counts, strict=True)): p for counts, p in law.items()})

    return law_of


def _ssp(x, num):
    """Algorithm 1 of Gerber, Chopin & Whiteley (2019), draw after draw, all outcomes followed."""
    states = Counter({(tuple(x), 0): Fraction(1)})
    for j in range(1, len(x)):
        after = Counter()
        for (y, i), p in states.items():
            a, b = y[i] % 1, y[j] % 1
            up, down = min(b, 1 - a) if a else Fraction(0), min(a, 1 - b) if b else Fraction(0)
            # i gains `up` from j with probability down / (up + down), else j gains `down` from i: a fair
            # game.
            outcomes = [(up, down), (-down, up)] if up + down else [(Fraction(0), Fraction(1))]
            for gain, chance in outcomes:
                z = list(y)
                z[i], z[j] = z[i] + gain, z[j] - gain
                still_open = i if z[i] % 1 else j
                after[tuple(z), still_open] += p * (chance / (up + down) if up + down else 1)
        states = after
    law = Counter()
    for (y, _), p in states.items():
        law[tuple(map(int, y))] += p
    return law


LAWS = {
    "multinomial": _independent,
    "stratified": _stratified,
    "systematic": _systematic,
    "residual": _residual(_independent),
    "residual-stratified": _residual(_stratified),
    "residual-systematic": _residual(_systematic),
    "ssp": _ssp,
}
REPLICATES = 100_000


@functools.cache
def compiled_copies(name, num):
    def copies(log_weights, key):
        ancestors = SCHEMES[name](log_weights, key=key, num=num)
        return jnp.sum(ancestors[:, None] == jnp.arange(6), axis=0)

    return jax.jit(jax.vmap(copies, in_axes=(None, 0)))


def draw_copies(name, num, log_weights):
    keys = jr.split(jr.key(11), REPLICATES)
    return np.asarray(compiled_copies(name, num)(jnp.asarray(log_weights, jnp.float32), keys))


@each_scheme
@pytest.mark.parametrize(
    ("amounts", "num"),
    [((3, 1, 0, 5, 2), 4), ((1, 5, 1, 0, 2), 4), ((2, 0, 5, 2, 7, 1), 4)],
    ids=str,
)
def test_numbers_of_copies_have_exactly_the_law_that_enumeration_gives(name, amounts, num):
    # z-tests on 100,000 draws, of the mean copies of each draw and of the probability of each outcome. At 5.5
    # sigma and at most 1,500 tests a correct program fails once in 17,000 fresh keys (the key is fixed).
    # Caught 99 % of the time: a bias of (5.5 + 2.3) sd / 316 = 0.012 copies where copies are floor or ceil,
    # half of that for rare outcomes.
    # (No x and no running sum of them is whole: rounding of the float32 log-weights would decide there.)
    x = [Fraction(num * a, sum(amounts)) for a in amounts]
    law = LAWS[name](x, num)
    assert sum(law.values()) == 1
    for i, expected in enumerate(x):  # the enumeration is unbiased itself, exactly
        assert sum(p * counts[i] for counts, p in law.items()) == expected

    drawn = draw_copies(name, num, log([*amounts, 0][:6]) + 7.3)[:, : len(amounts)]  # not normalised
    assert (drawn.sum(axis=1) == num).all()
    found = Counter(map(tuple, drawn.tolist()))
    assert set(found) <= set(law), "an outcome that cannot be"
    for outcome, p in law.items():
        p = float(p)
        assert abs(found[outcome] - REPLICATES * p) <= 5.5 * math.sqrt(REPLICATES * p * (1 - p)) + 1e-6, outcome
    mean, var = np.array([float(xi) for xi in x]), np.zeros(len(x))
    for outcome, p in law.items():
        var += float(p) * (np.array(outcome) - mean) ** 2
    assert (np.abs(drawn.mean(axis=0) - mean) <= 5.5 * np.sqrt(var / REPLICATES) + 1e-9).all()


@pytest.mark.parametrize("num", [1, 5, 40])
def test_the_average_over_a_fine_grid_of_offsets_is_exactly_the_expected_number(num):
    # Amounts are multiples of 1/64 of the sum, so copies change only at offsets that are multiples of 1/64.
    with precision(64):
        for seed in range(20):
            amounts = np.random.default_rng(seed).multinomial(64, np.ones(9) / 9)
            whole, bits = _resampling.whole_weights(jnp.asarray(log(amounts)), num)
            grid = jnp.arange(1, 128, 2) * (2**bits // 128)  # between these multiples
            below = jax.vmap(lambda u: _resampling._one_point_a_cell(jnp.cumsum(whole), bits, jnp.full(num, u)))(grid)  # noqa: B023
            copies = np.diff(np.asarray(below), axis=1, prepend=0)
            np.testing.assert_array_equal(copies.sum(axis=0), num * amounts)  # 64 times num * W


def test_the_expected_numbers_of_copies_are_as_right_as_is_said():
    # The mean number of copies is amount / 2^bits exactly (the tests of laws and grids); here, that this is
    # num * W.
    for n, num in [(5, 5), (1000, 7), (100_000, 100_000)]:
        x = 2 * np.random.default_rng(n).normal(size=n)
        share = np.exp(x) / np.sum(np.exp(x))
        with precision(64):
            whole, bits = _resampling.whole_weights(jnp.asarray(x + 3), num)
            assert jnp.sum(whole) == num * 2**bits
        found, others = np.asarray(whole) / 2.0**bits, np.arange(n) != np.argmax(x)
        np.testing.assert_allclose(found, num * share, rtol=1e-12, atol=n * num / 2.0**52)
        np.testing.assert_allclose(found[others], num * share[others], rtol=1e-12, atol=num / 2.0**52)


@each_scheme
def test_bounds_on_copies_hold_for_every_key_and_any_weights(name):
    # 3,000 vectors of weights, a third of them with whole numbers of copies, some with most weights zero.
    n, rng = 12, np.random.default_rng(5)
    rough = np.exp(3 * rng.normal(size=(1000, n))) * (rng.random((1000, n)) < 0.8)
    rough[:, 3] = 1.0
    ties = rng.multinomial(24, np.ones(n) / n, size=1000)
    single = 0.0 + (rng.integers(0, n, size=1000)[:, None] == np.arange(n))
    log_weights = jnp.asarray(log(np.concatenate([rough, ties, single])), jnp.float32)
    amounts = np.exp(np.asarray(log_weights, np.float64))
    share = amounts / amounts.sum(axis=1, keepdims=True)
    for num in (7, 24):
        draw = jax.jit(jax.vmap(lambda lw, key: SCHEMES[name](lw, key=key, num=num)))  # noqa: B023
        ancestors = np.asarray(draw(log_weights, jr.split(jr.key(num), 3000)))
        assert ancestors.min() >= 0
        assert ancestors.max() < n
        copies = (ancestors[:, :, None] == np.arange(n)).sum(axis=1)
        x = num * share
        assert (copies[share == 0] == 0).all()
        if name in AT_LEAST_FLOOR:
            assert (copies >= np.floor(x - 1e-6)).all()
        if name in FLOOR_OR_CEIL:
            assert (copies <= np.ceil(x + 1e-6)).all()
        if name in {"stratified", "systematic"}:  # all the first draws together
            assert (np.abs(np.cumsum(copies, axis=1) - np.cumsum(x, axis=1)) < 1 + 1e-6).all()
        if name != "multinomial":
            assert (np.diff(ancestors, axis=1) >= 0).all()


def test_multinomial_ancestors_are_independent_of_each_other():
    # The first two of five, over 9 pairs: 5 sigma, a false alarm in 190,000 keys; catches 0.012 in any
    # probability.
    p = np.array([0.5, 0.3, 0.2])
    draw = jax.jit(jax.vmap(lambda key: Multinomial()(jnp.log(p), key=key, num=5)))
    ancestors = np.asarray(draw(jr.split(jr.key(2), REPLICATES)))
    for i, j in itertools.product(range(3), repeat=2):
        expected = p[i] * p[j]
        found = np.mean((ancestors[:, 0] == i) & (ancestors[:, 4] == j))
        assert abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / REPLICATES)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "multinomial"])
@pytest.mark.parametrize("n", [7, 100_000])
def test_equal_weights_keep_every_draw_once(name, n):
    ancestors = SCHEMES[name](jnp.full(n, -3.3), key=jr.key(n))
    np.testing.assert_array_equal(ancestors, np.arange(n))


@each_scheme
def test_a_million_weights_in_float32_keep_their_bounds_and_their_last_index(name):
    # In float32 the running sum of these is off by several draws' weights. Exact copies come from float64
    # NumPy.
    n = 1_000_000
    log_weights = 2 * jr.normal(jr.key(4), (n,))
    log_weights = log_weights.at[::3].set(-jnp.inf).at[-5:].set(-jnp.inf)
    share = np.exp(np.asarray(log_weights, np.float64))
    share /= share.sum()
    ancestors = np.asarray(jax.jit(SCHEMES[name].__call__)(log_weights, key=jr.key(5)))
    assert ancestors.dtype == np.int32
    copies = np.bincount(ancestors, minlength=n)
    assert copies.size == n
    assert (copies[share == 0] == 0).all()
    x = n * share
    slack = 1e-7  # rounding of float64 sums, and what the heaviest draw takes up
    if name in AT_LEAST_FLOOR:
        assert (copies >= np.floor(x - slack)).all()
    if name in FLOOR_OR_CEIL:
        assert (copies <= np.ceil(x + slack)).all()
    if name in {"stratified", "systematic"}:
        assert np.abs(np.cumsum(copies) - np.cumsum(x)).max() < 1 + 1e-4
    # A 20th of the draws at a time, 6 sigma of the multinomial variance (the largest of all schemes).
    found, expected = copies.reshape(20, -1).sum(axis=1), x.reshape(20, -1).sum(axis=1)
    assert (np.abs(found - expected) < 6 * np.sqrt(expected)).all()


@pytest.mark.parametrize("scheme", [Stratified(), Systematic(), Multinomial(), Residual()], ids=repr)
@pytest.mark.parametrize("extreme", ["lowest", "highest"])
def test_the_extreme_offsets_stay_inside(scheme, extreme, monkeypatch):
    def offsets(bits, num, key):
        return jnp.full(num, 0 if extreme == "lowest" else 2**bits - 1)

    monkeypatch.setattr(_resampling, "_offsets", offsets)
    resample = in_float64(_resampling._resample.__wrapped__)  # traced afresh, with these offsets
    cases = [
        [0, 1, 2, 0, 0],
        [0, 0.1, 0.7, 0.1, 0],
        [1e-30, 1, 1e-30, 0, 0],
        [3, 0, 0, 0, 0],
        [0, 0, 1, 1, 1],
    ]
    log_weights = jnp.asarray(log(cases), jnp.float32)
    for num in (1, 10):
        ancestors = jax.vmap(lambda lw: resample(scheme, lw, num, jr.key(0)))(log_weights)  # noqa: B023
        assert (ancestors >= 0).all()
        assert (ancestors < 5).all()
        assert (np.take_along_axis(np.array(cases), np.asarray(ancestors), axis=1) > 0).all()


@each_scheme
def test_one_draw_with_all_the_weight_is_copied_everywhere(name):
    scheme = SCHEMES[name]
    lone = jnp.full(9, -jnp.inf).at[6].set(-1e30)
    np.testing.assert_array_equal(scheme(lone, key=jr.key(0)), np.full(9, 6))
    np.testing.assert_array_equal(scheme(jnp.zeros(1), key=jr.key(0), num=4), np.zeros(4))


@each_scheme
@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_weights_give_ancestors_of_minus_one(name, bad):
    assert SCHEMES[name](jnp.array(bad), key=jr.key(0), num=4).tolist() == [-1] * 4


@pytest.mark.parametrize("name", ["multinomial", "systematic", "ssp"])
def test_resampling_is_the_same_in_every_transformation_and_precision(name):
    scheme, keys = SCHEMES[name], jr.split(jr.key(8), 3)
    log_weights = jr.normal(jr.key(9), (3, 50))
    plain = [scheme(lw, key=key, num=30) for lw, key in zip(log_weights, keys, strict=True)]
    assert not jnp.array_equal(plain[0], scheme(log_weights[0], key=keys[1], num=30))
    call = lambda lw, key: scheme(lw, key=key, num=30)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.vmap(call))(log_weights, keys), plain)
    scanned = jax.lax.scan(lambda _, x: (0, call(*x)), 0, (log_weights, keys))[1]
    np.testing.assert_array_equal(scanned, plain)
    with precision(64):
        wide = call(jnp.asarray(log_weights[0], jnp.float64), keys[0])
    np.testing.assert_array_equal(wide, plain[0])
    assert wide.dtype == np.int32
    # The ancestors have no derivative; neither mode of differentiation minds.
    total = lambda lw: jnp.sum(lw[call(lw, keys[0])])  # noqa: E731
    copies = np.bincount(plain[0], minlength=50)
    np.testing.assert_array_equal(jax.grad(total)(log_weights[0]), copies)
    tangent = jax.jvp(total, (log_weights[0],), (jnp.ones(50),))[1]
    assert tangent == 30


def test_resamplers_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="`num` must be at least 1; got 0"):
        Systematic()(jnp.zeros(3), key=jr.key(0), num=0)
    with pytest.raises(ValueError, match="`log_weights` must be one vector"):
        Systematic()(jnp.zeros((2, 3)), key=jr.key(0))
    with pytest.raises(ValueError, match="`log_weights` must be one vector"):
        w.normalise(jnp.zeros(0))
    with pytest.raises(ValueError, match=r"`remainder` must be Multinomial\(\)"):
        Residual(SSP())
    with pytest.raises(TypeError):
        w.AbstractResampler()
    with pytest.raises(TypeError):
        Systematic()(jnp.zeros(3))  # no key


# Arithmetic.


def test_normalised_weights_sum_to_one_and_the_log_mean_is_right():
    x = np.random.default_rng(0).normal(size=1000) * 20 - 500
    expected = np.logaddexp.reduce(x)
    normalised = w.normalise(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(normalised, x - expected, atol=1e-4)  # 500 has 3e-5 in float32
    np.testing.assert_allclose(jnp.sum(jnp.exp(normalised)), 1, rtol=1e-4)
    np.testing.assert_allclose(w.log_mean(jnp.asarray(x, jnp.float32)), expected - np.log(1000), rtol=1e-6)
    assert w.log_mean(jnp.array([0.0, -jnp.inf])) == pytest.approx(np.log(0.5))
    np.testing.assert_array_equal(w.normalise(jnp.array([5.0, -jnp.inf])), [0, -np.inf])


def test_effective_sample_size_and_entropy_have_their_closed_forms():
    for m in (1, 3, 10):
        few = jnp.where(jnp.arange(10) < m, 4.2, -jnp.inf)
        np.testing.assert_allclose(w.effective_sample_size(few), m, rtol=1e-6)
        np.testing.assert_allclose(w.entropy(few), np.log(m) / np.log(10), atol=1e-6)
        np.testing.assert_allclose(w.entropy(few, normalised=False), np.log(m), atol=1e-6)
    halves = jnp.log(jnp.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(w.effective_sample_size(halves), 8 / 3, rtol=1e-6)
    np.testing.assert_allclose(w.entropy(halves, normalised=False), 1.5 * np.log(2), rtol=1e-6)
    # Geometric weights r^i: (1 - r^n)^2 (1 - r^2) / ((1 - r)^2 (1 - r^2n)).
    r, n = 0.9, 40
    expected = (1 - r**n) ** 2 * (1 - r**2) / ((1 - r) ** 2 * (1 - r ** (2 * n)))
    np.testing.assert_allclose(w.effective_sample_size(np.arange(n) * np.log(r)), expected, rtol=1e-5)
    assert w.effective_sample_size(jnp.array([3.0])) == 1
    assert w.entropy(jnp.array([3.0])) == 1
    assert w.entropy(jnp.array([3.0]), normalised=False) == 0


def test_a_million_weights_in_float32_are_summed_without_losing_digits():
    n = 1_000_000
    x = np.random.default_rng(1).normal(size=n).astype(np.float32)
    share = np.exp(x.astype(np.float64))
    log_mean = np.log(share.mean())
    share /= share.sum()
    np.testing.assert_allclose(jax.jit(w.log_mean)(x), log_mean, atol=2e-6)
    np.testing.assert_allclose(jax.jit(w.effective_sample_size)(x), 1 / np.sum(share**2), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(w.entropy)(x), -np.sum(share * np.log(share)) / np.log(n), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(w.weighted_mean)(x, x), np.sum(share * x), rtol=1e-5)
    assert w.effective_sample_size(jnp.zeros(n)) == n
    assert w.entropy(jnp.zeros(n)) == 1


@pytest.mark.parametrize(
    "statistic",
    [
        w.effective_sample_size,
        w.entropy,
        lambda lw: w.weighted_mean(jnp.arange(5.0), lw),
        lambda lw: w.mcse_of_mean(jnp.arange(5.0), lw),
        lambda lw: w.weighted_quantile(jnp.arange(5.0), 0.4, lw),
        lambda lw: Systematic()(lw, key=jr.key(0)),
    ],
)
def test_a_constant_added_to_all_log_weights_changes_nothing(statistic):
    log_weights = jnp.array([0.5, -1.0, 0.25, -jnp.inf, 2.0])
    for shift in (-16384.0, 1024.0):
        np.testing.assert_allclose(statistic(log_weights + shift), statistic(log_weights), rtol=1e-6)


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("compiled", [False, True])
def test_unusable_weights_give_what_the_module_says(bad, compiled):
    jit = jax.jit if compiled else lambda f: f
    none = all(x == -np.inf for x in bad)
    log_weights, x = jnp.array(bad, jnp.float32), jnp.arange(3.0)
    np.testing.assert_array_equal(jit(w.normalise)(log_weights), np.full(3, -np.inf if none else np.nan))
    np.testing.assert_array_equal(jit(w.log_mean)(log_weights), -np.inf if none else np.nan)
    for f in (w.effective_sample_size, w.entropy, lambda lw: w.entropy(lw, normalised=False)):
        np.testing.assert_array_equal(jit(f)(log_weights), 0 if none else np.nan)
    for f in (w.weighted_mean, w.weighted_sd, w.mcse_of_mean, lambda x, lw: w.weighted_quantile(x, 0.5, lw)):
        assert jnp.isnan(jit(f)(x, log_weights))
    smoothed, k = w.smooth(bad)
    assert np.isnan(k)
    np.testing.assert_array_equal(smoothed, np.full(3, -np.inf if none else np.nan))
    for one in [bad[0]] if np.isnan(bad[0]) or none else []:  # n = 1
        np.testing.assert_array_equal(w.entropy(jnp.array([one])), 0 if none else np.nan)


def test_gradients_are_finite_where_weights_are_zero_and_right_everywhere():
    log_weights = jnp.array([0.5, -1.0, -jnp.inf, 2.0])
    share = jnp.exp(w.normalise(log_weights))
    np.testing.assert_allclose(jax.grad(w.log_mean)(log_weights), share, rtol=1e-6)
    for f in (w.effective_sample_size, w.entropy, lambda lw: w.weighted_mean(jnp.arange(4.0), lw)):
        gradient = jax.grad(f)(log_weights)
        np.testing.assert_allclose(gradient, jax.jacfwd(f)(log_weights), atol=1e-6)
        assert jnp.isfinite(gradient).all()
        assert gradient[2] == 0
        assert abs(jnp.sum(gradient)) < 1e-5  # a constant changes nothing
        step = jnp.array([0, 0.01, 0, 0])
        difference = (f(log_weights + step) - f(log_weights - step)) / 0.02
        np.testing.assert_allclose(gradient[1], difference, rtol=1e-2)
    assert (jax.grad(w.log_mean)(jnp.full(3, -jnp.inf)) == 0).all()


# Statistics of draws.


def whole_weights(seed, n=30):
    """Draws with ties, whole weights (a few zero), and the same as so many equal draws."""
    rng = np.random.default_rng(seed)
    x, amounts = rng.integers(0, 15, size=(n, 2, 3)) / 4, rng.integers(0, 5, size=n)
    amounts[0] = 1
    return x, log(amounts) - 3.7, np.repeat(x, amounts, axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_double_weight_counts_as_occurring_twice(seed):
    x, log_weights, repeated = whole_weights(seed)
    tree = {"a": x, "b": (x[:, 0, 0],)}
    # (The NumPy quantile takes float64 probabilities and no tolerance: those here are not near a tie of <=
    # 150 draws, or exactly on one, in which case `ceil` of a rounded product could step over it.)
    q = np.array([0, 0.123456, 0.5, 0.777777, 1])
    mean, sd = w.weighted_mean(tree, log_weights), w.weighted_sd(tree, log_weights)
    np.testing.assert_allclose(mean["a"], repeated.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sd["a"], repeated.std(axis=0), rtol=1e-5)
    quantile = w.weighted_quantile(tree, q, log_weights)
    np.testing.assert_array_equal(quantile["a"], np.quantile(repeated, q, axis=0, method="inverted_cdf"))
    np.testing.assert_array_equal(quantile["b"][0], quantile["a"][:, 0, 0])
    np.testing.assert_allclose(mean["b"][0], mean["a"][0, 0], rtol=1e-6)
    assert w.weighted_quantile(x, 0.5, log_weights).shape == (2, 3)
    assert w.weighted_quantile(x, q[None], log_weights).shape == (1, 5, 2, 3)
    jitted = jax.jit(w.weighted_quantile)(tree, q, log_weights)
    np.testing.assert_array_equal(jitted["a"], quantile["a"])


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_quantiles_do_not_step_over_ties_by_rounding(n):
    # The k-th of n equal draws is the quantile at exactly k / n, though k / n is not a float32 number.
    ranks = np.arange(1, n + 1)
    x = np.random.default_rng(n).permutation(ranks)
    np.testing.assert_array_equal(w.weighted_quantile(x, ranks / n, np.full(n, 0.1)), ranks)
    np.testing.assert_array_equal(w.weighted_quantile(x, (ranks - 0.5) / n, np.full(n, 0.1)), ranks)


def test_draws_of_no_weight_do_not_count_even_when_they_are_not_finite():
    x = jnp.array([1.0, jnp.nan, 3.0, jnp.inf, -jnp.inf])
    log_weights = jnp.array([0.0, -jnp.inf, 0.0, -jnp.inf, -jnp.inf])
    assert w.weighted_mean(x, log_weights) == 2
    assert w.weighted_sd(x, log_weights) == 1
    assert w.mcse_of_mean(x, log_weights) == pytest.approx(np.sqrt(0.5))
    assert w.weighted_quantile(x, [0.0, 0.5, 0.51, 1.0], log_weights).tolist() == [1, 1, 3, 3]
    assert jnp.isnan(w.weighted_quantile(x, 0.5, jnp.zeros(5)))  # here the NaN has weight
    assert w.weighted_mean(jnp.array([True, False]), jnp.zeros(2)) == 0.5


def test_the_largest_draw_is_the_quantile_at_one_however_little_it_weighs():
    x, log_weights = jnp.array([0.0, 1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, -30.0, -jnp.inf])
    assert w.weighted_quantile(x, [1.0, 0.0], log_weights).tolist() == [2, 0]
    assert w.weighted_quantile(-x, [1.0, 0.0], log_weights).tolist() == [0, -2]


def test_statistics_refuse_wrong_shapes_and_probabilities():
    for f in (w.weighted_mean, w.weighted_sd, w.mcse_of_mean, lambda x, lw: w.weighted_quantile(x, 0.5, lw)):
        with pytest.raises(ValueError, match=r"`values\['a'\]` must have a leading axis of 3"):
            f({"a": jnp.zeros((2, 3))}, jnp.zeros(3))
    with pytest.raises(ValueError, match="`q` must be probabilities"):
        w.weighted_quantile(jnp.zeros(3), [0.5, 1.1], jnp.zeros(3))
    traced = jax.jit(lambda q: w.weighted_quantile(jnp.zeros(3), q, jnp.zeros(3)))
    np.testing.assert_array_equal(traced(jnp.array([0.5, 1.1, -0.1, jnp.nan])), [0, np.nan, np.nan, np.nan])


def test_the_standard_error_of_a_mean_is_that_of_repeated_runs():
    # Target N(0, 1), proposal N(0, 1.5^2), 400 draws, 20,000 runs: the ratio of standard errors has s.d. 0.5
    # %; the delta method is of order 1/400 off. Bounds of 3 % are 5 sigma and catch a factor sqrt(n / (n -
    # 25)) or more.
    def run(key):
        x = 1.5 * jr.normal(key, (400,))
        log_weights = -(x**2) / 2 + (x / 1.5) ** 2 / 2
        return w.weighted_mean(x, log_weights), w.mcse_of_mean(x, log_weights), w.log_mean(log_weights)

    mean, mcse, log_evidence = jax.jit(jax.vmap(run))(jr.split(jr.key(3), 20_000))
    assert abs(jnp.mean(mean)) < 5 * jnp.std(mean) / np.sqrt(20_000)
    assert 0.97 < jnp.sqrt(jnp.mean(mcse**2)) / jnp.std(mean) < 1.03
    evidence = jnp.exp(log_evidence)  # unbiased for 1 / 1.5
    assert abs(jnp.mean(evidence) - 1 / 1.5) < 5 * jnp.std(evidence) / np.sqrt(20_000)
    # With equal weights it is the textbook's.
    x = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(w.mcse_of_mean(x, np.zeros(100)), x.std() / 10, rtol=1e-5)


# Pareto smoothing.


@pytest.mark.parametrize("k", [50.0, 200.0, 2000.0])
@pytest.mark.parametrize("n", [100, 1000, 100_000])
def test_weights_that_have_collapsed_are_told_so(k, n):
    """Weights of Pareto tail k span up to thousands of nats. The Hill estimate has a relative sd of 1/sqrt(tail)."""
    log_weights = k * np.random.default_rng(1).exponential(size=n)
    smoothed, khat = w.smooth(log_weights)
    assert 0.4 * k < khat < 2 * k
    assert np.isfinite(smoothed).all()
    np.testing.assert_allclose(np.logaddexp.reduce(smoothed), 0, atol=1e-12)
    given = np.random.default_rng(0).gamma(2.0, size=1000)  # a likelihood of 400 observations, and draws from the prior
    scales = 2.0 / given
    assert w.pareto_k(-200 * np.log(scales) - 5760 / scales) > 10


@pytest.mark.parametrize("k", [-0.5, 0.2, 0.7, 1.2])
def test_pareto_k_is_that_of_a_generalised_pareto_tail(k):
    # Weights 1 + ((1 - u)^-k - 1) / k have a generalised Pareto tail of shape k above every threshold. The
    # fit to the 948 largest of 100,000 has s.d. (1 + k) / sqrt(948) (Smith 1987; 0.05 stands in for small or
    # negative k), and the prior pulls it by 0.01. 5 sigma; catches 0.4 at worst: a wrong sign of log-weights,
    # or of k.
    u = np.random.default_rng(7).random(100_000)
    log_weights = np.log1p((u**-k - 1) / k) - 40
    smoothed, khat = w.smooth(log_weights)
    assert abs(khat - k) < 5 * max(0.05, (1 + k) / np.sqrt(948)) + 0.01
    assert khat == w.pareto_k(log_weights)
    assert w.pareto_k(log_weights + 500) == pytest.approx(khat, abs=1e-6)
    assert w.pareto_k(jnp.asarray(log_weights, jnp.float32)) == pytest.approx(khat, abs=1e-3)
    # Weights below the tail are only normalised, the order is kept, and the largest is not increased.
    np.testing.assert_allclose(np.logaddexp.reduce(smoothed), 0, atol=1e-12)
    order = np.argsort(log_weights)
    body = order[: -3 * 317]
    assert np.ptp((smoothed - log_weights)[body]) < 1e-9
    assert (np.diff(smoothed[order]) >= -1e-12).all()
    assert smoothed.max() - smoothed.min() <= np.ptp(log_weights) + 1e-9
    assert np.abs(smoothed - log_weights + 0.0).std() > 0
    # Zero weights are set aside: they change nothing, and stay zero.
    padded = np.concatenate([np.full(500, -np.inf), log_weights, np.full(70_000, -np.inf)])
    smoothed_padded, khat_padded = w.smooth(padded)
    assert khat_padded == khat
    np.testing.assert_array_equal(smoothed_padded[500:-70_000], smoothed)
    assert (smoothed_padded[:500] == -np.inf).all()


def test_pareto_k_says_when_there_is_no_tail_and_when_it_cannot_be_known():
    rng = np.random.default_rng(0)
    no_tail = {
        "equal": np.full(1000, 2.0),
        "two values": np.repeat([0.0, 1.0], 500),
        "as few as can be": np.zeros(25),
        "equal or zero": np.repeat([0.0, -np.inf], 50),
        "largest shared by the tail and one more": np.repeat([0.0, 1.0], [79, 21]),
    }
    unknown = {
        "one draw": np.zeros(1),
        "few draws": rng.normal(size=24),
        "few with weight": np.concatenate([rng.normal(size=24), np.full(1000, -np.inf)]),
        "few different": np.concatenate([np.zeros(997), [1.0, 2.0, 2.0]]),
        "largest shared by all the tail": np.repeat([0.0, 1.0], [80, 20]),
        "one with weight": np.array([0.0] + [-np.inf] * 99),
        "NaN": np.array([np.nan] + [0.0] * 99),
        "nothing": np.full(100, -np.inf),
    }
    for case, log_weights in no_tail.items():
        assert w.pareto_k(log_weights) == -np.inf, case
    for case, log_weights in unknown.items():
        assert np.isnan(w.pareto_k(log_weights)), case
        assert not w.pareto_k(log_weights) < 0.7
    for log_weights in [
        *no_tail.values(),
        *list(unknown.values())[:5],
    ]:  # nothing is smoothed, all is normalised
        np.testing.assert_allclose(w.smooth(log_weights)[0], log_weights - np.logaddexp.reduce(log_weights), atol=1e-12)
    assert w.pareto_k(1e-9 * rng.normal(size=1000)) < 0.7  # all but equal
    assert isinstance(w.pareto_k(np.zeros(100)), float)
    with pytest.raises(ValueError, match="must be one vector"):
        w.pareto_k(np.zeros((2, 100)))
