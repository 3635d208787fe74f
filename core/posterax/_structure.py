"""PyTrees as plain data and back: the structure of what `save` writes, and the identity of a run.

Nothing in a file can name code to run. A class is found again only if it is a registered component, one of core's own
results, or a public name of NumPyro's distributions, Equinox's layers or JAX's activation functions; functions and
other objects are named in the file to be compared, and are taken from the `like=` that the caller passes.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions
from numpyro.distributions import constraints, transforms

from ._density import Structure
from ._errors import CheckpointError
from ._keys import describe_key, restore_key
from ._labels import Labels

_NUMPYRO = {"distributions": distributions, "constraints": constraints, "transforms": transforms}


# Core's modules whose classes a file may hold.
_OWN = ("_draws", "_joint", "_numpyro_density", "_pipeline", "_plain_density", "_plan", "_resampling", "_stages")
_OWN += ("_target", "_train")


@functools.cache
def _own_classes() -> dict[str, type]:
    modules = [importlib.import_module(f"posterax.{name}") for name in _OWN]
    return {
        f"{module.__name__.removeprefix('posterax.').removeprefix('_')}.{name}": cls
        for module in modules
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
    }


def encode(tree: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """`tree` as JSON data, and its arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    return _encode(tree, "", arrays), arrays


def _encode(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if node is None or isinstance(node, (bool, str)):
        return node
    if isinstance(node, int):
        return {"int": str(node)}
    if isinstance(node, float):
        return {"float": node.hex()}
    if isinstance(node, jax.Array) and jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        return {"key": describe_key(node)}
    if isinstance(node, (jax.Array, np.ndarray, np.generic)):
        arrays[path or "."] = np.asarray(node)
        return {"array": path or ".", "on": "jax" if isinstance(node, jax.Array) else "numpy"}
    if isinstance(node, dict):
        if not all(isinstance(key, str) for key in node):
            return {"pairs": [_encode(list(pair), f"{path}.{i}", arrays) for i, pair in enumerate(node.items())]}
        return {"dict": {key: _encode(value, f"{path}.{key}", arrays) for key, value in node.items()}}
    if isinstance(node, tuple) and hasattr(node, "_fields") and _opaque_name(node)["name"].startswith("optax."):
        return {"tuple": [_encode(item, f"{path}.{i}", arrays) for i, item in enumerate(node)]}
    if isinstance(node, (list, tuple)) and type(node) in {list, tuple}:
        return {type(node).__name__: [_encode(item, f"{path}.{i}", arrays) for i, item in enumerate(node)]}
    if name := _numpyro_name(node):
        children, aux = node.tree_flatten()  # pyright: ignore[reportAttributeAccessIssue]
        return {"numpyro": name, "parts": _encode([children, aux], path, arrays)}
    if isinstance(node, eqx.Module) or (dataclasses.is_dataclass(node) and not inspect.isclass(node)):
        fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if hasattr(node, f.name)}
        encoded = {name: _encode(value, f"{path}.{name}", arrays) for name, value in fields.items()}
        return {"class": _class_name(type(node)), "fields": encoded}
    if isinstance(node, Structure):
        return {"structure": [dict(part) for part in node]}
    if isinstance(node, Labels):
        coords = {name: np.asarray(points).tolist() for name, points in node.coords.items()}
        return {"labels": {"dims": node.dims, "coords": coords}}
    if name := _jax_function_name(node):
        return {"jax": name}
    return {"opaque": _opaque_name(node)}


def decode(data: Any, arrays: dict[str, np.ndarray], *, like: Any = None, path: str = "") -> Any:
    """What `encode` was given. `like`: an equal object, from which functions and unregistered classes are taken.

    Raises `CheckpointError` where a name is neither known to this process nor to be found in `like`.
    """
    if not isinstance(data, dict):
        return data
    ((tag, content), *_) = data.items()
    if tag == "int":
        return int(content)
    if tag == "float":
        return float.fromhex(content)
    if tag == "key":
        return restore_key(content)
    if tag == "array":
        array = arrays[content]
        return jnp.asarray(array) if data["on"] == "jax" and _survives(array) else array
    if tag == "dict":
        return {
            key: decode(value, arrays, like=_child(like, key), path=f"{path}.{key}") for key, value in content.items()
        }
    if tag == "pairs":
        return dict(decode(pair, arrays, path=f"{path}.{i}") for i, pair in enumerate(content))
    if tag in {"list", "tuple"}:
        items = [decode(v, arrays, like=_child(like, i), path=f"{path}.{i}") for i, v in enumerate(content)]
        if tag == "tuple" and isinstance(like, tuple) and len(getattr(like, "_fields", ())) == len(items):
            return type(like)(*items)  # an optimiser of optax is a named tuple
        return items if tag == "list" else tuple(items)
    if tag == "numpyro":
        cls = _numpyro_class(content)
        children, aux = decode(data["parts"], arrays, path=path)
        return cls.tree_unflatten(aux, children)
    if tag == "class":
        return _decode_class(content, data["fields"], arrays, like, path)
    if tag == "structure":
        shapes = [{name: tuple(shape) for name, shape in part.items()} for part in content[:3]]
        return Structure(shapes[0], shapes[1], shapes[2], content[3])
    if tag == "labels":
        return Labels(content["dims"], content["coords"])
    if tag == "jax":
        if content not in _jax_functions():
            raise CheckpointError(
                f"The file names {content!r} at {path or 'its root'}, which is no activation of JAX's."
            )
        return _jax_functions()[content]
    if tag == "opaque":
        if like is None or _opaque_name(like)["name"] != content["name"]:
            came = "nothing" if like is None else _opaque_name(like)["name"]
            raise CheckpointError(
                f"The file names code at {path or 'its root'}: {content['name']!r}. Code is never loaded from files: "
                f"pass an equal object as `like=`, for instance the one you saved (`like` has {came!r} there)."
            )
        return like
    raise CheckpointError(f"The file has an unknown entry {tag!r} at {path or 'its root'}. Was it written by posterax?")


def _decode_class(name: str, fields: dict, arrays, like, path: str) -> Any:
    cls = _find_class(name)
    if cls is None and like is not None and _class_name(type(like)) == name:
        cls = type(like)
    if cls is None:
        raise CheckpointError(
            f"The file holds a {name!r} at {path or 'its root'}, which no installed plugin registers. Install the "
            "plugin it comes from, or pass an equal object as `like=`."
        )
    expected = {f.name for f in dataclasses.fields(cls)}
    if extra := sorted(set(fields) - expected):
        raise CheckpointError(f"{name} at {path or 'its root'} has the fields {extra}, unknown to this version of it.")
    if not (like is None or isinstance(like, cls)):
        raise CheckpointError(f"The file holds a {name!r} at {path or 'its root'}; `like` has {type(like).__name__}.")
    self = object.__new__(cls)
    for field in dataclasses.fields(cls):  # one that came after the file was written has its default
        if field.name not in fields and field.default is not dataclasses.MISSING:
            object.__setattr__(self, field.name, field.default)
    for field, value in fields.items():
        decoded = decode(value, arrays, like=getattr(like, field, None), path=f"{path}.{field}")
        object.__setattr__(self, field, decoded)
    return self


def _class_name(cls: type) -> str:
    from ._registry import qualified_name

    own = {id(known): name for name, known in _own_classes().items()}
    if id(cls) in own:
        return f"posterax.{own[id(cls)]}"
    if cls.__module__.startswith("equinox.nn") and getattr(eqx.nn, cls.__name__, None) is cls:
        return f"equinox.nn.{cls.__name__}"
    return qualified_name(cls) or f"{cls.__module__}.{cls.__qualname__}"


def _find_class(name: str) -> type | None:
    from ._registry import components, get

    if name.startswith("posterax."):
        return _own_classes().get(name.removeprefix("posterax."))
    if name.startswith("equinox.nn."):
        found = getattr(eqx.nn, name.removeprefix("equinox.nn."), None)
        return found if inspect.isclass(found) and issubclass(found, eqx.Module) else None
    if any(component.qualified_name == name for component in components()):
        found = get(name)
        return found if inspect.isclass(found) else None
    return None


def _numpyro_name(node: Any) -> str | None:
    from ._registry import qualified_name

    cls = type(node)
    if isinstance(node, distributions.Distribution) and (registered := qualified_name(cls)):
        return registered  # a plugin's own distribution
    for space, module in _NUMPYRO.items():
        if cls.__module__.startswith("numpyro.distributions") and getattr(module, cls.__name__, None) is cls:
            return f"{space}.{cls.__name__}"
        # Most constraints are published as instances, or under the name of the class that makes them.
        if cls.__module__.startswith("numpyro.distributions") and cls in _constraint_classes().values():
            return f"constraints.{cls.__name__}"
    return None


@functools.cache
def _constraint_classes() -> dict[str, type]:
    return {
        name: cls
        for name, cls in vars(constraints).items()
        if inspect.isclass(cls) and issubclass(cls, constraints.Constraint)
    }


def _numpyro_class(name: str) -> Any:
    space, _, attribute = name.partition(".")
    cls = _find_class(name) if ":" in name else getattr(_NUMPYRO.get(space), attribute, None)
    bases = (distributions.Distribution, constraints.Constraint, transforms.Transform)
    if not (inspect.isclass(cls) and issubclass(cls, bases)):
        raise CheckpointError(
            f"The file names {name!r}, which is no distribution of the installed NumPyro or of an installed plugin."
        )
    return cls


@functools.cache
def _jax_functions() -> dict[str, Callable]:
    activations = (name for name in vars(jax.nn) if not name.startswith("_"))
    functions = {f"jax.nn.{name}": getattr(jax.nn, name) for name in activations}
    functions |= {f"jax.numpy.{name}": getattr(jnp, name) for name in ("abs", "cos", "exp", "sin", "square", "tanh")}
    functions["equinox.nn.MLP.final_activation"] = inspect.signature(eqx.nn.MLP).parameters["final_activation"].default
    return {name: f for name, f in functions.items() if callable(f) and not inspect.isclass(f)}


def _jax_function_name(node: Any) -> str | None:
    if not callable(node):
        return None
    return next((name for name, function in _jax_functions().items() if function is node), None)


def _opaque_name(node: Any) -> dict:
    target = node if hasattr(node, "__qualname__") else type(node)
    name = f"{target.__module__}.{target.__qualname__}"
    return {"name": name, "code": _function_digest(node, depth=4)} if hasattr(node, "__code__") else {"name": name}


def _function_digest(function, depth: int) -> str:
    """What a function does: its code, its defaults, and the plain values and functions that it closes over."""
    digest = hashlib.sha256(_code_digest(function.__code__).encode())
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    for value in [*cells, *(function.__defaults__ or ())]:
        digest.update(_closed_over(value, depth).encode())
    return digest.hexdigest()


def _closed_over(value: Any, depth: int) -> str:
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return ",".join(_closed_over(item, depth) for item in value)
    if hasattr(value, "__code__") and depth:
        return _function_digest(value, depth - 1)
    return type(value).__name__


def _filled(cell) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _code_digest(code) -> str:
    """What code does, whatever its file, line or name."""
    digest = hashlib.sha256(code.co_code)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            constant = _code_digest(constant)
        elif isinstance(constant, frozenset):  # its order changes from process to process
            constant = sorted(map(repr, constant))
        digest.update(repr(constant).encode())
    digest.update(repr((code.co_names, code.co_varnames)).encode())
    return digest.hexdigest()


def _child(like: Any, key: str | int) -> Any:
    try:
        return None if like is None else like[key]
    except (KeyError, IndexError, TypeError):
        return None


def _survives(array: np.ndarray) -> bool:
    """Whether JAX keeps this dtype as it is: float64 without x64 would lose its digits."""
    return jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype


def fingerprint(tree: Any) -> dict:
    """What makes `tree` the same in two runs: its structure, and one digest over all its arrays."""
    structure, arrays = encode(tree)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(repr((name, array.shape, array.dtype.name)).encode())
        digest.update(array.tobytes())
    return {"structure": json.loads(json.dumps(structure)), "arrays": digest.hexdigest()}
