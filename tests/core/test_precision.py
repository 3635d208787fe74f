import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from posterax._precision import in_float64, precision

# Log-determinant of a Gaussian kernel on eight points, by its length: condition number 1e10, hopeless in
# float32.
NUM_POINTS, JITTER = 8, 1e-9
T = np.linspace(0, 1, NUM_POINTS)
SQUARES = (T[:, None] - T) ** 2
LENGTH = jnp.float32(0.6)


def log_det(length):
    kernel = jnp.exp(-0.5 * SQUARES / length**2) + JITTER * jnp.eye(NUM_POINTS)
    return 2 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(kernel))))


def in_numpy(length):
    """The log-determinant, and its first and second derivative, without JAX and without a Cholesky factor."""
    length = np.float64(length)
    gauss = np.exp(-0.5 * SQUARES / length**2)
    kernel = gauss + JITTER * np.eye(NUM_POINTS)
    first = gauss * SQUARES / length**3
    second = first * SQUARES / length**3 - 3 * first / length
    a, b = np.linalg.solve(kernel, first), np.linalg.solve(kernel, second)
    return np.linalg.slogdet(kernel)[1], np.trace(a), np.trace(b - a @ a)


VALUE, SLOPE, CURVATURE = in_numpy(LENGTH)
exact = in_float64(log_det)


def close(x, truth, rtol=1e-6):
    # A float32 result is right to 6e-8; conditioning costs float64 about 1e-16 * 1e10 = 1e-6, measured 2e-8.
    assert jnp.asarray(x).dtype == jnp.float32
    np.testing.assert_allclose(x, truth, rtol=rtol)


def test_plain_float32_is_wrong_here_so_that_the_other_tests_mean_something():
    assert abs(log_det(LENGTH) - VALUE) > 0.01 * abs(VALUE) or jnp.isnan(log_det(LENGTH))
    slope = jax.grad(log_det)(LENGTH)
    assert abs(slope - SLOPE) > 0.1 * abs(SLOPE) or jnp.isnan(slope)


def test_differentiating_across_a_bare_context_is_wrong():
    # What in_float64 is for. If JAX mends this one day, most of the module can go.
    @jax.grad
    def slope(length):
        with jax.enable_x64(True):
            return log_det(length.astype(jnp.float64)).astype(jnp.float32)

    try:
        error = abs(slope(LENGTH) - SLOPE)
    except Exception:
        return
    assert not error < 1e-6 * abs(SLOPE)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_value_and_gradient_are_those_of_float64(transform):
    f = transform(exact)
    close(f(LENGTH), VALUE)
    close(jax.grad(f)(LENGTH), SLOPE)
    value, slope = jax.jit(jax.value_and_grad(f))(LENGTH)
    close(value, VALUE)
    close(slope, SLOPE)
    close(jax.vjp(f, LENGTH)[1](jnp.float32(3))[0], 3 * SLOPE)


def test_second_derivatives_are_those_of_float64():
    close(jax.jacrev(jax.jacrev(exact))(LENGTH), CURVATURE, rtol=1e-5)
    close(jax.jit(jax.grad(jax.grad(exact)))(LENGTH), CURVATURE, rtol=1e-5)


def test_vmap_scan_cond_and_while_loops_leave_it_right():
    lengths = jnp.array([0.6, 0.7, 0.8], jnp.float32)
    truths = [in_numpy(length) for length in lengths]
    values, slopes = np.array([t[0] for t in truths]), np.array([t[1] for t in truths])

    def summed(lengths):
        return lax.scan(lambda total, length: (total + exact(length), exact(length)), jnp.float32(0), lengths)

    close(jax.vmap(exact)(lengths), values)
    close(jax.vmap(jax.grad(exact))(lengths), slopes)
    close(jax.grad(lambda x: summed(x)[0])(lengths), slopes)
    close(jax.jit(jax.vmap(jax.jit(exact)))(lengths), values)
    close(jax.jit(jax.vmap(jax.grad(exact)))(lengths), slopes)
    close(jax.jit(jax.grad(lambda x: jnp.sum(jax.vmap(exact)(x))))(lengths), slopes)
    close(jax.jit(jax.jacrev(jax.vmap(exact)))(lengths), np.diag(slopes))
    close(jax.jit(lambda x: summed(x)[1])(lengths), values)
    close(jax.jit(jax.grad(lambda x: summed(x)[0]))(lengths), slopes)
    close(jax.jit(jax.vmap(jax.grad(lambda x: summed(x)[0])))(lengths[None]), slopes[None])
    close(jax.jit(jax.grad(lambda x: lax.cond(x > 0, exact, lambda y: y, x)))(LENGTH), SLOPE)
    loop = lambda x: lax.fori_loop(0, 2, lambda _, total: total + exact(x), jnp.float32(0))  # noqa: E731
    close(jax.jit(loop)(LENGTH), 2 * VALUE)
    close(jax.jit(jax.grad(loop))(LENGTH), 2 * SLOPE)


def test_it_works_under_shard_map():
    mesh = jax.make_mesh((1,), ("chain",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("chain")
    f = jax.shard_map(jax.vmap(jax.grad(exact)), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    close(jax.jit(f)(LENGTH[None]), [SLOPE])


def test_what_f_closes_over_is_differentiated_too():
    def outer(length):
        return in_float64(lambda one: log_det(one * length))(jnp.float32(1))

    # The closed-over length meets a float64 before it meets anything else, so no digit is lost.
    close(jax.grad(outer)(LENGTH), SLOPE)
    close(jax.jit(jax.grad(outer))(LENGTH), SLOPE)
    close(jax.vmap(jax.grad(outer))(jnp.stack([LENGTH, LENGTH])), [SLOPE, SLOPE])


def test_tracers_that_f_closes_over_do_not_stay_in_it():
    box = {}
    f = in_float64(lambda x: x * box["y"])

    @jax.jit
    def g(y):
        box["y"] = y
        return f(jnp.float32(2))

    assert g(3.0) == 6
    assert g(jnp.arange(3.0)).tolist() == [0, 2, 4]
    assert g(4.0) == 8


# Lowered within a float32 program without care, these are refused, truncated with a warning, or fail (jax
# 0.10, 0.12).
AWKWARD = {
    "betainc": lambda x: jax.scipy.special.betainc(2.0, 3.0, jax.nn.sigmoid(x)),
    "i0e": lambda x: jax.scipy.special.i0e(x),
    "gammainc": lambda x: jax.scipy.special.gammainc(2.0, jnp.abs(x)),
    "expm": lambda x: jax.scipy.linalg.expm(0.1 * jnp.outer(x, x)),
    "fft": lambda x: jnp.fft.fft(x).real,
    "normal": lambda x: x * jr.normal(jr.key(0), x.shape),
    "bits": lambda x: x + jr.bits(jr.key(0), x.shape, jnp.uint64) / 2.0**64,
    "int64": lambda x: (jnp.cumsum((x * 2**50).astype(int)) % 1001).astype(float),
    "searchsorted": lambda x: jnp.searchsorted(jnp.sort(x), x).astype(float),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_operations_that_jax_lowers_in_python_stay_in_float64(name):
    f = AWKWARD[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=4), jnp.float32)
    with jax.enable_x64(True):
        truth = np.asarray(f(jnp.asarray(np.asarray(x, np.float64))))
    g = in_float64(f)
    for run in [jax.jit(g), lambda x: jax.jit(jax.vmap(jax.jit(g)))(x[None])[0]]:
        np.testing.assert_allclose(run(x), truth, rtol=2e-7, atol=1e-7)


def test_arguments_arrive_as_promised_and_results_return_in_the_callers_types():
    seen = {}

    def f(tree, integers, flags, key, number, *, word):
        seen.update(
            float=tree["x"].dtype,
            complex=tree["z"].dtype,
            half=tree["h"].dtype,
            integers=integers.dtype,
            flags=flags.dtype,
            key=key.dtype,
            constants=(number, word),
        )
        return (
            tree["x"] * 2,
            integers.astype(int),
            flags,
            jr.split(key),
            {"word": word, "none": None},
            tree["z"],
        )

    tree = {"x": jnp.ones(3), "z": jnp.ones(2, jnp.complex64), "h": jnp.ones(2, jnp.bfloat16)}
    key = jr.key(3)
    out = in_float64(f)(tree, jnp.arange(3), jnp.array([True]), key, 0.1, word="word")
    assert seen["float"] == seen["half"] == np.float64
    assert seen["complex"] == np.complex128
    assert seen["integers"] == np.int32
    assert seen["flags"] == np.bool_
    assert seen["key"] == key.dtype
    assert seen["constants"] == (0.1, "word")
    assert [x.dtype for x in (*out[:3], out[5])] == [np.float32, np.int32, np.bool_, np.complex64]
    assert out[4] == {"word": "word", "none": None}
    assert jnp.array_equal(jr.key_data(out[3]), jr.key_data(jr.split(key)))


def test_numpy_arrays_and_python_numbers_keep_all_their_digits():
    f = in_float64(lambda x: x - 1)
    for x in (np.float64(1 + 1e-12), np.array([1 + 1e-12]), 1 + 1e-12):
        np.testing.assert_allclose(f(x), 1e-12, rtol=1e-3)
    np.testing.assert_allclose(f(np.array([1 + 2e-12])), 2e-12, rtol=1e-3)  # and are not mistaken for each other
    g = in_float64(lambda x, y: jnp.copysign(x, y))
    assert g(jnp.float32(1), 0.0) == 1
    assert g(jnp.float32(1), -0.0) == -1
    h = in_float64(lambda x, flag: x if flag is True else -x)
    assert h(jnp.float32(1), 1) == -1
    assert h(jnp.float32(1), True) == 1


class Quadratic(eqx.Module):
    weight: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, x):
        return jnp.sum(self.weight * x**self.power)

    def negative(self, x):
        return -self(x)


def test_a_numpy_array_handed_over_can_be_used_in_float32_afterwards():
    # JAX 0.10 remembers arrays that it has met as constants in 64 bits, and then fails in the next call of `jit`.
    y, plain = np.arange(3.0), jax.jit(lambda y, x: jnp.sum(y * x))
    assert in_float64(lambda y, x: jnp.sum(y * x))(y, jnp.float32(2)) == 6
    assert plain(y, jnp.float32(2)) == 6


def test_equinox_modules_and_their_methods_are_differentiated_by_their_arrays():
    x = jnp.arange(3.0)
    module = Quadratic(jnp.ones(3), 2)
    gradient = eqx.filter_grad(lambda m: in_float64(m)(x))(module)
    np.testing.assert_array_equal(gradient.weight, x**2)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: in_float64(m.negative)(x)))(module)
    np.testing.assert_array_equal(gradient.weight, -(x**2))
    scale = in_float64(lambda m: dist.Normal(m, jnp.exp(m)))(jnp.float32(0.5)).scale
    assert scale.dtype == jnp.float32


def test_gradients_have_the_types_of_the_arguments_and_pass_integers_by():
    def f(x, index, key):
        return x[index] * jr.normal(key), jnp.argsort(x)

    x, index = jnp.arange(3.0, dtype=jnp.bfloat16), jnp.array(1)
    gradient = jax.grad(lambda x: in_float64(f)(x, index, jr.key(0))[0])(x)
    assert gradient.dtype == jnp.bfloat16
    assert (gradient != 0).tolist() == [False, True, False]


def test_forward_mode_is_refused_and_works_with_64_bits_on():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(exact, (LENGTH,), (LENGTH,))
    with precision(64):
        slope = jax.jacfwd(exact)(jnp.asarray(np.float64(LENGTH)))
        assert slope.dtype == np.float64
        np.testing.assert_allclose(slope, SLOPE, rtol=1e-6)
        assert exact(LENGTH).dtype == np.float64  # the caller's precision


def test_errors_raised_inside_come_out():
    f = in_float64(lambda x: eqx.error_if(x, x < 0, "negative"))
    assert f(jnp.float32(1)) == 1
    with pytest.raises(Exception, match="negative"):
        eqx.filter_jit(f)(jnp.float32(-1)).block_until_ready()


def test_the_second_call_compiles_and_traces_nothing():
    compiled, traced = [], []
    listen = lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)

    def f(x):
        traced.append(1)
        return log_det(x)

    f = in_float64(f)
    x, pair = LENGTH + 0, jnp.stack([LENGTH, LENGTH])
    calls = [
        lambda x: f(x),
        lambda x: f(0.6),
        lambda x: f(np.array([[0.6]])),
        lambda x: jax.grad(f)(x),
        lambda x: jax.vmap(jax.grad(f))(pair),
        lambda x: jax.jacrev(jax.jacrev(f))(x),
    ]
    for call in calls:
        call(x * 1)
    assert compiled
    compiled.clear()
    traced.clear()
    for call in calls:
        call(x * 1)
    assert compiled == []
    assert traced == []


def test_precision_holds_within_its_block_and_thread_only():
    default = lambda: jnp.zeros(()).dtype == np.float64 or jnp.asarray(np.zeros(1)).dtype == np.float64  # noqa: E731
    assert not default()
    with precision(64):
        assert default()
        with precision(32):
            assert not default()
            with precision(None):
                assert not default()
        with precision(None):
            assert default()
        other = []
        thread = threading.Thread(target=lambda: other.append(default()))
        thread.start()
        thread.join()
        assert other == [False]
    assert not default()
    with pytest.raises(ValueError, match="`bits` must be 32, 64 or None; got 16"):
        precision(16)


def test_in_float64_is_in_float64_in_any_thread():
    out = []
    thread = threading.Thread(target=lambda: out.append(jax.grad(exact)(LENGTH)))
    thread.start()
    thread.join()
    close(out[0], SLOPE)
