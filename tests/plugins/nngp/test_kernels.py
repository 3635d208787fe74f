"""Kernels against averages over finite networks, against themselves in tiles, and at points that coincide."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posterax_nngp import CNNKernel, GaussHermite, MaternKernel, MLPKernel, RBFKernel, ReLU
from posterax_nngp._arccos import arc_cosine_map, arccos
from posterax_nngp._blocks import symmetric

pytestmark = pytest.mark.usefixtures("float64")
rng = np.random.default_rng(0)
X = rng.normal(size=(6, 3))


def test_arccos_is_right_to_rounding():
    c = np.concatenate([np.linspace(-1, 1, 10_001), [1 - 1e-12, -1 + 1e-12]])
    np.testing.assert_allclose(arccos(jnp.asarray(c)), np.arccos(c), atol=5e-14)
    exact = np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c
    np.testing.assert_allclose(arc_cosine_map(jnp.asarray(c)), exact, atol=5e-15)


@pytest.mark.slow
def test_the_kernel_is_the_mean_over_wide_networks():
    # 400 networks of width 256, two hidden layers; the readout is integrated out. Entries within 4.5 standard errors
    # (21 of them: a false alarm once in 7,000); the bias of order 1/256 is a third of one.
    kernel, width, num = MLPKernel(2, "relu", 1.8, 0.2), 256, 400

    def hidden(key):
        k1, k2, k3, k4 = jr.split(key, 4)
        scale = jnp.sqrt(jnp.array([1.8, 0.2]))
        one = scale[0] * jr.normal(k1, (width, 3)) @ X.T / np.sqrt(3) + scale[1] * jr.normal(k2, (width, 1))
        two = scale[0] * jr.normal(k3, (width, width)) @ jax.nn.relu(one) / np.sqrt(width)
        phi = jax.nn.relu(two + scale[1] * jr.normal(k4, (width, 1)))
        return phi.T @ phi / width

    grams = np.asarray(jax.lax.map(hidden, jr.split(jr.key(0), num), batch_size=50))
    z = (grams.mean(0) - np.asarray(kernel.nngp(X))) / (grams.std(0) / np.sqrt(num))
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize(
    "kernel", [MLPKernel(2, "erf"), RBFKernel(), 2.0 * MLPKernel(1) + RBFKernel() * MaternKernel(1.5)]
)
def test_tiles_give_what_one_piece_gives(kernel):
    x = jnp.asarray(rng.normal(size=(700, 3)))
    whole = np.asarray(kernel.pair(x, x, ntk=False)[0])
    np.testing.assert_allclose(kernel.nngp(x), whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(kernel.nngp(x, x[:500]), whole[:, :500], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(kernel.diag(x), np.diagonal(whole), rtol=1e-12)


def test_gradients_through_tiles():
    x, seed = jnp.asarray(rng.normal(size=(600, 2))), jnp.asarray(rng.normal(size=(600, 600)))

    def value(w, x, tiled):
        kernel = MLPKernel(2, "relu", w)
        pair = lambda a, b: kernel.pair(a, b, ntk=False)[0]  # noqa: E731
        gram = symmetric(pair, x, kernel.diag_of(x, ntk=False)[0]) if tiled else pair(x, x)
        return jnp.sum(seed * gram)

    tiled, whole = (jax.grad(value, (0, 1))(2.0, x, tiled) for tiled in (True, False))
    np.testing.assert_allclose(tiled[0], whole[0], rtol=1e-10)
    np.testing.assert_allclose(tiled[1], whole[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "kernel",
    [
        MaternKernel(2.5),
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in (MLPKernel(3), MLPKernel(2, "abs"), MLPKernel(2, jnp.tanh), RBFKernel())
        ),
    ],
)
def test_gradients_are_finite_where_points_coincide(kernel):
    x = np.concatenate([X, X[:2], np.zeros((1, 3))])
    gradient = jax.grad(lambda x: jnp.sum(kernel.nngp(x, x)))(jnp.asarray(x))
    assert np.isfinite(gradient).all()
    of_kernel = jax.grad(lambda k: jnp.sum(k.nngp(x)))(jax.tree.map(jnp.asarray, kernel))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_kernel))


@pytest.mark.slow
def test_gauss_hermite_finds_a_closed_form():
    known, found = MLPKernel(2, "erf"), MLPKernel(2, GaussHermite(jax.scipy.special.erf, 100))
    np.testing.assert_allclose(found.nngp(X), known.nngp(X), rtol=1e-6)
    identity = MLPKernel(1, ReLU(1.0), 1.0, 0.0)
    np.testing.assert_allclose(identity.nngp(X), X @ X.T / 3, rtol=1e-12)


def test_results_come_in_the_callers_precision_and_are_computed_in_64_bits():
    exact = np.asarray(MLPKernel(8).nngp(X))
    with jax.enable_x64(False):
        single = MLPKernel(8).nngp(X)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, exact.astype(np.float32))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLPKernel(0), "`depth` must be an integer of at least 1"),
        (lambda: MLPKernel(2, "swish"), "`activation` must be one of"),
        (lambda: MLPKernel(2, weight_variance=-1.0), "`weight_variance` must be positive"),
        (lambda: MLPKernel(2, weight_variance=np.ones(3)), "one for each hidden layer"),
        (lambda: MLPKernel().nngp(X[:, 0]), r"write x\[:, None\]"),
        (lambda: MLPKernel().nngp(X, X[:, :2]), "`z` must have inputs of shape"),
        (lambda: CNNKernel().nngp(X), "height, width, channels"),
        (lambda: MLPKernel() + CNNKernel(), "inputs of one form"),
    ],
)
def test_errors_say_what_was_expected(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_is_no_network_has_no_tangent_kernel():
    for kernel in (RBFKernel(), MaternKernel(), MLPKernel() * MLPKernel()):
        with pytest.raises(TypeError, match="no neural tangent kernel"):
            kernel.ntk(X)
