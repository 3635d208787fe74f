import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy
from posterax import Target, TargetError

Y = np.array([1.0, 2.0, 0.5])


def hierarchical(y, scale=1.0):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    upper = numpyro.sample("upper", dist.Uniform(tau, tau + 2))  # its support depends on another site
    probs = numpyro.sample("probs", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("row", len(y)):
        eta = numpyro.sample("eta", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, upper * scale), obs=y)
    numpyro.factor("bonus", -jnp.sum(probs**2))


def random_position(target, seed=0):
    return target.initial(key=jr.key(seed))


def test_a_numpyro_target_is_numpyros_own_density():
    target = Target.from_numpyro(hierarchical, Y)
    for seed in range(5):
        u = random_position(target, seed)
        expected = -potential_energy(hierarchical, (Y,), {}, u)
        assert jnp.allclose(target.log_density(u), expected, rtol=1e-5)


def test_prior_and_likelihood_add_up_and_factors_are_likelihood_but_no_observation():
    target = Target.from_numpyro(hierarchical, Y)
    u = random_position(target)
    terms = target.log_likelihood(u)
    assert set(terms) == {"y"}
    assert terms["y"].shape == (3,)
    values = target.constrain(u)
    bonus = -jnp.sum(values["probs"] ** 2)
    assert jnp.allclose(target.log_density(u) - target.log_prior(u), terms["y"].sum() + bonus, rtol=1e-5)
    expected = dist.Normal(values["theta"], values["upper"]).log_prob(Y)
    assert jnp.allclose(terms["y"], expected, rtol=1e-5)


def test_the_jacobian_is_that_of_automatic_differentiation():
    def model():
        tau = numpyro.sample("tau", dist.LogNormal(0, 1))
        numpyro.sample("upper", dist.Uniform(tau, 3 * tau))

    target = Target.from_numpyro(model)
    u = random_position(target)
    jacobian = jax.jacobian(lambda u: ravel_pytree(target.constrain(u))[0])(u)
    matrix = jnp.stack([jacobian["tau"], jacobian["upper"]], axis=1)
    assert jnp.allclose(jnp.linalg.slogdet(matrix)[1], target.log_jacobian(u), rtol=1e-5)
    values = target.constrain(u)
    exact = dist.LogNormal(0, 1).log_prob(values["tau"]) - jnp.log(2 * values["tau"])
    assert jnp.allclose(target.log_density(u) - target.log_jacobian(u), exact, rtol=1e-5)


def test_constrain_and_unconstrain_are_inverse():
    target = Target.from_numpyro(hierarchical, Y)
    u = random_position(target)
    back = target.unconstrain(target.constrain(u))
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-4), u, back))
    with pytest.raises(ValueError, match=r"lacks \['eta', 'probs'"):
        target.unconstrain({"mu": 0.0, "tau": 1.0})


def test_prior_draws_and_predictions_have_the_laws_of_the_model():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(3.0, 2.0))
        numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)

    target = Target.from_numpyro(model, np.array(1.0))
    keys = jr.split(jr.key(1), 20_000)
    mu = jax.vmap(lambda k: target.sample_prior(key=k)["mu"])(keys)
    y = jax.vmap(lambda k: target.sample_predictive({"mu": 1.0}, key=k)["y"])(keys)
    # 20,000 replicates, 5 standard errors: false alarms 6e-7 each; catches 0.05 sd with 99 %.
    for draws, mean, sd in ((mu, 3.0, 2.0), (y, 1.0, 0.5)):
        assert abs(draws.mean() - mean) < 5 * sd / np.sqrt(len(keys))
        assert abs(draws.std() - sd) < 5 * sd / np.sqrt(2 * len(keys))
    assert float(target.observed()["y"]) == 1.0


def test_masked_observations_count_nothing():
    def model(y, seen):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("row", 3), numpyro.handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    target = Target.from_numpyro(model, np.array([1.0, 99.0, 2.0]), np.array([True, False, True]))
    terms = target.log_likelihood({"mu": jnp.array(0.0)})["y"]
    assert terms[1] == 0
    assert jnp.allclose(terms[0], dist.Normal(0, 1).log_prob(1.0))


def of_counts(y, seen, high):
    rate = numpyro.sample("rate", dist.LogNormal(0, 1))
    with numpyro.plate("row", 3), numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Poisson(rate), obs=y)
    numpyro.sample("z", dist.Uniform(0, rate + high), obs=jnp.array(1.0))


@pytest.mark.parametrize("y", [[1.0, 2.0, 3.0], [1.0, -2.0, 3.0], [1.0, np.nan, 3.0], [1.0, 2.5, 3.0]])
@pytest.mark.parametrize("seen", [[True, True, True], [True, False, True], True])
@pytest.mark.parametrize("high", [0.0, 2.0])
def test_data_outside_the_support_count_as_numpyro_has_it(y, seen, high):
    arguments = (np.array(y), np.array(seen), high)
    target = Target.from_numpyro(of_counts, *arguments)
    ours = eqx.filter_jit(lambda target, u: target.log_density(u))
    numpyros = jax.jit(lambda arguments, u: -potential_energy(of_counts, arguments, {}, u))
    for value in (-1.0, 0.5):
        u = {"rate": jnp.array(value)}
        assert jnp.allclose(ours(target, u), numpyros(arguments, u), rtol=1e-5, equal_nan=True)
    unmasked = Target.from_numpyro(hierarchical, np.array([1.0, np.nan, 2.0]))
    assert ours(unmasked, random_position(unmasked)) == -jnp.inf


def test_scaled_sites_count_as_often_as_they_say():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.handlers.scale(scale=10.0):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    target = Target.from_numpyro(model, Y)
    u = {"mu": jnp.array(0.3)}
    single = dist.Normal(0.3, 1).log_prob(Y)
    assert jnp.allclose(target.log_density(u) - target.log_prior(u), 10 * single.sum(), rtol=1e-5)
    assert jnp.allclose(target.log_likelihood(u)["y"], single)  # a leave-one-out term stands for one observation


def test_plates_name_axes_and_users_the_rest():
    def model(y):
        with numpyro.plate("group", 2):
            numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
        numpyro.sample("y", dist.Normal(0, 1), obs=y)

    target = Target.from_numpyro(model, Y, dims={"x": ["part"], "y": "row"}, coords={"part": list("abc")})
    assert target.labels.dims == {"x": ["group", "part"], "y": ["row"]}
    with pytest.raises(ValueError, match="`dims` names 'z', which the target has not"):
        Target.from_numpyro(model, Y, dims={"z": ["a"]})
    with pytest.raises(ValueError, match=r"`coords\['part'\]` has 2 labels.*length 3"):
        Target.from_numpyro(model, Y, dims={"x": ["part"]}, coords={"part": ["a", "b"]})
    with pytest.raises(ValueError, match="has 3 names"):
        Target.from_numpyro(model, Y, dims={"x": ["a", "b", "c"]})


def discrete():
    numpyro.sample("z", dist.Bernoulli(0.5))


def subsampling(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("row", 3, subsample_size=2) as index:
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[index])


def with_param():
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1))


def without_latents(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (discrete, (), "latent site 'z' is discrete"),
        (subsampling, (Y,), "plate 'row' subsamples 2 of 3 rows"),
        (with_param, (), "'loc' has no prior"),
        (without_latents, (Y,), "no latent continuous site"),
    ],
)
def test_models_that_cannot_be_targets_are_refused_in_words(model, args, words):
    with pytest.raises(TargetError, match=words):
        Target.from_numpyro(model, *args)


def improper(y):
    beta = numpyro.sample("beta", dist.ImproperUniform(dist.constraints.positive, (), (2,)))
    with numpyro.plate("row", 3):
        numpyro.sample("y", dist.Normal(beta.sum(), 1.0), obs=y)


def test_improper_priors_are_flat_and_cannot_be_drawn_from():
    target = Target.from_numpyro(improper, Y)
    u = random_position(target)
    assert u["beta"].shape == (2,)
    beta = target.constrain(u)["beta"]
    expected = dist.Normal(beta.sum(), 1.0).log_prob(Y).sum() + u["beta"].sum()
    assert jnp.allclose(target.log_density(u), expected, rtol=1e-5)
    assert target.observed()["y"].shape == (3,)
    assert check(target) == []
    with pytest.raises(TargetError, match="has an improper prior"):
        target.sample_prior(key=jr.key(0))


def test_an_empty_dataset_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`kwargs\['y'\]` is empty: shape \(0,\)"):
        Target.from_numpyro(hierarchical, y=np.zeros(0))
    with pytest.raises(ValueError, match=r"`data\[0\]` is empty"):
        Target(lambda x, y: 0.0, np.zeros((0, 2)), like={"x": 0.0})


def gaussian(x, y):
    return -0.5 * jnp.sum((x["mu"] - y) ** 2) - 0.5 * x["tau"] ** 2


def test_a_plain_target_adds_the_jacobian_of_its_support():
    target = Target(gaussian, Y, like={"mu": 0.0, "tau": 1.0}, support={"tau": constraints.positive})
    u = {"mu": jnp.array(0.2), "tau": jnp.array(-0.7)}
    values = {"mu": 0.2, "tau": jnp.exp(-0.7)}
    assert jnp.allclose(target.log_density(u), gaussian(values, Y) - 0.7, rtol=1e-6)
    assert jnp.allclose(target.constrain(u)["tau"], jnp.exp(-0.7))
    with pytest.raises(TargetError, match="does not know its prior from its likelihood"):
        target.log_prior(u)


def test_a_split_plain_target_knows_its_parts():
    target = Target(
        log_prior=lambda x, y: -0.5 * x**2,
        log_likelihood=lambda x, y: -0.5 * (y - x) ** 2,
        data=(Y,),
        like=0.0,
        sample_prior=lambda key: jr.normal(key),
        simulate=lambda x, key: x + jr.normal(key, (3,)),
    )
    u = jnp.array(0.4)
    assert target.log_likelihood(u)["observed"].shape == (3,)
    assert jnp.allclose(target.log_density(u), -0.5 * 0.16 - 0.5 * np.sum((Y - 0.4) ** 2))
    assert jnp.allclose(target.log_prior(u), -0.08)
    assert target.constrain(u).keys() == {"x"}
    assert target.sample_prior(key=jr.key(0)).shape == ()
    assert target.sample_predictive({"x": 0.0}, key=jr.key(0))["observed"].shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"log_density": None}, "either `log_density`, or both"),
        ({"log_density": gaussian, "log_prior": gaussian}, "either `log_density`, or both"),
        ({"log_density": gaussian, "support": {"sigma": constraints.positive}}, "`support` names 'sigma'"),
    ],
)
def test_plain_targets_that_do_not_fit_together_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Target(like={"mu": 0.0, "tau": 1.0}, **arguments)


def test_simplexes_keep_their_density_on_unconstrained_space():
    target = Target(
        lambda x: dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])).log_prob(x["p"]),
        like={"p": jnp.ones(3) / 3},
        support={"p": constraints.simplex},
    )
    u = random_position(target)
    assert u["p"].shape == (2,)
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-12, 12, 241), jnp.linspace(-12, 12, 241)), -1).reshape(-1, 2)
    total = jnp.exp(jax.vmap(lambda p: target.log_density({"p": p}))(grid)).sum() * 0.1**2
    assert jnp.allclose(total, 1.0, atol=1e-3)


# check()


def check(target):
    return target.check(key=jr.key(0), throw=False)


def test_check_finds_nothing_wrong_with_a_good_target():
    assert check(Target.from_numpyro(hierarchical, Y)) == []
    assert check(Target(gaussian, Y, like={"mu": 0.0, "tau": 1.0})) == []


def test_check_names_the_observation_that_is_not_finite():
    (problem,) = check(Target.from_numpyro(hierarchical, np.array([1.0, np.nan, 2.0])))
    assert "not finite at 32 of 32 random positions" in problem
    assert "The observed site 'y' is the cause" in problem
    assert "the first at index 1" in problem


def test_check_blames_the_prior_where_it_is_to_blame():
    target = Target(
        log_prior=lambda x: jnp.where(x > 0, 0.0, -jnp.inf), log_likelihood=lambda x: -(x[None] ** 2), like=0.0
    )
    (problem,) = check(target)
    assert "The prior is the cause" in problem


def test_check_finds_missing_gradients():
    (problem,) = check(Target(lambda x: -(jnp.round(x["a"]) ** 2) - x["b"] ** 2, like={"a": 0.0, "b": 0.0}))
    assert "gradient with respect to 'a' is zero everywhere" in problem
    (problem,) = check(Target(lambda x: jnp.where(x > 0, jnp.sqrt(x) - x, x), like=0.0))
    assert "gradient with respect to 'x' is not finite" in problem


def test_check_finds_a_bijection_that_does_not_round_trip():
    (problem,) = check(Target(lambda x: -(x["x"] ** 2), like={"x": 0.0}, support={"x": _Half()}))
    assert "The bijection of 'x' does not round-trip" in problem


class _Half(constraints.Constraint):
    """A support whose transform was written with the wrong inverse."""

    event_dim = 0

    def tree_flatten(self):
        return (), ((), {})


@dist.transforms.biject_to.register(_Half)
def _half_transform(constraint):
    return _Wrong()


class _Wrong(dist.transforms.Transform):
    domain = constraints.real
    codomain = constraints.real

    def __call__(self, x):
        return 2 * x

    def _inverse(self, y):
        return y / 2 + 0.5

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.full(jnp.shape(x), jnp.log(2.0))

    def tree_flatten(self):
        return (), ((), {})


def test_check_raises_what_it_finds_and_notes_where_errors_come_from():
    with pytest.raises(TargetError, match="- The log density is not finite"):
        Target(lambda x: jnp.log(-(x**2)), like=0.0).check(key=jr.key(0))

    def broken(x):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom") as caught:
        Target(broken, like=0.0).check(key=jr.key(0))
    assert any("Target.check" in note for note in caught.value.__notes__)
    with pytest.raises(TargetError, match="`log_density` must return one number; it returned an array of shape"):
        Target(lambda x: x, like=jnp.zeros(3)).check(key=jr.key(0))


# Data


def test_data_are_kept_as_they_were_when_the_target_was_made():
    y = np.array([1.0, 2.0])
    target = Target(lambda x, y: -jnp.sum((x - y) ** 2), y, like=0.0)
    before = target.log_density(jnp.array(0.0))
    y[:] = 100.0
    assert target.log_density(jnp.array(0.0)) == before
    with pytest.raises(ValueError, match="read-only"):
        target.density.data[0][0] = 3.0


def test_lists_floats_and_frames_become_arrays_and_integers_stay():
    import pandas as pd

    target = Target(lambda x, *data: 0.0, [1.0, 2], 3.5, 4, "word", pd.Series([1.0, 2.0]), like=0.0)
    listed, number, integer, word, series = target.density.data
    assert listed.dtype == np.float64
    assert number.shape == ()
    assert (integer, word) == (4, "word")
    assert series.tolist() == [1.0, 2.0]


def test_float64_data_keep_their_digits_in_a_float64_run():
    value = 1.0 + 2.0**-40
    target = Target(lambda x, y: y - x, np.array(value), like=0.0)
    with jax.enable_x64(True):
        assert float(target.log_density(jnp.zeros(()))) == value


def test_relabelled_or_refilled_targets_compile_nothing_new():
    traces = []

    @eqx.filter_jit
    def evaluate(target, u):
        traces.append(1)
        return target.log_density(u)

    u = random_position(Target.from_numpyro(hierarchical, Y))
    evaluate(Target.from_numpyro(hierarchical, Y), u)
    evaluate(Target.from_numpyro(hierarchical, Y + 1), u)
    evaluate(Target.from_numpyro(hierarchical, Y, coords={"row": list("abc")}), u)
    evaluate(Target.from_numpyro(hierarchical, (Y + 1).astype(np.float32)), u)
    evaluate(Target.from_numpyro(hierarchical, jnp.asarray(Y)), u)
    assert len(traces) == 1
    evaluate(Target.from_numpyro(hierarchical, Y, 2.0), u)
    evaluate(Target.from_numpyro(hierarchical, Y, 3.0), u)
    assert len(traces) == 2


def test_a_target_can_be_evaluated_inside_another_model():
    inner = Target.from_numpyro(hierarchical, Y)
    u = random_position(inner)

    def outer():
        numpyro.factor("inner", inner.log_density(u))

    trace = numpyro.handlers.trace(outer).get_trace()
    assert list(trace) == ["inner"]
