"""Function calls of a server, scored by the rules of the Berkeley Function Calling Leaderboard (BFCL).

    python -m benchmarks.bfcl --data DIR --base-url http://127.0.0.1:8000/v1 --model large [--json OUT]

The categories simple, multiple, parallel, parallel_multiple and irrelevance over HTTP, at any OpenAI-compatible server;
`tool_choice` is auto, as on the leaderboard. A row that the server does not answer is wrong, and is counted as
unanswered; the exit status is then 1. The data is not part of this project: github.com/ShishirPatil/gorilla.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import openai
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.bfcl.client import Asking, Reply, UnusableServer, ask_all
from benchmarks.bfcl.report import report
from benchmarks.bfcl.rows import CATEGORIES, Row, RowError, read_rows
from benchmarks.bfcl.tally import Tally
from benchmarks.timing import machine


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0, 1 where rows were not answered, 2 where it could not be run."""
    given = _parser().parse_args(arguments)
    asking = Asking(
        given.model,
        tool_choice=given.tool_choice,
        temperature=None if given.temperature < 0 else given.temperature,
        max_tokens=given.max_tokens,
        is_closed=given.closed,
        copied=given.copy,
        retries=given.retries,
    )
    try:
        rows = read_rows(given.data, tuple(given.categories), given.limit)
        tally = asyncio.run(_run(rows, asking, given))
    except (RowError, UnusableServer) as error:
        print(error, file=sys.stderr)
        return 2
    choice = f"tool_choice {given.tool_choice}{', closed' * given.closed}{', copied strings' * given.copy}"
    print(f"{given.model}: {len(rows)} rows, {choice}, {given.concurrency} at once\n{report(tally)}")
    if given.wrong:
        given.wrong.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in _wrong(tally)))
    if given.json:
        settings = {
            "model": given.model,
            "tool_choice": given.tool_choice,
            "temperature": asking.temperature,
            "max_tokens": given.max_tokens,
            "closed": given.closed,
            "copy": given.copy,
            "concurrency": given.concurrency,
            "limit": given.limit,
        }
        document = {"machine": machine(), "settings": settings, **tally.as_json()}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(tally.failures > 0)


async def _run(rows: list[Row], asking: Asking, given: argparse.Namespace) -> Tally:
    for row in rows:
        asking.body(row)  # a row that cannot be asked ends the run before it begins
    tally = Tally()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(rows))

        def done(row: Row, reply: Reply) -> None:
            tally.add(row, reply)
            progress.update(task, advance=1, description=f"{100 * tally.of_rows.share:.1f} % right")

        async with openai.AsyncOpenAI(
            base_url=given.base_url, api_key=given.api_key, max_retries=0, timeout=given.timeout_s
        ) as client:
            await ask_all(client, asking, rows, given.concurrency, done)
    order = {row.id: place for place, row in enumerate(rows)}
    tally.judged.sort(key=lambda each: order[each.row.id])
    return tally


def _wrong(tally: Tally) -> list[dict[str, object]]:
    """Each wrong answer with what was called, for looking into mistakes."""
    return [
        {
            "id": each.row.id,
            "mistake": each.finding.mistake.value,
            "text": each.finding.text,
            "calls": [{"name": call.name, "arguments": call.arguments} for call in each.reply.calls],
        }
        for each in tally.judged
        if each.finding is not None
    ]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bfcl", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of *.jsonl or *.jsonl.gz, or one file")
    parser.add_argument("--base-url", required=True, help="of the server, with /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key", default="none-needed")
    parser.add_argument("--categories", nargs="+", choices=CATEGORIES, default=list(CATEGORIES))
    parser.add_argument("--limit", type=_positive, help="so many rows of each category, drawn with a fixed seed")
    parser.add_argument("--concurrency", type=_positive, default=4, help="questions at once")
    parser.add_argument("--tool-choice", choices=["auto", "required"], default="auto")
    parser.add_argument("--closed", action="store_true", help="send additionalProperties: false with named properties")
    parser.add_argument("--copy", action="store_true", help="strings come from the conversation (Pointsman only)")
    parser.add_argument("--temperature", type=float, default=0.0, help="below 0: the server's own")
    parser.add_argument("--max-tokens", type=_positive, default=512, help="of an answer")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="of one request")
    parser.add_argument("--retries", type=int, default=8, help="of one request, after 429 and 503")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--wrong", type=Path, metavar="OUT", help="write each wrong answer here, as JSON lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
