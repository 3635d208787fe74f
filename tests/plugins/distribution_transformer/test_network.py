import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from posterax import PosteraxWarning
from posterax_distribution_transformer import (
    DistributionTransformer,
    InferenceProblem,
    LengthScale,
    LinearGaussian,
    MixtureMetaPrior,
    Rows,
    components_of,
    gaussian_mixture,
)
from posterax_distribution_transformer._estimator import _survey, posterior_parts
from posterax_distribution_transformer._network import Attention, read
from posterax_distribution_transformer._spec import spec_of
from posterax_distribution_transformer._tokens import Units, component_features, to_components

# Level B: what holds for any weights. The networks here are random, with all layers at work.


def untrained(problem, seed=0, **settings):
    """An estimator as it is before training, but for layers that would add nothing."""
    estimator = DistributionTransformer(**{"width": 16, "heads": 2, "depth": 2, "hidden": 16, **settings})
    spec = spec_of(problem, estimator.num_components, estimator.diagonal, key=jr.key(seed))
    scales, seen = _survey(problem, spec, jr.key(seed + 1))
    network = estimator._network(spec, jr.key(seed + 2))
    rng = np.random.default_rng(seed)
    random = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), network)
    return dataclasses.replace(estimator, network=random, spec=spec, scales=scales, range=seen, report={})


@pytest.fixture(scope="module")
def plane():
    """Mixture priors of three components in the plane, two sources, one of which is a set of rows."""

    def simulate(latent, *, key):
        one, two = jr.split(key)
        return {"once": latent[0] + jr.normal(one), "often": latent + jr.normal(two, (4, 2))}

    return untrained(InferenceProblem(MixtureMetaPrior(3, 2, concentration=1.0), simulate))


@pytest.fixture(scope="module")
def length():
    return untrained(LengthScale(4).problem(), encoder_depth=2)


PRIOR = {
    "weights": np.array([0.2, 0.5, 0.3]),
    "mean": np.array([[0.0, 1.0], [1.0, -1.0], [-0.5, 0.3]]),
    "covariance": np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.6, 0.0], [0.0, 0.9]], [[0.8, -0.4], [-0.4, 0.7]]]),
}
ROWS = np.array([[0.3, 0.1], [-0.4, 1.0], [1.2, 0.0], [0.2, -0.7]])
POINTS = np.random.default_rng(1).normal(size=(6, 2))


def mixture(order=(0, 1, 2)):
    given = {name: values[list(order)] for name, values in PRIOR.items()}
    return gaussian_mixture(given["weights"], given["mean"], covariance=given["covariance"])


def test_rows_that_attend_to_each_other_may_come_in_any_order_and_matter_together(length):
    prior, at = dist.InverseGamma(2.0, 3.0), jnp.array([0.5, 2.0, 7.0])
    here, turned, without = (
        length.infer(rows, prior=prior, check=False).log_prob(at) for rows in (ROWS, ROWS[[3, 0, 2, 1]], ROWS[:3])
    )
    np.testing.assert_allclose(turned, here, atol=1e-5)
    assert np.abs(np.asarray(without - here)).max() > 1e-3
    plain = dataclasses.replace(length, network=dataclasses.replace(length.network, encoder=None))
    assert np.abs(np.asarray(plain.infer(ROWS, prior=prior, check=False).log_prob(at) - here)).max() > 1e-3


@pytest.mark.parametrize("trunk", ["transformer", "deepsets"])
def test_the_order_of_components_and_rows_does_not_matter(plane, trunk):
    if trunk == "deepsets":
        plane = untrained(LinearGaussian.of(MixtureMetaPrior(3, 2)).problem(), trunk="deepsets")
        seen = again = np.array([0.3, -0.2])
    else:
        seen, again = {"once": 0.5, "often": ROWS}, {"once": 0.5, "often": ROWS[[3, 0, 2, 1]]}
    here = plane.infer(seen, prior=mixture(), check=False)
    there = plane.infer(again, prior=mixture((2, 0, 1)), check=False)
    np.testing.assert_allclose(there.log_prob(POINTS), here.log_prob(POINTS), atol=1e-5)
    parts, turned = components_of(here), components_of(there)
    np.testing.assert_allclose(turned.mean, parts.mean[jnp.array([2, 0, 1])], atol=1e-5)


def test_every_number_of_the_input_matters(plane):
    """The same functions fail where a number is not looked at."""
    base = plane.infer({"once": 0.5, "often": ROWS}, prior=mixture(), check=False).log_prob(POINTS)
    other = [plane.infer({"once": 0.6, "often": ROWS}, prior=mixture(), check=False)]
    for row in range(4):
        moved = ROWS.copy()
        moved[row, row % 2] += 0.1
        other.append(plane.infer({"once": 0.5, "often": moved}, prior=mixture(), check=False))
    for name in PRIOR:
        changed = {key: value.copy() for key, value in PRIOR.items()}
        changed[name] = np.array([0.3, 0.4, 0.3]) if name == "weights" else changed[name] * 1.1
        law = gaussian_mixture(changed["weights"], changed["mean"], covariance=changed["covariance"])
        other.append(plane.infer({"once": 0.5, "often": ROWS}, prior=law, check=False))
    assert all(np.abs(np.asarray(law.log_prob(POINTS)) - np.asarray(base)).max() > 1e-4 for law in other)


def test_a_mask_is_a_removal(plane, length):
    present = np.array([True, False, True, False])
    poisoned = np.where(present[:, None], ROWS, np.nan)  # what is missing is never looked at
    masked = plane.infer({"once": 0.5, "often": Rows(poisoned, present)}, prior=mixture(), check=False)
    removed = plane.infer({"once": 0.5, "often": ROWS[[0, 2]]}, prior=mixture(), check=False)
    np.testing.assert_allclose(masked.log_prob(POINTS), removed.log_prob(POINTS), atol=1e-5)
    gone = plane.infer({"once": Rows(np.nan, False), "often": ROWS}, prior=mixture(), check=False)
    without = plane.infer({"often": ROWS}, prior=mixture(), check=False)
    np.testing.assert_allclose(gone.log_prob(POINTS), without.log_prob(POINTS), atol=1e-5)
    some = length.infer(ROWS[:2], prior=dist.InverseGamma(2.0, 3.0), check=False)
    padded = Rows(np.concatenate([ROWS[:2], np.full((2, 2), np.inf)]), np.array([True, True, False, False]))
    same = length.infer(padded, prior=dist.InverseGamma(2.0, 3.0), check=False)
    np.testing.assert_allclose(some.log_prob(jnp.array([0.5, 3.0])), same.log_prob(jnp.array([0.5, 3.0])), atol=1e-5)


def test_a_residual_head_starts_from_the_prior(plane, length):
    """Before training the posterior is the prior; without, the same network says something else."""
    start = dataclasses.replace(plane, residual=True)
    network = start._network(start.spec, jr.key(0))
    seen = {"once": 0.5, "often": ROWS}
    for residual, same in ((True, True), (False, False)):
        fitted = dataclasses.replace(start, network=dataclasses.replace(network, residual=residual))
        found = fitted.infer(seen, prior=mixture(), check=False)
        assert (np.abs(np.asarray(found.log_prob(POINTS) - mixture().log_prob(POINTS))).max() < 1e-4) == same
    with pytest.raises(ValueError, match="`residual` is for mixture priors, whose components it changes; got Inverse"):
        start._network(length.spec, jr.key(0))


def test_attention_to_nothing_takes_nothing():
    attention = Attention.init(8, 2, np.random.default_rng(0), zero=False)
    x, memory = jnp.ones((3, 8)), jnp.ones((4, 8))
    np.testing.assert_array_equal(attention(x, memory, jnp.zeros(4, bool)), 0.0)
    assert np.abs(attention(x, memory, jnp.arange(4) < 1)).min() > 0


def test_without_data_the_prior_comes_back(plane, length):
    prior = mixture()
    for nothing in (None, {}, {"often": Rows(ROWS, np.zeros(4, bool))}):
        assert plane.infer(nothing, prior=prior) is prior
    law = dist.InverseGamma(2.0, 3.0)
    assert length.infer(None, prior=law) is law


def test_without_data_for_some_problems_their_prior_comes_back(plane):
    batch = gaussian_mixture(*(np.stack([PRIOR[name]] * 2) for name in ("weights", "mean")),
                             covariance=np.stack([PRIOR["covariance"]] * 2))  # fmt: skip
    rows = Rows(np.stack([ROWS, ROWS]), np.array([[True] * 4, [False] * 4]))
    found = plane.infer({"often": rows}, prior=batch, check=False)
    alone = plane.infer({"often": ROWS}, prior=mixture(), check=False)
    expected = np.stack([alone.log_prob(POINTS), mixture().log_prob(POINTS)], -1)
    np.testing.assert_allclose(found.log_prob(POINTS[:, None]), expected, atol=1e-4)


def test_a_batch_is_as_many_single_problems(plane, length):
    rng = np.random.default_rng(0)
    means = PRIOR["mean"] + rng.normal(size=(3, 3, 2))
    batch = gaussian_mixture(
        np.broadcast_to(PRIOR["weights"], (3, 3)), means, covariance=np.broadcast_to(PRIOR["covariance"], (3, 3, 2, 2))
    )
    once, often = rng.normal(size=3), rng.normal(size=(3, 4, 2))
    found = plane.infer({"once": once, "often": often}, prior=batch, check=False)
    assert found.batch_shape == (3,)
    for i in range(3):
        prior = gaussian_mixture(PRIOR["weights"], means[i], covariance=PRIOR["covariance"])
        one = plane.infer({"once": once[i], "often": often[i]}, prior=prior, check=False)
        np.testing.assert_allclose(found.log_prob(POINTS[:, None])[:, i], one.log_prob(POINTS), atol=1e-4)
    shapes, scales = np.array([1.5, 3.0]), np.array([2.0, 5.0])
    many = length.infer(np.stack([ROWS, 2 * ROWS]), prior=dist.InverseGamma(shapes, scales), check=False)
    one = length.infer(2 * ROWS, prior=dist.InverseGamma(3.0, 5.0), check=False)
    np.testing.assert_allclose(many.log_prob(1.3)[1], one.log_prob(1.3), atol=1e-5)


def test_any_number_of_components_goes_in_and_comes_out(plane):
    for num in (1, 2, 7):
        prior = gaussian_mixture(np.full(num, 1 / num), np.zeros((num, 2)), scale=np.ones((num, 2)))
        assert components_of(plane.infer({"once": 0.1}, prior=prior, check=False)).num == num


def test_a_component_without_weight_changes_nothing(plane):
    more = gaussian_mixture(
        np.append(PRIOR["weights"], 0.0), np.concatenate([PRIOR["mean"], [[9.0, 9.0]]]),
        covariance=np.concatenate([PRIOR["covariance"], [np.eye(2)]]),
    )  # fmt: skip
    here = plane.infer({"once": 0.5}, prior=mixture(), check=False)
    there = plane.infer({"once": 0.5}, prior=more, check=False)
    np.testing.assert_allclose(there.log_prob(POINTS), here.log_prob(POINTS), atol=1e-5)


def test_what_the_head_would_say_of_a_component_is_what_it_is_embedded_by(float64):
    """Embedding and decoding are inverse: features of a component, read as a head's output, are that component."""
    parts = components_of(mixture())
    units = Units(jnp.array([0.5, -1.0]), jnp.array([2.0, 0.3]))
    numbers = component_features(parts, units, diagonal=False)
    again = to_components(read(numbers, jnp.ones(3, bool), 2), units)
    for got, expected in zip(again, parts, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    whitened = read(numbers, jnp.ones(3, bool), 2)
    log_prob = whitened.log_prob(units(jnp.asarray(POINTS))) - jnp.log(units.size).sum()
    np.testing.assert_allclose(log_prob, mixture().log_prob(POINTS), rtol=1e-9)


def test_diagonal_heads_give_independent_components():
    flat = untrained(LinearGaussian.of(MixtureMetaPrior(3, 2)).problem(), diagonal=True)
    found = flat.infer(np.array([0.3, 0.1]), prior=mixture(), check=False)
    assert isinstance(found.component_distribution, dist.Independent)
    tril = np.asarray(components_of(found).scale_tril)
    assert np.all(tril[..., 0, 1] == 0)
    assert np.all(tril[..., 1, 0] == 0)


def test_a_bounded_latent_has_a_law_on_its_support(length):
    law = length.infer(ROWS, prior=dist.InverseGamma(2.0, 3.0), check=False)
    draws = np.asarray(law.sample(jr.key(0), (1000,)))
    assert draws.shape == (1000,)
    assert (draws > 0).all()
    grid = np.linspace(-80, 80, 40_001)
    mass = np.trapezoid(np.exp(np.asarray(law.base_dist.log_prob(grid), float)), grid)
    np.testing.assert_allclose(mass, 1.0, atol=1e-3)
    x = np.array([0.3, 2.0])
    np.testing.assert_allclose(law.log_prob(x), law.base_dist.log_prob(np.log(x)) - np.log(x), rtol=1e-5)


def test_coordinates_may_have_bijections_of_their_own():
    from numpyro.distributions.transforms import ExpTransform, IdentityTransform

    def latent(prior, *, key):
        one, two = jr.split(key)
        return jnp.stack([prior["m"] + jr.normal(one), jnp.exp(prior["s"] * jr.normal(two))])

    problem = InferenceProblem(
        lambda key: {"m": jr.normal(key), "s": 0.5 + jr.uniform(key)},
        lambda x, *, key: x[0] + x[1] * jr.normal(key, (3, 1)),
        latent=latent, bijection=(IdentityTransform(), ExpTransform()),
    )  # fmt: skip
    made = untrained(problem, num_components=4)
    law = made.infer(np.ones((3, 1)), prior={"m": 0.3, "s": 0.7}, check=False)
    draws = np.asarray(law.sample(jr.key(0), (500,)))
    assert (draws[:, 1] > 0).all()
    assert (draws[:, 0] < 0).any()
    y = np.array([0.2, -0.4])
    expected = law.base_dist.log_prob(y) + 0.4  # |dy/dx| of the second is 1 / x
    np.testing.assert_allclose(law.log_prob(np.array([0.2, np.exp(-0.4)])), expected, rtol=1e-4)
    batch = made.infer(np.ones((2, 3, 1)), prior={"m": np.array([0.3, 0.3]), "s": np.array([0.7, 0.9])}, check=False)
    np.testing.assert_allclose(batch.base_dist.log_prob(y)[0], law.base_dist.log_prob(y), atol=1e-5)


def test_inference_can_be_jitted_mapped_and_differentiated(plane):
    def at(once):
        return plane.infer({"once": once, "often": ROWS}, prior=mixture()).log_prob(POINTS[0])

    found = jax.jit(jax.vmap(at))(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(found[1], at(0.5), atol=1e-5)
    slope, near = jax.grad(at)(0.5), (at(0.51) - at(0.49)) / 0.02
    np.testing.assert_allclose(slope, near, rtol=0.05, atol=1e-3)


def test_the_same_call_compiles_once(plane):
    from posterax_distribution_transformer import _estimator

    plane.infer({"once": 0.5}, prior=mixture(), check=False)
    before = _estimator._answer._cached._cache_size()
    assert before > 0
    plane.infer({"once": 0.9}, prior=mixture((1, 0, 2)), check=False)
    assert _estimator._answer._cached._cache_size() == before


def test_weights_and_sizes_are_those_of_the_published_network():
    """Exp. 4.1 has 0.43 million weights (table 8): the same sizes give as many, within what else differs."""
    from posterax_distribution_transformer import NormalVariance

    settings = {"width": 64, "heads": 8, "depth": 6, "hidden": 256, "num_components": 5}
    estimator = DistributionTransformer(**settings)
    spec = spec_of(NormalVariance().problem(), 5, False, key=jr.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(estimator._network(spec, jr.key(1))))
    assert 0.35e6 < count < 0.55e6


# Bad input


def test_priors_that_are_none_are_refused(plane, length):
    seen = {"once": 0.5}
    with pytest.raises(ValueError, match="`prior` is needed"):
        plane.infer(seen)
    with pytest.raises(TypeError, match="`prior` must be a normal or a mixture of normals; got Gamma"):
        plane.infer(seen, prior=dist.Gamma(1.0, 1.0))
    with pytest.raises(ValueError, match=r"`prior` must be of values of shape \(2,\); got \(\)"):
        plane.infer(seen, prior=dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match="`prior` must be the InverseGamma that it was trained for; got Beta"):
        length.infer(ROWS, prior=dist.Beta(1.0, 1.0))
    with numpyro.validation_enabled(False):
        negative = dist.InverseGamma(-1.0, 2.0)
    with pytest.raises(ValueError, match="finite parameters within their range"):
        length.infer(ROWS, prior=negative)
    unsummed = dist.MixtureSameFamily(
        dist.Categorical(probs=np.array([0.5, 0.3]), validate_args=False),
        dist.MultivariateNormal(np.zeros((2, 2)), np.eye(2)),
    )
    with pytest.raises(ValueError, match="do not sum to 1"):
        plane.infer(seen, prior=unsummed)
    broken = dist.MultivariateNormal(np.zeros(2), scale_tril=np.array([[1.0, 0.0], [0.0, np.nan]]), validate_args=False)
    with pytest.raises(ValueError, match="covariance that is not positive definite"):
        plane.infer(seen, prior=broken)


def test_data_that_do_not_fit_are_refused(plane, length):
    prior = mixture()
    with pytest.raises(ValueError, match=r"unknown sources \['twice'\]; known are 'often', 'once'"):
        plane.infer({"twice": 0.5}, prior=prior)
    with pytest.raises(ValueError, match="`observed` must be a dictionary of sources: 'often', 'once'"):
        plane.infer(0.5, prior=prior)
    with pytest.raises(ValueError, match=r"`observed` of 'often' must have shape \('rows', 2\); got \(4, 3\)"):
        plane.infer({"often": np.zeros((4, 3))}, prior=prior)
    with pytest.raises(ValueError, match=r"`observed` of 'once' must have shape \(\); got \(2,\)"):
        plane.infer({"once": np.zeros(2)}, prior=prior)
    with pytest.raises(ValueError, match="`observed` of 'once' has values that are not finite"):
        plane.infer({"once": np.nan}, prior=prior)


def test_what_training_has_not_seen_is_flagged(plane, length):
    with pytest.warns(PosteraxWarning, match=r"'once' is .*, in training .* to .*"):
        plane.infer({"once": 1e6}, prior=mixture())
    far = gaussian_mixture([1.0], [[1e4, 0.0]], scale=[[1.0, 1.0]])
    with pytest.warns(PosteraxWarning, match="mean of the prior, coordinate 0, is"):
        plane.infer({"once": 0.0}, prior=far)
    many = np.stack([np.linspace(0, 10, 30), np.zeros(30)], -1)
    with pytest.warns(PosteraxWarning, match="number of rows of 'observed' is 30, in training"):
        length.infer(many, prior=dist.InverseGamma(2.0, 3.0))
    with pytest.warns(PosteraxWarning, match=r"parameter 0 of the prior is .* \(1 of 2 problems\)"):
        length.infer(np.stack([ROWS, ROWS]), prior=dist.InverseGamma(np.array([2.0, 1e4]), np.array([3.0, 3.0])))
    outside = length.outside(ROWS, prior=dist.InverseGamma(1e4, 3.0))
    assert dict(zip(length.range.names, np.asarray(outside.figures), strict=True))["parameter 0 of the prior"]


def test_what_training_has_seen_is_seldom_flagged(length):
    """Of 4,000 fresh problems; each of 8 figures is outside in about 2 of 16,384, and their combination likewise."""
    problem = LengthScale(4).problem()

    def one(key):
        prior, _, observed = problem.draw(key=key)
        return length.is_outside(length.spec.encode(prior, observed))

    assert np.asarray(jax.jit(jax.vmap(one))(jr.split(jr.key(7), 4000))).sum() <= 20


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`width` must be a multiple of `heads`; got 30 and 4"):
        DistributionTransformer(width=30)
    with pytest.raises(ValueError, match="`depth` must be an integer, 1 or more; got 0"):
        DistributionTransformer(depth=0)
    with pytest.raises(ValueError, match="`trunk` must be one of transformer, deepsets"):
        DistributionTransformer(trunk="mlp")
    with pytest.raises(ValueError, match="`encoder_depth` must be an integer, 0 or more; got -1"):
        DistributionTransformer(encoder_depth=-1)
    with pytest.raises(ValueError, match='"deepsets" does without; it must be 0'):
        DistributionTransformer(encoder_depth=1, trunk="deepsets")
    with pytest.raises(ValueError, match="`drop_sources` must be at least 0 and below 1"):
        DistributionTransformer(drop_sources=1.0)
    with pytest.raises(ValueError, match="has not been trained"):
        DistributionTransformer().infer(0.0, prior=dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match="`data` must be an InferenceProblem; got ndarray"):
        DistributionTransformer().fit(np.zeros(3), key=jr.key(0))


def test_problems_that_cannot_be_learned_say_why():
    def simulate(latent, *, key):
        return jr.normal(key)

    def prior(key):
        return {"a": jr.normal(key)}

    matrix = InferenceProblem(prior, simulate, latent=lambda p, *, key: jnp.zeros((2, 2)), bijection=())
    with pytest.raises(ValueError, match=r"The latent must be a number or a vector; got shape \(2, 2\)"):
        spec_of(matrix, 2, False, key=jr.key(0))
    plain = InferenceProblem(prior, simulate, latent=lambda p, *, key: p["a"])
    with pytest.raises(ValueError, match="`bijection` is needed where the prior is no NumPyro distribution"):
        spec_of(plain, 2, False, key=jr.key(0))
    with pytest.raises(TypeError, match="`bijection` must be transforms of single numbers"):
        spec_of(InferenceProblem(lambda key: dist.Dirichlet(jnp.ones(3)), simulate), 2, False, key=jr.key(0))
    broken = InferenceProblem(lambda key: dist.Normal(0.0, 1.0), lambda latent, *, key: jnp.sqrt(-1 - latent**2))
    with pytest.raises(ValueError, match="16384 of 16384 simulated problems are not finite"):
        _survey(broken, spec_of(broken, 2, False, key=jr.key(0)), jr.key(1))


def test_parts_of_one_problem_are_what_infer_tells(plane):
    spec = plane.spec
    encoded = spec.encode(mixture(), {"once": Rows(jnp.asarray(0.5))})
    parts = posterior_parts(plane.learned(), encoded)
    law = plane.infer({"once": 0.5}, prior=mixture(), check=False)
    np.testing.assert_allclose(parts.log_prob(jnp.asarray(POINTS)), law.log_prob(POINTS), atol=1e-5)
