"""Files made to do harm: loading runs no code of theirs, finds no name that is not registered, and fails in words."""

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from posterax import Checkpoint, CheckpointError, Draws, Target, _files, components, get, load, sample, save
from posterax._structure import _find_class, _jax_functions, _numpyro_class, _own_classes
from posterax_numpyro import HMC

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


class Watch:
    """Everything that a load may not do, as Python's audit hooks see it."""

    forbidden = (
        *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename"),
        *("socket.", "ctypes.", "pickle.", "marshal.", "code.__new__", "shutil."),
    )
    on, seen, inside = False, [], ()

    @classmethod
    def hook(cls, event, arguments):
        if not cls.on:
            return
        if event.startswith(cls.forbidden):
            cls.seen.append(event)
        if event == "import" and arguments[0].split(".")[0] not in cls.inside:
            cls.seen.append(f"import {arguments[0]}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            cls.seen.append(f"open {arguments[0]!r} to write")


sys.addaudithook(Watch.hook)
_own_classes(), get("numpyro:nuts"), get("numpyro:svi")  # so that nothing is imported for the first time later
# What loading may import: our own packages and what they stand on, for classes that plugins have registered.
Watch.inside = tuple({name.split(".")[0] for name in sys.modules} - {"subprocess", "pickle", "ctypes", "antigravity"})


@contextlib.contextmanager
def watched():
    Watch.on, Watch.seen = True, []
    try:
        yield
    finally:
        Watch.on = False
    assert not Watch.seen


def loaded_or_refused(path):
    with watched():
        try:
            return load(path)
        except CheckpointError:
            return None


# Names of the file format, of what is dangerous, of what is registered; and any text
TAGS = [
    *("int", "float", "key", "array", "dict", "pairs", "list", "tuple", "numpyro", "parts", "class", "fields", "jax"),
    *("opaque", "structure", "labels", "name", "on", "code"),
]
NAMES = [
    *("os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "numpy.load", "jax.numpy.load", "antigravity"),
    *("posterax.pipeline.Pipeline", "posterax.draws.Draws", "posterax.stages.Move", "numpyro:nuts", "numpyro:svi"),
    *(
        "equinox.nn.MLP",
        "equinox.nn.__builtins__",
        "distributions.Normal",
        "distributions.os",
        "transforms.ExpTransform",
    ),
    *("jax.nn.relu", "x.__class__.__mro__", ".", "jax", "threefry2x32"),
]
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.sampled_from(NAMES) | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=4), inner, max_size=3)
        | st.builds(lambda name, fields: {"class": name, "fields": fields}, st.sampled_from(NAMES), inner)
        | st.builds(lambda name, parts: {"numpyro": name, "parts": parts}, st.sampled_from(NAMES), inner)
    ),
    max_leaves=12,
)


@QUICK
@given(structure=trees, kind=st.sampled_from(["Draws", "dict", "x"]))
def test_any_structure_is_read_or_refused(tmp_path_factory, structure, kind):
    path = tmp_path_factory.mktemp("fuzz") / "file"
    _files.write(path, {"kind": "object", "type": kind, "structure": structure}, {".": np.zeros(2)})
    loaded_or_refused(path)


def forged(header, body=b""):
    """A file with this header whose digests are right: what a forger writes, not what an accident leaves."""
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return b"posterax 1\n" + f"{hashlib.sha256(text).hexdigest()} {len(text)}\n".encode() + text + body


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Files of Draws, of a distribution and of a pipeline's stage, as they are."""
    folder = tmp_path_factory.mktemp("real")
    draws = Draws(values={"x": np.arange(6.0).reshape(2, 3)}, stats={}, log_weights=np.zeros((2, 3)))
    save(folder / "draws", draws)
    save(folder / "law", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2), 1.0)))
    save(folder / "sampler", HMC(num_warmup=3))
    return [Path(folder / name) for name in ("draws", "law", "sampler")]


def places(tree, here=()):
    """The paths to all nodes of JSON data."""
    yield here
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        yield from places(child, (*here, name))


def replaced(tree, place, value):
    if not place:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[place[0]] = replaced(tree[place[0]], place[1:], value)
    return copy


@QUICK
@given(data=st.data(), value=trees, which=st.integers(0, 2))
def test_any_entry_of_a_header_may_be_forged(tmp_path_factory, real, data, value, which):
    content = real[which].read_bytes()
    header, _ = _files.read(real[which])
    body = content[len(content) - sum(leaf["bytes"] for leaf in header["leaves"]) :]
    place = data.draw(st.sampled_from(list(places(header))))
    path = tmp_path_factory.mktemp("fuzz") / "file"
    path.write_bytes(forged(replaced(header, place, value), body))
    loaded_or_refused(path)


@QUICK
@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"posterax 1\n", b"posterax "]))
def test_any_bytes_are_refused(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("fuzz") / "file"
    path.write_bytes(start + content)
    with watched(), pytest.raises(CheckpointError):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000, b"{}", b"[]", b"null", b'{"format": 1}', b'{"format": 1, "kind": "object", "leaves": 3}',
        b'{"format": 1, "kind": "object", "leaves": [{"name": "a", "shape": [-1], "dtype": "O", "bytes": 8}]}',
        b'{"format": 1, "kind": "object", "leaves": [], "structure": {"class": ["os"], "fields": 1}, "type": 1}',
        b'{"format": 1, "kind": "object", "leaves": [], "structure": {}, "type": 1}', b"\xff\xfe", b"NaN",
    ],
    ids=lambda header: header[:30].decode(errors="replace"),
)  # fmt: skip
def test_odd_headers_are_refused_in_words(tmp_path, header):
    (tmp_path / "file").write_bytes(forged(header))
    with watched(), pytest.raises(CheckpointError, match=r"file|holds|altered"):
        load(tmp_path / "file")


def test_forged_checkpoints_are_refused_in_words(tmp_path):
    target = Target(lambda x: -0.5 * jnp.sum(x["x"] ** 2), like={"x": jnp.zeros(2)})
    where = Checkpoint(str(tmp_path / "run"))
    run = lambda: sample(HMC(num_warmup=10), target, num_draws=20, num_chains=1, key=jr.key(0), checkpoint=where)  # noqa: E731
    run()
    path = tmp_path / "run" / "state.posterax"
    content, (header, _) = path.read_bytes(), _files.read(path)
    body = content[len(content) - sum(leaf["bytes"] for leaf in header["leaves"]) :]
    changes = [
        ("stretches", [["../../../etc/passwd", 3]]), ("stretches", [[0, 10**30]]), ("stretches", None), ("step", "x"),
        ("identity", []), ("environment", 3), ("leaves", [{"name": "x"}]), ("kind", ["sample"]),
    ]  # fmt: skip
    for name, value in changes:
        path.write_bytes(forged({**header, name: value}, body))
        with pytest.raises(CheckpointError):
            run()


def test_nothing_but_registered_names_is_found():
    """Each name that resolves is one that the registry, Equinox's layers, JAX's activations or NumPyro publish."""
    names = {component.qualified_name for component in components()}
    dangerous = ["os.system", "builtins.eval", "subprocess.Popen", "posterax._files.write", "equinox.nn.eval"]
    dangerous += ["equinox.nn.jax", "numpyro:os", "posterax.os"]
    assert all(_find_class(name) is None for name in dangerous)
    assert all(_find_class(f"posterax.{name}") is cls for name, cls in _own_classes().items())
    assert not any(name.split(".")[-1] in ("load", "eval", "exec") for name in _jax_functions())
    assert "numpyro:nuts" in names
    for name in (
        "distributions.os",
        "constraints.jax",
        "transforms.np",
        "numpyro:nuts",
        "distributions.Distribution.__init__",
    ):
        with pytest.raises(CheckpointError):
            _numpyro_class(name)
