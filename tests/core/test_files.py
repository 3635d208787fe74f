import json
import os
import subprocess
import sys
from textwrap import dedent

import jax.numpy as jnp
import numpy as np
import pytest
from posterax import CheckpointError, _files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.posterax"
    _files.write(path, {"kind": "test"}, {"x": np.arange(3.0), "y": np.array([True, False])})
    return path


@pytest.mark.parametrize(
    "leaf",
    [
        np.array([np.nan, -0.0, np.inf, -np.inf, 5e-324]),
        np.zeros((0, 3), np.float32),
        np.array(7, np.int8),
        np.array([[1 + 2j]], np.complex64),
        np.arange(6, dtype=np.uint64).reshape(2, 3).T,
        np.asarray(jnp.arange(4, dtype=jnp.bfloat16)),
    ],
    ids=["special floats", "empty", "scalar", "complex", "transposed", "bfloat16"],
)
def test_every_leaf_comes_back_bit_for_bit(tmp_path, leaf):
    _files.write(tmp_path / "a", {}, {"leaf": leaf})
    back = _files.read(tmp_path / "a")[1]["leaf"]
    assert back.dtype == leaf.dtype
    assert back.shape == leaf.shape
    assert back.tobytes() == np.ascontiguousarray(leaf).tobytes()


def test_equal_content_makes_equal_bytes(tmp_path):
    for name in "ab":
        _files.write(tmp_path / name, {"kind": "test", "z": 1, "a": 2}, {"x": np.arange(3)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_cut_at_any_length_is_refused(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"truncated|altered"):
            _files.read(file)


def test_any_flipped_bit_is_refused(file):
    whole = file.read_bytes()
    for position in range(len(whole)):
        for bit in (1, 16):
            changed = bytearray(whole)
            changed[position] ^= bit
            file.write_bytes(bytes(changed))
            with pytest.raises(CheckpointError, match=r"altered|not a posterax file|newer|truncated|reads up to"):
                _files.read(file)


def test_bytes_after_the_end_are_refused(file):
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="1 bytes follow"):
        _files.read(file)


def test_foreign_newer_absent_and_other_files_are_told_apart(file, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds 'test'; expected 'state'"):
        _files.read(file, kind="state")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"posterax 1", b"posterax 2", 1))
    with pytest.raises(CheckpointError, match=r"format version 2.*Upgrade posterax"):
        _files.read(file)
    file.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(CheckpointError, match="not a posterax file"):
        _files.read(file)
    with pytest.raises(CheckpointError, match="No such file"):
        _files.read(tmp_path / "absent")


def test_the_header_is_plain_json(file):
    lines = file.read_bytes().split(b"\n", 2)
    length = int(lines[1].split()[1])
    header = json.loads(lines[2][:length])
    assert header["kind"] == "test"
    assert [leaf["name"] for leaf in header["leaves"]] == ["x", "y"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match=r"the disk is full\. The previous file there is untouched"):
        _files.write(file, {}, {"x": np.zeros(10)})
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_disk_that_is_really_full_leaves_the_old_file(file):
    before = file.read_bytes()
    script = dedent(f"""
        import resource, signal
        import numpy as np
        from posterax import CheckpointError, _files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            _files.write({str(file)!r}, {{}}, {{"x": np.zeros(10_000)}})
        except CheckpointError as error:
            print(error)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Could not write" in result.stdout
    assert "The previous file there is untouched" in result.stdout
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
