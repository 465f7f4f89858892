"""The command: see the package."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"
INTERPRET = "TRITON_INTERPRET"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write after each section, print the table; returns 0, 1 where a section failed, or 2 for a command that
    cannot be followed."""
    given = _parser().parse_args(arguments)
    if given.toy and given.out is None:
        print("--toy writes figures that mean nothing: say where with --out", file=sys.stderr)
        return 2
    if given.out is not None and not given.out.parent.is_dir():
        print(f"--out is {given.out}: there is no folder {given.out.parent}, make it first", file=sys.stderr)
        return 2
    import torch  # after what needs no second of waiting

    if not torch.cuda.is_available():
        if not given.toy:
            print(
                "torch finds no GPU here, and these are figures of a GPU: run this on a machine with one, or try every "
                "section at toy size with --toy --out FILE",
                file=sys.stderr,
            )
            return 2
        if os.environ.get(INTERPRET) != "1":  # Triton reads it when a kernel is decorated, so it is too late here
            command = [sys.executable, "-m", "benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)]
            os.execve(sys.executable, command, {**os.environ, INTERPRET: "1"})  # noqa: S606
    from benchmarks.gpu.sections import SECTIONS

    unknown = [name for name in given.only or () if name not in SECTIONS]
    if unknown:
        print(f"there is no section {unknown[0]}: use {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    return _measure(given)


def _measure(given: argparse.Namespace) -> int:
    from benchmarks.gpu.bench import Bench, platform_of
    from benchmarks.gpu.environment import commit, environment
    from benchmarks.gpu.figures import Report, Section
    from benchmarks.gpu.sections import LIMIT_S, SECTIONS
    from benchmarks.gpu.table import lines, short

    began, out = time.perf_counter(), given.out or RESULTS
    platform = platform_of(is_toy=given.toy)
    where, source = environment(platform.device), given.commit or commit()
    report, n_failed = Report.read(out), 0
    for name in given.only or SECTIONS:
        plan, known = SECTIONS[name], report.sections.get(name)
        if known is not None and known.holds_for(where["device"], source) and not given.again:
            print(f"{name}: already measured here at {short(source)}", file=sys.stderr, flush=True)
            continue
        left_s = given.budget_s - (time.perf_counter() - began)
        if plan.estimate_s > left_s:
            print(f"{name}: takes about {plan.estimate_s:.0f} s, {left_s:.0f} s are left", file=sys.stderr, flush=True)
            continue
        failure = None
        bench = Bench(platform, name, is_toy=given.toy, limit_s=min(LIMIT_S, left_s))
        try:
            plan.run(bench)
        except Exception as error:  # the sections after it are worth having
            traceback.print_exc()
            failure, n_failed = f"{type(error).__name__}: {str(error)[:500]}", n_failed + 1
        report.sections[name] = Section(
            where=where,
            commit=source,
            is_toy=given.toy,
            copy_bytes_per_s=bench.copy_bytes_per_s,
            seconds=bench.seconds,
            figures=bench.figures,
            left_out=bench.left_out,
            failure=failure,
        )
        report.write(out)
        bench.tell("done" if failure is None else "failed")
        bench.free()
    print("\n".join(lines(report, list(SECTIONS))), flush=True)
    return 1 if n_failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a GPU makes of the engine.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sections, in this order")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results, read and written (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure what the results already hold, too")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="begin no section that would end later")
    parser.add_argument("--commit", help="what the sources are called, instead of asking git")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to try the code; needs --out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
