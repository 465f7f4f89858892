"""Our grammars over a file of JSON Schemas with valid and invalid instances, beside the engines alone.

    python -m benchmarks.schemabench --data dev.jsonl.gz [--tokenizer tokenizer.json.gz] [--limit N] [--json OUT]

Correctness needs no tokenizer: without `--tokenizer` the vocabulary is the 256 bytes and one end token. Every contender
judges the same rows in a process of its own, which is replaced when a schema uses more processor time than the limit.
Instances have the separators of our white space for us, and those of Python's `json.dumps` (`", "` and `": "`) for the
engines alone, as free white space is their default; llguidance is also shown the compact ones. The exit status is 1
when ours accepted an invalid instance or a schema ended in an error, such as a refusal that names no place in it.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.schemabench import report
from benchmarks.schemabench.contender import SEPARATORS, Setting
from benchmarks.schemabench.judge import JudgeMaker, Verdict
from benchmarks.schemabench.ours import holds_any_order
from benchmarks.schemabench.process import Killable
from benchmarks.schemabench.rows import Row, read_rows, sample
from benchmarks.schemabench.tally import Tally
from grammars.constraint import Order

PEERS: Final = ("xgrammar", "llguidance", "outlines")
_FREE: Final = SEPARATORS["single"]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module for the exit status."""
    options = _parser().parse_args(arguments)
    rows = read_rows(options.data, options.limit)
    results: dict[str, tuple[Setting, Tally]] = {}
    for setting in _settings(options):
        began = time.perf_counter()
        results[setting.name] = setting, _run(setting, sample(rows, setting.rows), options)
        print(f"{setting.title}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"{options.data.name}, {len(rows)} schemas, vocabulary {_vocabulary(options)}")
    for setting, tally in results.values():
        note = f", {tally.whole.schemas} rows" if tally.whole.schemas < len(rows) else ""
        print(f"  {setting.title}: separators {setting.separators}, {setting.cpu_s} s of CPU per schema{note}")
    print("\n" + report.table(results))
    print("\n" + report.groups_table(results, lambda tally: tally.by_dataset, "data set"))
    print("\n" + report.groups_table(results, lambda tally: tally.by_keyword, "keyword"))
    ours = [(setting, tally) for setting, tally in results.values() if setting.is_ours]
    for setting, tally in ours:
        print(f"\n{setting.title} refused for {dict(tally.refusals.most_common())}; backends {dict(tally.backends)}")
        for finding in tally.findings:
            if "error" in finding or finding.get("valid") is False:
                print(f"  WRONG {json.dumps(finding, ensure_ascii=False)[:400]}")
    if options.json:
        document = {
            "data": options.data.name,
            "vocabulary": _vocabulary(options),
            "schemas": len(rows),
            "contenders": {name: report.as_json(*result) for name, result in results.items()},
        }
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return int(any(tally.invalid_accepted or tally.whole.error for _, tally in ours))


def _run(setting: Setting, rows: list[Row], options: argparse.Namespace) -> Tally:
    maker = JudgeMaker(setting, options.tokenizer, options.end_token, options.whitespace, options.deadline_s)
    work: Killable[Row, Verdict] = Killable(maker, setting.cpu_s, 10.0 * setting.cpu_s)
    tally = Tally()
    for row, outcome in zip(rows, work.map(rows), strict=True):
        tally.add(row, outcome)
    return tally


def _settings(options: argparse.Namespace) -> list[Setting]:
    """Who is measured, in this order. More processor time for a real vocabulary, as in the baseline's protocol."""
    is_real = options.tokenizer is not None
    cpu_s, separators = (10 if is_real else 6), SEPARATORS[options.whitespace]
    orders: list[Order] = ["declared", "any"] if options.order is None else [options.order]
    if options.order is None and not holds_any_order():
        orders = ["declared"]
    settings = [Setting(order, f"ours, {order}", separators, cpu_s) for order in orders]
    peers = [] if options.no_peers else options.peers
    limit = options.peer_limit
    if "xgrammar" in peers:
        settings.append(Setting("xgrammar", "xgrammar", _FREE, cpu_s, limit))
        settings.append(Setting("xgrammar-open", "xgrammar open", _FREE, cpu_s, limit))
    if "llguidance" in peers:
        settings.append(Setting("llguidance", "llguidance", _FREE, cpu_s, limit))
        settings.append(Setting("llguidance-compact", "llguidance compact", SEPARATORS["compact"], cpu_s, limit))
    if "outlines" in peers:
        rows = options.outlines_limit if limit is None else min(limit, options.outlines_limit)
        settings.append(Setting("outlines", "outlines-core", _FREE, 8 if is_real else 2, rows))
    return settings


def _vocabulary(options: argparse.Namespace) -> str:
    return str(options.tokenizer.name) if options.tokenizer else "256 bytes"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.schemabench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="rows as JSON lines, plain or gzipped")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json, plain or gzipped (default: the 256 bytes)")
    parser.add_argument("--end-token", help="the tokenizer's end token (default: <|im_end|> or <|endoftext|>)")
    parser.add_argument("--limit", type=int, help="judge so many rows only, drawn with a fixed seed")
    parser.add_argument("--whitespace", choices=sorted(SEPARATORS), default="compact", help="of our grammars")
    parser.add_argument("--order", choices=["declared", "any"], help="of properties in our grammars (default: both)")
    parser.add_argument("--deadline-s", type=float, default=5.0, help="wall clock of one of our compilations")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="engines to measure alone")
    parser.add_argument("--no-peers", action="store_true", help="measure ours only")
    parser.add_argument("--peer-limit", type=int, help="rows per peer (default: all)")
    parser.add_argument("--outlines-limit", type=int, default=100, help="rows for outlines-core, which takes seconds")
    parser.add_argument("--json", type=Path, help="write the figures and every wrong row here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
