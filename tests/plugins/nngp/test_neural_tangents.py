"""Kernel values against those that neural-tangents gave for the same inputs (make_neural_tangents.py made the file)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posterax_nngp import CNNKernel, GaussHermite, MLPKernel, ReLU, ResNetKernel

STORED = json.loads(Path(__file__).with_name("neural_tangents.json").read_text())
CASES = [
    pytest.param(
        case,
        id="-".join(str(case[name]) for name in ("network", "activation", "depth")),
        marks=[pytest.mark.slow]
        * (case["network"] == "cnn" or case["activation"] in ("softplus", "sin", "leaky_relu", "gelu")),
    )
    for case in STORED["cases"]
]
NETWORKS = {"mlp": MLPKernel, "resnet": ResNetKernel, "cnn": CNNKernel}
# Of tanh, whose poles are near the real axis, the Hermite series needs many terms where inputs coincide.
BY_QUADRATURE = {
    "sin": GaussHermite(jnp.sin),
    "gelu": GaussHermite(lambda u: jax.nn.gelu(u, approximate=False)),
    "softplus": GaussHermite(jax.nn.softplus),
    "tanh": GaussHermite(jnp.tanh, degree=200),
}
CLOSED_FORM = {"relu": "relu", "abs": "abs", "erf": "erf", "leaky_relu": ReLU(0.1)}
NTK_RTOL = 1e-6  # neural-tangents takes arccos at 1 of what rounding made 1 - 1e-16


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def kernel_and_inputs(case):
    """The kernel, x, z, and what the file says of `nngp` and `ntk`: (x with z, x with x)."""
    kernel = NETWORKS[case["network"]](
        depth=case["depth"],
        activation=(CLOSED_FORM | BY_QUADRATURE)[case["activation"]],
        weight_variance=STORED["weight_variance"],
        bias_variance=STORED["bias_variance"],
    )
    names = ("images", "other_images") if case["network"] == "cnn" else ("x", "z")
    return kernel, *(np.array(STORED[name]) for name in names)


def stored(case, kind, n):
    """The matrices of (x, z) and of (x, x)."""
    square = np.zeros((n, n))
    square[np.triu_indices(n)] = case[f"{kind}_upper"]
    return np.array(case[kind]), np.triu(square) + np.triu(square, 1).T


def rtol(case):
    return 1e-6 if case["activation"] in BY_QUADRATURE else 1e-10


def test_one_row_of_z_is_a_row_of_x():
    for x, z in (("x", "z"), ("images", "other_images")):
        equal = [(a, b) for a in STORED[x] for b in STORED[z] if a == b]
        assert len(equal) == 1


@pytest.mark.parametrize("case", CASES)
def test_nngp(case):
    kernel, x, z = kernel_and_inputs(case)
    both, alone = stored(case, "nngp", len(x))
    np.testing.assert_allclose(kernel.nngp(x, z), both, rtol=rtol(case))
    np.testing.assert_allclose(kernel.nngp(x), alone, rtol=rtol(case))
    np.testing.assert_allclose(kernel.nngp(x, x), alone, rtol=rtol(case))
    np.testing.assert_allclose(kernel.diag(x), np.diag(alone), rtol=rtol(case))


@pytest.mark.parametrize("case", CASES)
def test_ntk(case):
    kernel, x, z = kernel_and_inputs(case)
    both, alone = stored(case, "ntk", len(x))
    np.testing.assert_allclose(kernel.ntk(x, z), both, rtol=NTK_RTOL)
    np.testing.assert_allclose(kernel.ntk(x), alone, rtol=NTK_RTOL)
