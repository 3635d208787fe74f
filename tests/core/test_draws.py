import json

import arviz_stats
import jax
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray
from posterax import Draws, Target
from posterax._arviz import mcse, write_netcdf
from posterax._labels import Labels

RNG = np.random.default_rng(0)
SHAPE = (4, 500)
DEFINED = {"settings": {}, "key": {"impl": "threefry2x32", "data": [0, 1]}}


def make(**fields):
    values = {"mu": RNG.normal(size=SHAPE), "theta": RNG.normal(size=(*SHAPE, 3))}
    labels = Labels({"theta": ["school"]}, {"school": ["A", "B", "C"]})
    stats = {"lp": RNG.normal(size=SHAPE), "diverging": np.zeros(SHAPE, bool)}
    return Draws(**{"values": values, "stats": stats, "labels": labels, **fields}).recorded("sample", **DEFINED)


def weighted():
    return make(log_weights=RNG.normal(size=SHAPE), log_density=RNG.normal(size=SHAPE))


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match=r"`values` must be arrays of equal leading axes \(chain, draw\)"):
        Draws({"a": np.zeros((2, 3)), "b": np.zeros((3, 2))}, {})
    with pytest.raises(ValueError, match=r"`log_weights` must have shape \(4, 500\).*got \(4,\)"):
        make(log_weights=np.zeros(4))
    with pytest.raises(KeyError, match=r"No values 'nu'; there are \['mu', 'theta'\]"):
        make()["nu"]


def test_unweighted_summaries_are_numpys_and_arvizs():
    draws = make()
    flat = draws["theta"].reshape(-1, 3)
    assert np.allclose(draws.mean()["theta"], flat.mean(0))
    assert np.allclose(draws.sd()["theta"], flat.std(0), rtol=1e-3)
    table = draws.summary()
    assert list(table.index) == ["mu", "theta[A]", "theta[B]", "theta[C]"]
    assert np.isclose(table.loc["theta[B]", "mean"], flat[:, 1].mean())
    tree = draws.to_datatree()
    reference = arviz_stats.summary(tree, round_to="none", kind="diagnostics", fmt="wide")
    assert np.isclose(table.loc["mu", "ess_bulk"], reference.loc["mu", "ess_bulk"])
    assert np.isclose(table.loc["mu", "r_hat"], reference.loc["mu", "r_hat"])


def test_weighted_means_are_the_textbooks():
    draws = weighted()
    rows = np.exp(draws.log_weights) / np.exp(draws.log_weights).sum(axis=1, keepdims=True)
    w = rows.ravel() / rows.sum()
    mean = w @ draws["mu"].ravel()
    assert np.isclose(draws.mean()["mu"], mean)
    assert np.isclose(draws.sd()["mu"] ** 2, w @ (draws["mu"].ravel() - mean) ** 2)
    assert np.isclose(draws.effective_sample_size(), 1 / np.sum(w**2))
    assert 0 < draws.pareto_k() < 0.7


def test_populations_count_by_their_evidence():
    values = {"x": np.stack([np.zeros(3), np.ones(3)])}
    equal = np.zeros((2, 3))
    draws = Draws(values, {}, log_weights=equal, log_evidence=np.log([1.0, 3.0]))
    assert np.isclose(draws.mean()["x"], 0.75)
    assert np.isclose(Draws(values, {}, log_weights=equal + 7).mean()["x"], 0.5)


def test_standard_errors_of_weighted_draws_are_the_delta_methods():
    draws = Draws({"x": RNG.normal(size=(1, 400))}, {}, log_weights=RNG.normal(size=(1, 400)))
    x, w = draws["x"].ravel(), np.exp(draws.log_weights).ravel()
    w = w / w.sum()
    mean, sd = w @ x, np.sqrt(w @ (x - w @ x) ** 2)
    errors = mcse(draws)
    assert np.isclose(errors["mean"]["x"], np.sqrt(np.sum(w**2 * (x - mean) ** 2)))
    assert np.isclose(errors["sd"]["x"], np.sqrt(np.sum(w**2 * ((x - mean) ** 2 - sd**2) ** 2)) / (2 * sd))
    copies = draws.resample(100, key=jr.key(0))
    assert np.isnan(mcse(copies)["mean"]["x"])


def test_a_resample_is_systematic_recorded_and_dependent():
    draws = weighted()
    resampled = draws.resample(200, key=jr.key(0))
    assert resampled.shape == (1, 200)
    assert resampled.log_weights is None
    assert resampled.dependent
    assert np.isnan(resampled.pareto_k())
    assert np.isin(resampled["mu"], draws["mu"]).all()
    assert "r_hat" not in resampled.summary().columns


def test_the_posterior_group_is_valid_unweighted():
    draws = weighted()
    tree = draws.to_datatree()
    assert {"posterior", "weighted_posterior", "sample_stats"} <= set(tree.children)
    size = round(draws.effective_sample_size())
    assert tree["posterior"].sizes["draw"] == size
    assert tree["posterior"].attrs["posterior_is"] == f"systematic resample of {size} from weighted_posterior"
    assert "log_weights" in tree["weighted_posterior"]
    assert tree["posterior"]["theta"].coords["school"].values.tolist() == ["A", "B", "C"]
    assert np.isclose(tree["posterior"].attrs["pareto_k"], draws.pareto_k())


def test_netcdf_files_read_back_with_their_history(tmp_path):
    draws = weighted()
    tree = draws.to_datatree()
    write_netcdf(tree, tmp_path / "a.nc")
    back = xarray.open_datatree(tmp_path / "a.nc", engine="h5netcdf")
    assert np.array_equal(back["weighted_posterior"]["theta"], tree["weighted_posterior"]["theta"])
    assert json.loads(back["posterior"].attrs["history"])[0]["step"] == "sample"


def test_the_installed_arviz_reads_draws():
    import arviz

    summary = arviz.summary(make().to_arviz())
    assert "mu" in summary.index
    assert "theta[A]" in summary.index


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("row", 3):
        numpyro.sample("y", dist.Normal(mu, 2.0), obs=y)


def test_all_groups_of_arvizs_schema_are_there_on_request():
    y = np.array([1.0, 2.0, 3.0])
    target = Target.from_numpyro(model, y, coords={"row": ["a", "b", "c"]})
    draws = Draws({"mu": RNG.normal(size=(2, 50))}, {}, labels=target.labels).recorded("sample", **DEFINED)
    tree = draws.to_datatree(target, log_likelihood=True, prior=7, posterior_predictive=True)
    expected = {"posterior", "observed_data", "log_likelihood", "posterior_predictive", "prior", "prior_predictive"}
    assert set(tree.children) == expected
    assert tree["prior"].sizes["draw"] == 7
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "row")
    log_likelihood = tree["log_likelihood"]["y"]
    assert log_likelihood.dtype == np.float64
    assert np.allclose(log_likelihood[1, 3], dist.Normal(draws["mu"][1, 3], 2.0).log_prob(y), rtol=1e-5)
    again = draws.to_datatree(target, posterior_predictive=True)
    assert np.array_equal(again["posterior_predictive"]["y"], tree["posterior_predictive"]["y"])


def test_what_cannot_be_added_is_refused_in_words():
    with pytest.raises(ValueError, match="`target` is needed"):
        make().to_datatree(prior=10)
    plain = Target(lambda x: -(x["mu"] ** 2), like={"mu": 0.0})
    draws = Draws({"mu": np.zeros((1, 4))}, {}).recorded("sample", **DEFINED)
    with pytest.raises(ValueError, match="no pointwise terms"):
        draws.to_datatree(plain, log_likelihood=True)
    with pytest.raises(ValueError, match="`key` is needed"):
        Draws({"mu": np.zeros((1, 4))}, {}, log_weights=np.zeros((1, 4))).to_datatree()


def test_the_next_key_is_a_function_of_the_last():
    draws = make()
    assert (jr.key_data(draws.next_key) == jr.key_data(make().next_key)).all()
    assert jax.dtypes.issubdtype(draws.next_key.dtype, jax.dtypes.prng_key)
    with pytest.raises(ValueError, match="do not record a key"):
        Draws({"x": np.zeros((1, 2))}, {}).next_key
