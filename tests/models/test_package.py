import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import posterax_models as pm
import pytest

PROBLEMS = {
    "conjugate normal": lambda: pm.ConjugateNormal([1.0, 2.5, 0.3]),
    "eight schools": pm.eight_schools,
    "nile": pm.nile,
    "funnel": pm.NealsFunnel,
    "bimodal": pm.BimodalMixture,
    "state-space posterior": lambda: pm.StateSpacePosterior(_chain(), [[0.2], [np.nan], [1.0]]),
}


def _chain(emission_var=0.5):
    return pm.LinearGaussianStateSpace([0.5], [[2.0]], [[0.9]], [[0.3]], [[1.0]], [[emission_var]])


@pytest.fixture(params=list(PROBLEMS))
def problem(request):
    return PROBLEMS[request.param]()


def test_importing_the_package_imports_no_jax():
    code = "import sys, posterax_models; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_imported_and_is_documented():
    for name in pm.__all__:
        assert getattr(pm, name) is not None
        if name != "EIGHT_SCHOOLS_REFERENCE":
            assert getattr(pm, name).__doc__
    with pytest.raises(AttributeError, match="no_such_problem"):
        pm.no_such_problem


def test_every_problem_keeps_the_shape_of_a_problem(problem):
    assert isinstance(problem, pm.Problem)
    assert problem.source
    structure = problem.target.structure
    shapes = {**structure.latent, **structure.derived}
    assert set(problem.mean) == set(problem.sd) == set(shapes)
    for name, shape in shapes.items():
        assert np.shape(problem.mean[name]) == np.shape(problem.sd[name]) == shape
        assert np.all(np.asarray(problem.sd[name]) > 0)
    assert np.isfinite(problem.log_evidence)


def test_every_target_is_in_order(problem):
    target = problem.target
    assert target.check(key=jr.key(0)) == []
    u = target.sample_prior(key=jr.key(1))
    whole, prior, pointwise = eqx.filter_jit(
        lambda target, u: (target.log_density(u), target.log_prior(u), target.log_likelihood(u))
    )(target, u)
    terms = sum((term.sum() for term in pointwise.values()), start=jnp.zeros(()))
    np.testing.assert_allclose(prior + terms, whole, rtol=1e-4, atol=1e-4)


def test_new_data_do_not_compile_again():
    traces = []

    @eqx.filter_jit
    def density(target, u):
        traces.append(1)
        return target.log_density(u)

    def problems(shift):
        yield pm.ConjugateNormal([1.0 + shift, 2.5], prior_sd=1.0 + shift)
        yield pm.BimodalMixture([shift, 2.5], noise_sd=1.0 + shift)
        yield pm.NealsFunnel(v_sd=1.0 + shift)
        yield pm.StateSpacePosterior(_chain(shift), [[0.2], [shift]])

    values = [[], []]
    for i, shift in enumerate([1.0, 2.0]):
        for problem in problems(shift):
            values[i].append(float(density(problem.target, problem.target.sample_prior(key=jr.key(0)))))
    assert len(traces) == 4
    assert not set(values[0]) & set(values[1])


def test_what_is_made_in_float32_can_be_used_in_a_float64_run(problem):
    with jax.enable_x64(True):
        u = problem.target.sample_prior(key=jr.key(0))
        value = eqx.filter_jit(lambda target, u: target.log_density(u))(problem.target, u)
        assert {value.dtype, *(leaf.dtype for leaf in jax.tree.leaves(u))} == {np.dtype("float64")}
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(mean)) for mean in problem.mean.values())


def test_chains_made_in_float32_can_be_used_in_a_float64_run():
    chain = _chain()
    symbols = pm.HiddenMarkovChain([0.5, 0.5], np.eye(2), pm.CategoricalEmission([[0.5, 0.5], [0.25, 0.75]]))
    with jax.enable_x64(True):
        _, y = chain.simulate(num_steps=3, key=jr.key(0))
        values = [chain.smooth(y).mean, chain.forecast(y, steps=2).mean, chain.sample_path(y, key=jr.key(1))]
        path, seen = symbols.simulate(num_steps=3, key=jr.key(2))
        values += [
            symbols.smooth(seen).probs,
            symbols.most_likely_path(seen)[1],
            symbols.log_joint(path, seen),
        ]
        assert symbols.sample_path(seen, key=jr.key(3)).shape == (3,)
        assert {value.dtype for value in values} == {np.dtype("float64")}
