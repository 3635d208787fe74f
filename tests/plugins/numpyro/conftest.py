import logging

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints
from posterax import Target


def log_density(values, mean, precision, temperature):
    """A correlated Gaussian of (log scale, x), written as a density of scale and x."""
    u = jnp.concatenate([jnp.log(values["scale"])[None], values["x"]]) - mean
    return -0.5 * temperature * u @ precision @ u - jnp.log(values["scale"])


class Correlated:
    """A target in three dimensions of which everything is known; one coordinate is the log of a positive value.

    Means, precision and a temperature are data, so that all instances share one compiled program.
    """

    cov = np.array([[1.0, 0.9, -0.3], [0.9, 2.0, 0.1], [-0.3, 0.1, 0.25]])
    precision = np.linalg.inv(cov)
    log_evidence = 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]

    def __init__(self, mean=(0.5, -1.0, 2.0), temperature=1.0):
        self.mean = np.array(mean)
        self.target = Target(
            log_density, self.mean, self.precision, temperature, like={"scale": 1.0, "x": np.zeros(2)},
            support={"scale": constraints.positive},
        )  # fmt: skip

    @staticmethod
    def position(values):
        """(log scale, x) along the last axis, in float64."""
        x = np.asarray(values["x"], np.float64)
        return np.concatenate([np.log(np.asarray(values["scale"], np.float64))[..., None], x], axis=-1)

    def exact(self, num, seed):
        """Independent exact draws: values by name, leading axis `num`."""
        u = np.random.default_rng(seed).multivariate_normal(self.mean, self.cov, num).astype(np.float32)
        return {"scale": np.exp(u[:, 0]), "x": u[:, 1:]}

    def second(self, position):
        """Products of centred coordinates along the last axis, and their exact means."""
        first, second = np.triu_indices(3)
        centred = position - self.mean
        return centred[..., first] * centred[..., second], self.cov[first, second]


@pytest.fixture(scope="package")
def correlated():
    return Correlated()


@pytest.fixture(scope="package")
def make_correlated():
    return Correlated


def scores(replicates, truth):
    """Standard errors between the mean over axis 0 of independent replicates and the truth, entry by entry."""
    replicates = np.asarray(replicates, np.float64)
    return (replicates.mean(0) - truth) / (replicates.std(0, ddof=1) / np.sqrt(len(replicates)))


@pytest.fixture(scope="package")
def z():
    return scores


@pytest.fixture
def compilations():
    """The names of all functions that JAX compiles during the test, as they come; cleared at will."""
    names = []
    handler = logging.Handler()
    handler.emit = lambda record: names.append(record.getMessage())
    logger = logging.getLogger("jax._src.interpreters.pxla")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield names
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate
