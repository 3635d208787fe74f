r"""The one file format: a JSON header and raw array leaves; never pickle, never code.

Layout, in order:

    posterax 1\n                                  magic and format version
    <SHA-256 of the header, hex> <its length>\n   every byte of a file is covered by some digest
    <header: JSON, UTF-8>
    <leaves, back to back>                        shape, dtype, length and SHA-256 of each in the header

A file appears under its name complete or not at all: it is written beside its place, flushed to the disk and renamed.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  (lets NumPy know bfloat16 and the float8 types by name)
import numpy as np

from ._errors import CheckpointError

FORMAT_VERSION = 1
_MAGIC = b"posterax "


def write(path: str | os.PathLike, header: Mapping, leaves: Mapping[str, np.ndarray]) -> None:
    """Write `header` and `leaves` to `path`, atomically.

    Raises `CheckpointError` where the disk refuses (full, read-only...); whatever was at `path` before is still there.
    """
    path = Path(path)
    arrays = {name: np.ascontiguousarray(leaf).reshape(np.shape(leaf)) for name, leaf in sorted(leaves.items())}
    payloads = {name: array.tobytes() for name, array in arrays.items()}
    table = [
        {
            "name": name,
            "shape": list(array.shape),
            "dtype": array.dtype.name,
            "bytes": len(payloads[name]),
            "sha256": hashlib.sha256(payloads[name]).hexdigest(),
        }
        for name, array in arrays.items()
    ]
    text = json.dumps({**header, "format": FORMAT_VERSION, "leaves": table}, sort_keys=True, allow_nan=False).encode()
    line = f"{hashlib.sha256(text).hexdigest()} {len(text)}\n".encode()
    parts = [_MAGIC + f"{FORMAT_VERSION}\n".encode(), line, text, *payloads.values()]
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        why = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else (error.strerror or error)
        raise CheckpointError(
            f"Could not write {path} ({sum(map(len, parts)):,} bytes): {why}. "
            + ("The previous file there is untouched. " if path.exists() else "")
            + "Free some space, or choose another folder, and run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike, *, kind: str | None = None) -> tuple[dict, dict[str, np.ndarray]]:
    """Read the header and leaves of `path`, every byte checked.

    - `kind`: the `"kind"` that the header must name, if given.

    Raises `CheckpointError` for a file that is absent, foreign, truncated, altered, newer than this posterax can read,
    or of another kind.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Could not read {path}: {error.strerror or error}.") from error
    with well_formed(path):
        header, body = _header(path, content)
        if kind is not None and header.get("kind") != kind:
            raise CheckpointError(f"{path} holds {header.get('kind')!r}; expected {kind!r}. Point to another file.")
        return header, _leaves(path, header, body)


@contextlib.contextmanager
def well_formed(path: str | os.PathLike) -> Iterator[None]:
    """Whatever trips over what a file says becomes a `CheckpointError`: nobody but a forger writes such a file."""
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError) as e:
        raise CheckpointError(
            f"{path} is not as posterax writes it: its header does not fit ({type(e).__name__}: {e}). {_CURE}"
        ) from e


def _leaves(path: Path, header: dict, body: bytes) -> dict[str, np.ndarray]:
    leaves, start = {}, 0
    for leaf in header["leaves"]:
        payload = body[start : start + leaf["bytes"]]
        start += leaf["bytes"]
        if len(payload) != leaf["bytes"]:
            raise _truncated(path)
        if hashlib.sha256(payload).hexdigest() != leaf["sha256"]:
            raise CheckpointError(f"{path} was altered: the leaf {leaf['name']!r} does not match its SHA-256. {_CURE}")
        leaves[leaf["name"]] = np.frombuffer(payload, dtype=np.dtype(leaf["dtype"])).reshape(leaf["shape"]).copy()
    if start != len(body):
        raise CheckpointError(f"{path} was altered: {len(body) - start} bytes follow the last leaf. {_CURE}")
    return leaves


_CURE = "Restore it from a copy, or delete it and run again."


def _header(path: Path, content: bytes) -> tuple[dict, bytes]:
    first, _, rest = content.partition(b"\n")
    if not first.startswith(_MAGIC):
        if _MAGIC.startswith(first[: len(_MAGIC)]):
            raise _truncated(path)
        raise CheckpointError(
            f"{path} is not a posterax file (it begins with {content[:12]!r}). Point to another file."
        )
    version = first[len(_MAGIC) :]
    if not version.isdigit():
        raise _truncated(path) if not version else CheckpointError(f"{path} was altered: format {version!r}. {_CURE}")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {int(version)}; this posterax reads up to {FORMAT_VERSION}. Upgrade posterax."
        )
    line, newline, rest = rest.partition(b"\n")
    words = line.split(b" ")
    if not newline:
        raise _truncated(path)
    if len(words) != 2 or not words[1].isdigit():
        raise CheckpointError(f"{path} was altered: its header's digest line is unreadable. {_CURE}")
    text = rest[: int(words[1])]
    if len(text) < int(words[1]):
        raise _truncated(path)
    if hashlib.sha256(text).hexdigest().encode() != words[0]:
        raise CheckpointError(f"{path} was altered: its header does not match its SHA-256. {_CURE}")
    header = json.loads(text)
    if header.get("format") != int(version):
        raise CheckpointError(f"{path} was altered: its first line and its header name different formats. {_CURE}")
    return header, rest[int(words[1]) :]


def _truncated(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is truncated: it ends before its last leaf. {_CURE}")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
