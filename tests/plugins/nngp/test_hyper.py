"""Hyper-parameters: chosen by evidence, and sampled with the scale integrated out."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import posterax
import pytest
from posterax_nngp import MLPKernel, RBFKernel, ScaleMixtureNNGP, networks
from scipy import stats

rng = np.random.default_rng(3)
X = np.linspace(-2.0, 2.0, 12)[:, None]
Y = np.sin(2 * X[:, 0]) + 0.2 * rng.normal(size=12)
NEW = np.array([[0.3], [3.0]])
A, B = 2.0, 1.5
KEY = jr.key(0)
MODEL = ScaleMixtureNNGP(MLPKernel(1, "erf", 2.0, 0.5), dist.InverseGamma(A, B), 0.1, learn=("noise",))

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.slow
def test_the_network_of_largest_evidence_is_kept():
    kernels = networks((1, 3), ("relu", "erf"))
    assert [kernel.depth for kernel in kernels] == [1, 1, 3, 3]
    model = ScaleMixtureNNGP(kernels[0], noise=0.1, candidates=kernels[1:], max_steps=60)
    fitted = model.fit((X, Y), key=KEY)
    evidences = dict(fitted.report["candidates"])
    assert len(evidences) == 4
    chosen = kernels[int(np.argmax(list(evidences.values())))]
    assert (fitted.kernel.depth, fitted.kernel.activation) == (chosen.depth, chosen.activation)
    alone = ScaleMixtureNNGP(fitted.kernel, noise=fitted.noise, max_steps=60).fit((X, Y), key=KEY)
    assert alone.report["log_evidence"] == pytest.approx(fitted.report["log_evidence"], abs=1e-3)
    assert fitted.report["log_evidence"] >= max(evidences.values()) - 1e-9


def grid():
    """The posterior of log noise on a grid: evidence by SciPy's multivariate t, with the default log-normal prior."""
    t = np.linspace(np.log(0.1) - 5, np.log(0.1) + 5, 401)
    gram = np.asarray(MODEL.kernel.nngp(X))
    log_p = np.array(
        [stats.multivariate_t(df=2 * A, shape=B / A * (gram + np.exp(u) * np.eye(12))).logpdf(Y) for u in t]
    ) + stats.norm(np.log(0.1), 1).logpdf(t)
    weights = np.exp(log_p - log_p.max())
    return t, weights / weights.sum(), log_p


def test_the_target_is_evidence_times_prior():
    target = MODEL.target((X, Y))
    t, _, log_p = grid()
    for i in (150, 200, 230):
        position = target.unconstrain({"noise": jnp.asarray(np.exp(t[i]))})
        np.testing.assert_allclose(target.log_density(position), log_p[i], rtol=1e-9)


def test_targets_of_two_data_sets_are_one_program():
    wide = {"noise": dist.LogNormal(-2.0, 2.0)}
    one, two = (MODEL.target((X, data), hyper_prior=wide) for data in (Y, Y + 1.0))
    traced = []

    @eqx.filter_jit
    def density(target, key):
        traced.append(1)
        return target.log_density(target.sample_prior(key=key))

    found = [float(density(target, KEY)) for target in (one, two)]
    assert len(traced) == 1
    assert found[0] != found[1]


@pytest.mark.slow
def test_nuts_samples_the_noise_and_predictions_average_over_it():
    """400 draws of one parameter: the mean of log noise within 4 standard errors at 80 independent draws' worth."""
    draws = posterax.sample(
        posterax.get("nuts")(num_warmup=150), MODEL.target((X, Y)), num_draws=400, num_chains=1, key=KEY
    )
    t, weights, _ = grid()
    exact, sd = weights @ t, np.sqrt(weights @ t**2 - (weights @ t) ** 2)
    logs = np.log(draws.values["noise"]).ravel()
    assert abs(logs.mean() - exact) < 4 * sd / np.sqrt(80)
    assert 0.6 < logs.std() / sd < 1.6

    law = MODEL.averaged((X, Y), draws, NEW, num=100)
    chosen = np.exp(t[::8]), weights[::8] / weights[::8].sum()
    each = [
        ScaleMixtureNNGP(MODEL.kernel, MODEL.scale_prior, float(noise), learn=())
        .condition((X, Y))
        .infer(NEW, joint=False)
        for noise in chosen[0]
    ]
    mean = sum(w * np.asarray(one.mean) for w, one in zip(chosen[1], each, strict=True))
    second = sum(w * np.asarray(one.variance + one.mean**2) for w, one in zip(chosen[1], each, strict=True))
    np.testing.assert_allclose(law.mean, mean, atol=0.05)
    np.testing.assert_allclose(law.variance, second - mean**2, rtol=0.25)


def test_weighted_draws_count_by_their_weights():
    """The grid itself as weighted draws: the average is the quadrature's, up to rounding weights to 1/400."""
    t, weights, log_p = grid()
    draws = posterax.Draws({"noise": np.exp(t)[None]}, {}, log_weights=log_p[None])
    law = MODEL.averaged((X, Y), draws, NEW, num=400)
    plain = posterax.Draws({"noise": np.exp(t)[weights > 1e-3][None]}, {})
    alike = MODEL.averaged((X, Y), plain, NEW, num=400)
    mean = np.zeros(2)
    for noise, weight in zip(np.exp(t), weights, strict=True):
        if weight > 1e-6:
            one = ScaleMixtureNNGP(MODEL.kernel, MODEL.scale_prior, float(noise), learn=()).condition((X, Y))
            mean += weight * np.asarray(one.infer(NEW, joint=False).mean)
    np.testing.assert_allclose(law.mean, mean, atol=1e-3)
    assert abs(np.asarray(alike.mean) - mean).max() > 0.02  # weights matter
    dead = posterax.Draws({"noise": np.ones((1, 3))}, {}, log_weights=np.full((1, 3), -np.inf))
    with pytest.raises(ValueError, match="`draws` have no weight"):
        MODEL.averaged((X, Y), dead, NEW)


def test_a_step_to_where_there_is_no_evidence_is_not_the_last():
    """L-BFGS begins with a step to the bounds, where the kernel of erf has no gradient; it must come back."""
    random = np.random.default_rng(0)
    data = random.normal(size=(60, 3)), random.normal(size=60)
    found = [
        ScaleMixtureNNGP(MLPKernel(2, "erf", 2.0, 0.1), dist.Delta(1.0), noise, learn=("kernel", "noise")).fit(
            data, key=KEY
        )
        for noise in (0.05, 1.0)
    ]
    first, second = (one.report["log_evidence"] for one in found)
    assert abs(first - second) < 1  # two optima; it ended at -420 once, and at -92 now


def test_whole_numbers_are_learnt_too():
    fitted = ScaleMixtureNNGP(RBFKernel(1, 2), noise=0.1).fit((X, Y), key=KEY)
    assert float(fitted.kernel.lengthscale) != 1
    assert float(fitted.kernel.variance) != 2


def test_bad_settings_of_the_target():
    with pytest.raises(ValueError, match="must name hyper-parameters"):
        MODEL.target((X, Y), hyper_prior={"depth": dist.Gamma(1.0, 1.0)})
    with pytest.raises(TypeError, match="`candidates` must be"):
        ScaleMixtureNNGP(candidates=[MLPKernel()])
    with pytest.raises(ValueError, match="num_inducing"):
        ScaleMixtureNNGP(num_inducing=3).target((X, Y))
