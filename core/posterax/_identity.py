"""What makes two runs the same run, and what a result remembers of how it was made."""

import json
from typing import Any

from ._checkpoint import environment
from ._keys import describe_key
from ._plan import Plan
from ._structure import encode, fingerprint


def identity_of(component: Any, target: Any, key, num_chains: int, init: Any = None) -> dict:
    """The parts that must agree before a checkpoint is continued, in the order in which they are compared."""
    return {
        "component": component_name(component),
        "settings": fingerprint(component),
        "target": fingerprint(target),
        "initial_values": fingerprint(None if init is None else dict(init)),
        "key": describe_key(key),
        "number_of_chains": num_chains,
    }


def record_of(component: Any, key, plan: Plan) -> dict:
    """The part of a result's history that every run writes."""
    return {
        "component": component_name(component),
        "settings": _readable(encode(component)[0]),
        "key": describe_key(key),
        **environment(plan),
    }


def component_name(component: Any) -> str:
    """`plugin:name` where registered, else the class's own name."""
    from ._registry import qualified_name

    cls = type(component)
    return qualified_name(cls) or f"{cls.__module__}.{cls.__qualname__}"


def _readable(structure: Any) -> Any:
    """Settings as people write them: tags of the encoding removed."""
    if not isinstance(structure, dict):
        return structure
    if "fields" in structure:
        return {name: _readable(value) for name, value in structure["fields"].items()}
    if "array" in structure:
        return "array"
    ((tag, content), *_) = structure.items()
    if tag == "int":
        return int(content)
    if tag == "float":
        number = float.fromhex(content)
        return number if json.dumps(number).lstrip("-")[0].isdigit() else str(number)
    if tag == "dict":
        return {name: _readable(value) for name, value in content.items()}
    if tag in {"list", "tuple"}:
        return [_readable(value) for value in content]
    return content["name"] if tag == "opaque" else content
