import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from posterax import CheckpointError, Draws, Estimator, _files, isolated, load, save
from posterax._labels import Labels
from posterax.plugin import ComponentSpec


def round_trip(tmp_path, thing, **options):
    save(tmp_path / "thing", thing)
    return load(tmp_path / "thing", **options)


def draws():
    rng = np.random.default_rng(0)
    return Draws(
        values={"x": rng.normal(size=(2, 3)).astype(np.float32), "n": rng.integers(0, 9, (2, 3, 2))},
        stats={"diverging": np.zeros((2, 3), bool)},
        log_weights=rng.normal(size=(2, 3)),
        history=({"step": "sample", "key": {"impl": "threefry2x32", "data": [0, 7]}},),
        labels=Labels({"n": ["side"]}, {"side": ["left", "right"]}),
    )


def test_draws_come_back_bit_for_bit_with_labels_and_history(tmp_path):
    before = draws()
    after = round_trip(tmp_path, before)
    assert eqx.tree_equal(before, after)
    assert after.history == before.history
    assert after.labels.dims == {"n": ["side"]}
    assert after.labels.coords["side"].tolist() == ["left", "right"]
    assert (jr.key_data(after.next_key) == jr.key_data(before.next_key)).all()


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(jnp.array([0.0, 1.0]), 2.0),
        dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([0.0, 5.0]), 1.0)),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()),
        dist.Uniform(0.0, jnp.array(3.0)),
        dist.Normal(0.0, 1.0).expand([3]).to_event(1),
    ],
    ids=lambda d: type(d).__name__,
)
def test_numpyro_distributions_come_back(tmp_path, distribution):
    back = round_trip(tmp_path, distribution)
    assert type(back) is type(distribution)
    x = distribution.sample(jr.key(0), (4,))
    assert jnp.array_equal(back.sample(jr.key(0), (4,)), x)
    assert jnp.array_equal(back.log_prob(x), distribution.log_prob(x))


class Net(Estimator):
    layers: eqx.nn.MLP
    scale: float = 0.1
    note: str = "plain"

    def fit(self, data, *, key):
        return self

    def infer(self, observed=None, *, prior=None, key=None):
        return dist.Normal(self.layers(observed), self.scale)


def net():
    return Net(eqx.nn.MLP(2, 1, 8, 2, key=jr.key(0)), scale=float(np.nextafter(0.1, 1)))


SPEC = ComponentSpec("net", kind="estimator", target=f"{__name__}:Net", summary="A network.")


def test_a_registered_estimator_comes_back_without_help(tmp_path):
    before = net()
    sys.modules.setdefault(__name__, sys.modules[Net.__module__])
    with isolated(SPEC):
        after = round_trip(tmp_path, before)
    assert isinstance(after, Net)
    assert eqx.tree_equal(before, after)
    assert after.scale == before.scale
    x = jnp.array([0.3, -1.0])
    assert jnp.array_equal(after.infer(x).loc, before.infer(x).loc)


def test_a_file_from_before_a_field_was_added_has_its_default(tmp_path):
    save(tmp_path / "new", net())
    header, arrays = _files.read(tmp_path / "new")
    del header["structure"]["fields"]["scale"]
    _files.write(tmp_path / "old", {k: v for k, v in header.items() if k not in ("leaves", "format")}, arrays)
    assert eqx.tree_equal(load(tmp_path / "old", like=net()), Net(net().layers))


def test_an_unregistered_class_needs_an_equal_object(tmp_path):
    before = net()
    save(tmp_path / "thing", before)
    with pytest.raises(CheckpointError, match="which no installed plugin registers"):
        load(tmp_path / "thing")
    assert eqx.tree_equal(load(tmp_path / "thing", like=net()), before)
    with pytest.raises(CheckpointError, match="holds a Net; `like` is a Draws"):
        load(tmp_path / "thing", like=draws())


def test_an_optimiser_comes_back_from_an_equal_object(tmp_path):
    given = {"optimiser": optax.adam(0.1), "rate": 0.1}
    back = round_trip(tmp_path, given, like=given)
    state = back["optimiser"].init({"w": jnp.ones(2)})
    updates, _ = back["optimiser"].update({"w": jnp.ones(2)}, state)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-5)


def test_plain_data_keep_their_types(tmp_path):
    thing = {
        "a": [1, 2.5, None, True, "text", (3,)],
        "nan": float("nan"),
        "tiny": 5e-324,
        "big": 2**80,
        "key": jr.key(3),
        "jax": jnp.arange(3, dtype=jnp.bfloat16),
        "numpy": np.float64(0.1),
    }
    back = round_trip(tmp_path, thing)
    assert back["a"] == thing["a"]
    assert np.isnan(back["nan"])
    assert (back["tiny"], back["big"]) == (5e-324, 2**80)
    assert (jr.key_data(back["key"]) == jr.key_data(thing["key"])).all()
    assert isinstance(back["jax"], jax.Array)
    assert back["jax"].dtype == jnp.bfloat16
    assert back["numpy"] == np.float64(0.1)


HOSTILE = [
    {"class": "os.system", "fields": {}},
    {"class": "subprocess.Popen", "fields": {"args": "touch hacked"}},
    {"class": "posterax._files.write", "fields": {}},
    {"class": "equinox.nn.__builtins__", "fields": {}},
    {"class": "equinox.nn._linear.Linear.__init__.__globals__", "fields": {}},
    {"numpyro": "distributions.os", "parts": None},
    {"numpyro": "constraints.np", "parts": None},
    {"numpyro": "os.system", "parts": None},
    {"opaque": {"name": "os.system"}},
    {"opaque": {"name": "builtins.eval"}},
    {"jax": "jax.numpy.load"},
    {"jax": "os.system"},
    {"pickle": "gASV..."},
]


@pytest.mark.parametrize("structure", HOSTILE, ids=lambda s: json.dumps(s)[:40])
def test_hostile_files_run_nothing_and_find_nothing(tmp_path, structure):
    _files.write(tmp_path / "bad", {"kind": "object", "type": "dict", "structure": structure}, {})
    with pytest.raises(CheckpointError):
        load(tmp_path / "bad")


def test_what_comes_back_passes_the_checks_of_its_constructor(tmp_path):
    save(tmp_path / "thing", draws())
    header, arrays = _files.read(tmp_path / "thing")
    arrays[".log_weights"] = np.zeros(3)
    _files.write(tmp_path / "bad", {k: v for k, v in header.items() if k not in ("leaves", "format")}, arrays)
    with pytest.raises(CheckpointError, match=r"`log_weights` must have shape \(2, 3\)"):
        load(tmp_path / "bad")


def test_another_process_reads_the_same(tmp_path):
    save(tmp_path / "thing", draws())
    code = f"import posterax; d = posterax.load({str(tmp_path / 'thing')!r}); posterax.save({str(tmp_path / 'b')!r}, d)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "thing").read_bytes()
