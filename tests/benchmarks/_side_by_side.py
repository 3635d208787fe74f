"""posterax and its peers on the same works, in turns: `make bench`, or `make bench QUICK=1` for a look.

Each side is a process in an environment of its own that has compiled before it is timed. At every size the sides take
turns, 15 rounds or as many as 25 seconds hold, at least 5; ratios are taken round by round. Memory is the largest
resident memory of the process after its first computation, less that before it; what the compiler took is in it.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import _race
from _side_by_side_run import measured
from _side_by_side_tables import counted, text
from _side_by_side_works import WORKS, Work
from _timing import ROOT, machine, module


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.py side_by_side", description="posterax and its peers, side by side.")
    parser.add_argument("--only", action="append", choices=[work.name for work in WORKS], help="only this work")
    parser.add_argument("--quick", action="store_true", help="two sizes and three rounds; QUICK=1 does the same")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-output")
    args = parser.parse_args(arguments)
    quick = args.quick or os.environ.get("QUICK") == "1"
    began, about = time.monotonic(), machine()
    print(f"posterax beside its peers{', a quick look' if quick else ''}: {about}\n", flush=True)
    works = [work for work in WORKS if not args.only or work.name in args.only]
    pythons = _environments(works)
    peers = {name: " ".join(_race.ENVIRONMENTS[name]) for name in pythons}
    found: dict[str, Any] = {"quick": quick, "machine": about.splitlines(), "peers": peers, "works": []}
    for work in works:
        found["works"].append(measured(work, pythons, quick))
        print(text(found["works"][-1]), flush=True)
    found["minutes"] = (time.monotonic() - began) / 60
    args.output.mkdir(parents=True, exist_ok=True)
    written = args.output / "side_by_side.json"
    written.write_text(as_json(found))
    print(machine())
    for path in (written, *module("side_by_side_plots").plot(found, args.output)):
        print(f"wrote {os.path.relpath(path)}")
    print(f"side by side: {counted(found)}; {found['minutes']:.1f} minutes")
    return 1 if any("wrong" in point for work in found["works"] for point in work["points"]) else 0


def _environments(works: list[Work]) -> dict[str, Path | _race.Unavailable]:
    """The Python of every peer's environment, or why there is none."""
    pythons: dict[str, Path | _race.Unavailable] = {}
    for name in dict.fromkeys(side.environment for work in works for side in work.sides if side.environment):
        try:
            pythons[name] = _race.environment(name)
        except _race.Unavailable as reason:
            pythons[name] = reason
    return pythons


def as_json(value: Any, indent: str = "") -> str:
    """JSON with numbers of five digits, and lists of numbers in one line."""
    if isinstance(value, float):
        value = float(f"{value:.5g}")
    if isinstance(value, dict) and value:
        inner = [f"{indent} {json.dumps(name)}: {as_json(one, indent + ' ')}" for name, one in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}" + ("" if indent else "\n")
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        inner = [f"{indent} {as_json(one, indent + ' ')}" for one in value]
        return "[\n" + ",\n".join(inner) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ", ".join(as_json(one) for one in value) + "]"
    return json.dumps(value)
