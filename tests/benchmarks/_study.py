"""Long studies: one file a seed under results/, so that a study that was interrupted goes on where it stopped."""

import ast
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import _timing

FULL = os.environ.get("FULL") == "1"
KEEP = os.environ.get("KEEP") == "1"


def seeds(short: int, long: int) -> range:
    """How many seeds to run: more of them with FULL=1."""
    return range(long if FULL else short)


def study(name: str, over: range, one: Callable[[int], Any]) -> list[Any]:
    """`one(seed)`, plain data, for every seed.

    With FULL=1 each is written to results/NAME-SEED.json, and read back where versions and sources are the same; with
    KEEP=1 also where they are not, and it is printed how many those are. Every file says what it was made with.
    """
    if not FULL:
        return [one(seed) for seed in over]
    made_with = {**_timing.versions(), "sources": _sources()}
    results, older = [], 0
    for seed in over:
        file = _timing.HERE / "results" / f"{name}-{seed}.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        if KEEP and kept:
            older += kept["made_with"] != made_with
        elif kept.get("made_with") != made_with:
            kept = {"made_with": made_with, "seed": seed, "result": one(seed)}
            file.parent.mkdir(exist_ok=True)
            scratch = file.with_suffix(".part")
            scratch.write_text(json.dumps(kept, indent=1) + "\n")
            scratch.replace(file)
        results.append(kept["result"])
    if older:
        print(f"{name}: {older} of {len(results)} results were made with other versions or sources", flush=True)
    return results


def kept(name: str, over: range) -> dict[int, Any]:
    """What FULL=1 once wrote for some of these seeds, by seed, whatever it was made with."""
    files = {seed: _timing.HERE / "results" / f"{name}-{seed}.json" for seed in over}
    return {seed: json.loads(file.read_text())["result"] for seed, file in files.items() if file.exists()}


def _sources() -> str:
    """A digest of what is measured: the code of posterax itself, without its comments and docstrings."""
    digest = hashlib.sha256()
    for folder in ("core", "models", "plugins"):
        for file in sorted((_timing.ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                    if isinstance(body[0].value, ast.Constant):
                        del body[0]
            digest.update(file.relative_to(_timing.ROOT).as_posix().encode() + b"\0" + ast.dump(tree).encode())
    return digest.hexdigest()[:16]
