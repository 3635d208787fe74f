"""Measures what posterax must reach: `python tests/benchmarks/bench.py NAME` (or `make bench NAME=core`).

Each row of targets.toml under NAME is measured anew and printed with its figure, target and verdict. The exit status
is 0 where every row is ok, 1 where one is MISSED or SKIPPED, 2 for a name that has no measurements. FULL=1 runs the
long studies: more seeds of the same rows, kept one file a seed under results/, so that an interrupted study goes on.

Without a NAME, or with `side_by_side`, posterax and its peers do the same works in turns: see `_side_by_side.py`.
"""

import argparse
import operator
import sys
import time
import tomllib

import _timing

NAMES = (
    "core", "testing", "numpyro", "particles", "distribution_transformer", "marginalization", "nngp", "mjp",
)  # fmt: skip
COMPARISONS = {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure what posterax must reach.",
        epilog="exit status: 0 every row ok, 1 a row MISSED or SKIPPED, 2 wrong usage or nothing to measure. "
        "FULL=1 in the environment runs the long studies.",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(NAMES)}; without it, side_by_side")
    parser.add_argument("--only", metavar="ROW", action="append", help="only this row and those measured with it")
    args = parser.parse_args()
    targets = tomllib.loads((_timing.HERE / "targets.toml").read_text())
    if args.name not in NAMES:
        parser.error(f"there is no benchmark {args.name!r}; choose from {', '.join(NAMES)}")
    if args.name not in targets or not (_timing.HERE / f"_{args.name}.py").exists():
        there = [name for name in NAMES if name in targets]
        parser.error(f"{args.name!r} has no measurements yet; there are: {', '.join(there)}")
    wanted = {row["id"]: row for row in targets[args.name]}
    if unknown := set(args.only or ()) - set(wanted):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(wanted)}")
    return report(args.name, wanted, args.only)


def report(name: str, wanted: dict[str, dict], only: list[str] | None) -> int:
    began = time.monotonic()
    print(f"posterax bench {name}: {_timing.machine()}\n", flush=True)
    measures = _timing.module(name).MEASURES
    if stray := {row for measure in measures for row in measure.rows} ^ set(wanted):
        raise SystemExit(f"targets.toml and _{name}.py do not have the same rows: {', '.join(sorted(stray))}")
    verdicts = []
    for measure in measures:
        if only and not set(only) & set(measure.rows):
            continue
        left = list(measure.rows)
        try:
            for row, figure in measure():
                left.remove(row)
                verdicts.append(show(wanted[row], figure))
        except Exception as error:
            for row in left:
                verdicts.append(show(wanted[row], error))
        else:
            for row in left:
                verdicts.append(show(wanted[row], RuntimeError("nothing was measured")))
    count = {kind: verdicts.count(kind) for kind in ("ok", "MISSED", "SKIPPED")}
    minutes = (time.monotonic() - began) / 60
    print(f"\n{_timing.machine()}")
    print(
        f"{name}: {len(verdicts)} rows: {count['ok']} ok, {count['MISSED']} missed, {count['SKIPPED']} skipped; "
        f"{minutes:.1f} minutes"
    )
    return 0 if verdicts and set(verdicts) == {"ok"} else 1


def show(row: dict, figure) -> str:
    target = f"{row['comparison']} {row['target']:g}"
    if isinstance(figure, Exception):
        verdict, text = "MISSED", f"failed: {type(figure).__name__}: {figure}"
    elif figure.value is None:
        verdict, text = "SKIPPED", figure.text
    else:
        verdict = "ok" if COMPARISONS[row["comparison"]](figure.value, row["target"]) else "MISSED"
        text = figure.text
    first, *more = text.splitlines() or [""]
    print(f"{verdict:8}{row['id']:26}{row['what']}\n{'':8}{'target ' + target:26}{first}", flush=True)
    for line in more:
        print(f"{'':34}{line}", flush=True)
    return verdict


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-child"]:
        _timing.answer_as_child(*sys.argv[2:])
    elif sys.argv[1:2] in ([], ["side_by_side"]):
        sys.exit(_timing.module("side_by_side").main(sys.argv[2:]))
    else:
        sys.exit(main())
