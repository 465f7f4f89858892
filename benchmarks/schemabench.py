"""Our grammars over a file of JSON Schemas with valid and invalid instances (MaskBench rows: `id`, `schema`, `tests`).

    python -m benchmarks.schemabench --data dev.jsonl.gz [--tokenizer tokenizer.json.gz] [--limit N] [--json OUT]

Correctness needs no tokenizer: without `--tokenizer` the vocabulary is the 256 bytes and one end token. Instances are
serialised by `json.dumps(data, ensure_ascii=False)` with the separators of the white space asked for, since the
grammars write compact JSON; then they are fed token by token: fill the mask, look up the token's bit, advance; at the
end a stop token must be legal. A valid instance is *refused* when any of these fails, an invalid one is *accepted*
when none does. Times are CPU microseconds of this thread around the calls, in Python.
"""

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tokenizers import byte_tokenizer, load_tokenizer
from grammars import CompiledConstraint, CompileTimeout, ConstraintRefused, GrammarCompiler, JsonSchema

SEPARATORS = {"compact": (",", ":"), "single": (", ", ": ")}
END = "<|endoftext|>"


@dataclass(slots=True)
class Tally:
    """Counts and times of one run."""

    schemas: int = 0
    compiled: int = 0
    refused: int = 0
    errors: int = 0
    passing: int = 0
    valid: int = 0
    valid_refused: int = 0
    invalid: int = 0
    invalid_accepted: int = 0
    backends: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    first_mask_us: list[float] = field(default_factory=list)
    mask_us: list[float] = field(default_factory=list)
    advance_us: list[float] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 when an invalid instance was accepted or a schema ended in an error."""
    options = _parser().parse_args(arguments)
    rows = _rows(options.data, options.limit)
    tokenizer = load_tokenizer(options.tokenizer, options.end_token) if options.tokenizer else byte_tokenizer(END)
    compiler = GrammarCompiler(tokenizer, whitespace=options.whitespace, deadline_s=options.deadline_s)
    compiler.compile(JsonSchema({"type": "null"}))  # builds the token trie, which is no schema's cost
    tally = Tally()
    for row in rows:
        _judge(row, compiler, tokenizer, SEPARATORS[options.whitespace], tally)
    report = _report(tally, options)
    print(_table(report))
    if options.json:
        options.json.write_text(json.dumps({**report, "findings": tally.findings}, indent=1, ensure_ascii=False))
    return int(tally.invalid_accepted > 0 or tally.errors > 0)


def _name(row: dict[str, Any]) -> str:
    """A row's id; rows of the JSON Schema test suite have a keyword and a position instead."""
    return str(row["id"]) if "id" in row else f"{row['keyword']}/{row['group']}"


def _judge(
    row: dict[str, Any], compiler: GrammarCompiler, tokenizer: Any, separators: tuple[str, str], tally: Tally
) -> None:
    import torch

    tally.schemas += 1
    mask = torch.zeros(compiler.n_words, dtype=torch.int32)
    began = time.process_time_ns()
    try:
        compiled = compiler.compile(JsonSchema(row["schema"]))
        compiled.matcher().fill_mask(mask)
    except ConstraintRefused as refusal:
        tally.refused += 1
        tally.refusals[refusal.keyword] += 1
        tally.findings.append({"id": _name(row), "refused": str(refusal)})
        return
    except (CompileTimeout, Exception) as error:
        tally.errors += 1
        tally.findings.append({"id": _name(row), "error": f"{type(error).__name__}: {error}"[:300]})
        return
    # Of the whole process, since compilation runs in a thread of its own.
    tally.first_mask_us.append((time.process_time_ns() - began) / 1e3)
    tally.compiled += 1
    tally.backends[compiled.backend] += 1
    wrong = 0
    for test in row.get("tests", ()):
        accepted, text = _accepts(compiled, test["data"], tokenizer, separators, mask, tally)
        tally.valid += test["valid"]
        tally.invalid += not test["valid"]
        if accepted != test["valid"]:
            wrong += 1
            tally.valid_refused += test["valid"]
            tally.invalid_accepted += not test["valid"]
            tally.findings.append({"id": _name(row), "valid": test["valid"], "accepted": accepted, "text": text[:400]})
    tally.passing += not wrong


def _accepts(
    compiled: CompiledConstraint, data: Any, tokenizer: Any, separators: tuple[str, str], mask: Any, tally: Tally
) -> tuple[bool, str]:
    """(whether every token and the end were legal, the text up to the token that was not)."""
    text = json.dumps(data, ensure_ascii=False, separators=separators)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    matcher = compiled.matcher()
    words = mask.numpy()
    for i, token in enumerate(tokens):
        began = time.thread_time_ns()
        matcher.fill_mask(mask)
        filled = time.thread_time_ns()
        is_legal = bool(words[token // 32] >> (token % 32) & 1)
        taken = matcher.advance(token)
        tally.mask_us.append((filled - began) / 1e3)
        tally.advance_us.append((time.thread_time_ns() - filled) / 1e3)
        if is_legal != taken:
            raise RuntimeError(f"mask and matcher disagree on token {token} after {tokenizer.decode(tokens[:i])!r}")
        if not taken:
            return False, tokenizer.decode(tokens[: i + 1])
    return matcher.is_complete, text


def _report(tally: Tally, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": options.data.name,
        "vocabulary": options.tokenizer.name if options.tokenizer else "256 bytes",
        "white_space": f"{options.whitespace}: separators {SEPARATORS[options.whitespace]}",
        "schemas": tally.schemas,
        "passing": tally.passing,
        "compiled": tally.compiled,
        "refused": tally.refused,
        "errors": tally.errors,
        "valid": tally.valid,
        "valid_refused": tally.valid_refused,
        "invalid": tally.invalid,
        "invalid_accepted": tally.invalid_accepted,
        "backends": dict(tally.backends),
        "refused_for": dict(tally.refusals.most_common()),
        "first_mask_ms": {name: value / 1e3 for name, value in _percentiles(tally.first_mask_us).items()},
        "mask_us": _percentiles(tally.mask_us),
        "advance_us": _percentiles(tally.advance_us),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99, p99.9 and the largest (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return {}
    ranks = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
    return {name: ordered[int(rank * (len(ordered) - 1))] for name, rank in ranks.items()} | {"max": ordered[-1]}


def _table(report: dict[str, Any]) -> str:
    share = 100 * report["passing"] / max(1, report["schemas"])
    lines = [
        f"{report['data']}, vocabulary {report['vocabulary']}, white space {report['white_space']}",
        f"schemas {report['schemas']}: passing {report['passing']} ({share:.1f} %), compiled {report['compiled']}, "
        f"refused {report['refused']}, errors {report['errors']}; backends {report['backends']}",
        f"valid instances refused {report['valid_refused']} of {report['valid']}; "
        f"invalid instances accepted {report['invalid_accepted']} of {report['invalid']}",
        f"refused for {report['refused_for']}",
    ]
    times = (
        f"{name}: " + "  ".join(f"{key} {value:.1f}" for key, value in report[name].items())
        for name in ("first_mask_ms", "mask_us", "advance_us")
    )
    return "\n".join([*lines, *times])


def _rows(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The rows of a file, or `limit` of them drawn with a fixed seed."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return rows if limit is None or limit >= len(rows) else random.Random(5).sample(rows, limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.schemabench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="rows as JSON lines, plain or gzipped")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json, plain or gzipped (default: the 256 bytes)")
    parser.add_argument("--end-token", help="the tokenizer's end token (default: <|im_end|> or <|endoftext|>)")
    parser.add_argument("--limit", type=int, help="judge so many rows only, drawn with a fixed seed")
    parser.add_argument("--whitespace", choices=sorted(SEPARATORS), default="compact", help="of grammar and instances")
    parser.add_argument("--deadline-s", type=float, default=5.0, help="wall clock of one compilation")
    parser.add_argument("--json", type=Path, help="write the figures and every wrong row here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
