"""Run many cases in a process that may die, print what was found and how to see it again, and go on where it stopped.

The exit status is 1 when something was found. `--only KIND:INDEX --seed S` runs one case in this process.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.schemabench.process import Killable
from grammars import JsonSchema
from tests.grammars.fuzz.cases import KINDS, NEEDS_DATA, Case, Corpus, make
from tests.grammars.fuzz.judge import Judge, Outcome
from tests.grammars.fuzz.report import Report
from tests.grammars.fuzz.shrink import shrink

CPU_S, WALL_S = 20, 90.0
MAX_PEAK_BYTES = 3 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzz; see the module."""
    options = _parser().parse_args(arguments)
    corpus = Corpus(Path(os.environ["POINTSMAN_DATA"]) if os.environ.get("POINTSMAN_DATA") else None)
    kinds = [kind for kind in options.kinds if corpus.folder is not None or kind not in NEEDS_DATA]
    if options.only:
        kind, index = options.only.split(":")
        return _one(Case(kind, options.seed, int(index)), corpus)
    report, began = Report(options.seed), time.monotonic()
    first = _resumed(options.state, options.seed, report)
    cases = [Case(kinds[i % len(kinds)], options.seed, i // len(kinds)) for i in range(first, options.n)]
    work: Killable[Case, Outcome] = Killable(partial(Judge, corpus), CPU_S, WALL_S)
    done = first
    for case, outcome in zip(cases, work.map(cases), strict=False):
        report.add(case, outcome)
        done += 1
        if options.state and done % 200 == 0:
            options.state.write_text(json.dumps({"seed": options.seed, "done": done, **report.as_json()}))
        if options.seconds and time.monotonic() - began > options.seconds:
            break
    print(report.text(done, time.monotonic() - began))
    if options.state:
        options.state.write_text(json.dumps({"seed": options.seed, "done": done, **report.as_json()}, indent=1))
    return int(report.is_bad or report.peak_bytes > MAX_PEAK_BYTES)


def _one(case: Case, corpus: Corpus) -> int:
    """Judge one case here, and say how small a schema shows the same. The status is 1 when something was found."""
    judge = Judge(corpus)
    outcome = judge(case)
    print(outcome)
    constraint = make(case, corpus)[0]
    if outcome.findings and isinstance(constraint, JsonSchema) and isinstance(constraint.schema, dict):
        print("smallest:", shrink(judge, constraint, outcome.findings[0].kind))
    return int(bool(outcome.findings))


def _resumed(state: Path | None, seed: int, report: Report) -> int:
    """How many cases an earlier run with the same seed has done."""
    if state is None or not state.exists():
        return 0
    saved = json.loads(state.read_text())
    if saved["seed"] != seed:
        raise SystemExit(f"{state} belongs to seed {saved['seed']}: remove it, or use that seed")
    report.load(saved)
    return int(saved["done"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.grammars.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="how many cases, all kinds in turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--state", type=Path, help="where to note progress, and to go on from")
    parser.add_argument("--only", metavar="KIND:INDEX", help="one case, in this process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
