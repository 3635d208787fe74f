"""Makes neural_tangents.json, the kernels of neural-tangents that test_neural_tangents.py compares with.

Run in an environment of its own: `pip install neural-tangents==0.6.5 jax==0.4.36 jaxlib==0.4.36 "numpy<2"`, then
`python make_neural_tangents.py > neural_tangents.json`. The inputs are NumPy's, so they do not depend on JAX's version.
All networks are in the NTK parameterisation with weight variance 1.7 and bias variance 0.2; the readout has weight
variance 1 and no bias. `depth` counts the activations between the input and the readout.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)

WEIGHT_VARIANCE, BIAS_VARIANCE = 1.7, 0.2
# Nodes a dimension of the Gauss-Hermite rules: tanh, with its poles near the real axis, converges slowest.
DEGREE = {"tanh": 300, "softplus": 150}

ACTIVATIONS = {
    "relu": stax.Relu,
    "leaky_relu": lambda: stax.LeakyRelu(0.1),
    "abs": stax.Abs,
    "erf": stax.Erf,
    # Through quadrature in posterax, to which a kink (ELU) would leave errors of 1e-4 on both sides.
    "sin": stax.Sin,
    "gelu": lambda: stax.Gelu(approximate=False),
    "tanh": lambda: stax.ElementwiseNumerical(jnp.tanh, DEGREE["tanh"]),
    "softplus": lambda: stax.ElementwiseNumerical(jax.nn.softplus, DEGREE["softplus"]),
}


def dense(width=1):
    return stax.Dense(width, W_std=WEIGHT_VARIANCE**0.5, b_std=BIAS_VARIANCE**0.5, parameterization="ntk")


def convolution():
    return stax.Conv(
        1, (3, 3), padding="SAME", W_std=WEIGHT_VARIANCE**0.5, b_std=BIAS_VARIANCE**0.5, parameterization="ntk"
    )


def readout():
    return stax.Dense(1, W_std=1.0, b_std=None, parameterization="ntk")


def mlp(activation, depth):
    return stax.serial(*(layer for _ in range(depth) for layer in (dense(), ACTIVATIONS[activation]())), readout())


def resnet(activation, depth):
    """x + W phi(x) + b, `depth` - 1 times after the input layer; then the readout of phi."""
    act = ACTIVATIONS[activation]
    block = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), stax.serial(act(), dense())), stax.FanInSum())
    return stax.serial(dense(), *[block] * (depth - 1), act(), readout())


def cnn(activation, depth):
    layers = (layer for _ in range(depth) for layer in (convolution(), ACTIVATIONS[activation]()))
    return stax.serial(*layers, stax.Flatten(), readout())


NETWORKS = {"mlp": mlp, "resnet": resnet, "cnn": cnn}
CASES = (
    *(("mlp", activation, depth) for activation in ("relu", "leaky_relu", "abs", "erf") for depth in (1, 3)),
    *(("resnet", activation, 3) for activation in ("relu", "erf")),
    ("cnn", "relu", 2),
    *(("mlp", activation, 2) for activation in ("sin", "gelu", "tanh", "softplus")),
)


def inputs():
    """Vectors and images; one row of z is a row of x."""
    random = np.random.default_rng(0)
    x, z = random.normal(size=(7, 4)), random.normal(size=(5, 4))
    images, others = random.normal(size=(4, 5, 6, 2)), random.normal(size=(3, 5, 6, 2))
    z[2], others[1] = x[3], images[2]
    return {"x": x, "z": z, "images": images, "other_images": others}


def main():
    data = inputs()
    cases = []
    for network, activation, depth in CASES:
        kernel = NETWORKS[network](activation, depth)[2]
        x, z = (data[name] for name in (("images", "other_images") if network == "cnn" else ("x", "z")))
        upper = np.triu_indices(len(x))
        case = {"network": network, "activation": activation, "depth": depth}
        for kind in ("nngp", "ntk"):
            case[kind] = np.asarray(kernel(x, z, kind)).tolist()
            case[f"{kind}_upper"] = np.asarray(kernel(x, None, kind))[upper].tolist()
        cases.append(case)
    settings = {"weight_variance": WEIGHT_VARIANCE, "bias_variance": BIAS_VARIANCE}
    parts = {
        **{name: json.dumps(value) for name, value in settings.items()},
        **{name: json.dumps(value.tolist()) for name, value in data.items()},
        "cases": "[\n" + ",\n".join(map(json.dumps, cases)) + "\n]",
    }
    sys.stdout.write("{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n")


if __name__ == "__main__":
    main()
