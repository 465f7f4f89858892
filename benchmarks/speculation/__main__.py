"""The command: see the package."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speculation.parts import PARTS
from benchmarks.speculation.row import Given, Row
from benchmarks.timing import machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print as it comes, and write JSON where asked; 1 where answers differ that must not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speculation", description="Speculative decoding against the same engine without it."
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"these of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=5, help="turns of every job (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of one operation")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the code: the figures mean nothing")
    parser.add_argument("--always", action="store_true", help="draft whatever it costs: no count depends on times then")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args(arguments)
    if given.runs < 1:
        parser.error(f"--runs is {given.runs}: use 1 or more")
    settings = Given(runs=given.runs, threads=given.threads, is_quick=given.quick, is_adaptive=not given.always)
    parts, differing = dict[str, Any](), list[str]()
    for name in given.only or PARTS:
        began = time.perf_counter()
        print(f"{name}: {(PARTS[name].__doc__ or '').strip()}", flush=True)
        rows = dict[str, Any]()
        for row in PARTS[name](settings):
            _print(row)
            rows[row.name] = _plain(row)
            if row.comparison is not None:
                differing += [f"{name}, {row.name}: {each}" for each in row.comparison.differing]
        parts[name] = {"rows": rows, "seconds": round(time.perf_counter() - began, 1)}
        print(f"  ({parts[name]['seconds']} s)", flush=True)
    if given.json:
        how = {"runs": given.runs, "is_quick": given.quick, "is_adaptive": not given.always}
        result = {"machine": machine(), **how, "parts": parts}
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for each in differing:
        print(f"DIFFERS: {each}", file=sys.stderr)
    return 1 if differing else 0


def _print(row: Row) -> None:
    beside = "  ".join(f"{key} {value:.3g}" for key, value in row.numbers.items())
    comparison = "" if row.comparison is None else f"{row.comparison}"
    print(f"  {row.name:36} {comparison}{'  ' if comparison and beside else ''}{beside}", flush=True)
    if row.comparison is not None and row.comparison.differing:
        print(f"    {len(row.comparison.differing)} answers DIFFER", flush=True)
    for target in row.targets:
        print(f"    {target}", flush=True)


def _plain(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = {} if row.comparison is None else asdict(row.comparison)
    if row.numbers:
        plain["numbers"] = dict(row.numbers)
    if row.targets:
        plain["targets"] = [asdict(target) | {"is_met": target.is_met} for target in row.targets]
    return plain


if __name__ == "__main__":
    sys.exit(main())
