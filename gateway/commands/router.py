"""`pointsman router`: train a router on outcomes, score one, and choose which one decides."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, period, settings_of
from gateway.commands.router_data import DATA_HELP, OWN_LOG, is_log, outcome_files, write_log
from gateway.commands.router_registry import add_registry

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers

_GRADERS = ("exact_match", "contains", "number", "schema_valid", "command")


def add_router(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser("router", help="train and evaluate routers, and choose which one decides")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="fit a router to outcomes and save it")
    train.add_argument("--data", nargs="+", required=True, metavar="DATA", help=DATA_HELP)
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to save the router")
    train.add_argument("--seed", type=int, default=0, help="of folds and bootstrap (default 0)")
    _add_embedding_model(train)
    for name in ("small", "large"):
        train.add_argument(
            f"--{name}",
            type=Path,
            metavar="PATH",
            help=f"checkpoint of the {name} model behind the outcomes; the router is then used with that pair only",
        )
    add_settings_arguments(train)
    train.set_defaults(run=_train)
    generate = actions.add_parser(
        "generate-outcomes",
        help="run both models over a file of requests and grade them",
        description="Send every request to both models the way the server would, grade the answers, and write the "
        "outcomes that `router train` reads. Requests that not both models can answer are skipped and named. A run "
        "that was stopped is taken up by the same command.",
    )
    generate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"id": ..., "request": a chat completion body, "expected": calls, object, text or null}',
    )
    generate.add_argument("--out", type=Path, required=True, metavar="FILE", help="outcomes; gzipped if it ends in .gz")
    generate.add_argument(
        "--grader",
        choices=_GRADERS,
        default=_GRADERS[0],
        help="how answers are scored: against `expected` (exact_match, contains, number; without one by form), by form "
        "alone, or by the command in routing.grader_command (default: exact_match)",
    )
    add_model_arguments(generate)
    add_settings_arguments(generate)
    generate.set_defaults(run=_generate)
    evaluate = actions.add_parser("evaluate", help="score a saved router on outcomes that it was not trained on")
    evaluate.add_argument("--artefact", type=Path, required=True, metavar="DIR", help="the router's folder")
    evaluate.add_argument("--data", nargs="+", required=True, metavar="DATA", help=DATA_HELP)
    evaluate.add_argument(
        "--train",
        nargs="+",
        default=[],
        metavar="DATA",
        help="what the router was trained on, to fit the baselines that need it: subject, and nearest neighbours, "
        "which without it are sought among the rows of --data",
    )
    evaluate.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="JSON",
        help='another policy to value on the rows of a log, such as {"quality": 0.9} or {"share": 0.3}; may be given '
        "more than once",
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    _add_embedding_model(evaluate)
    evaluate.add_argument("--json", type=Path, metavar="OUT", help="write the report to this file, too")
    add_settings_arguments(evaluate)
    add_model_arguments(evaluate, hidden=True)
    evaluate.set_defaults(run=_evaluate)
    export = actions.add_parser(
        "export-log",
        help="write what was routed and how good it was as outcomes",
        description="Write the decisions of which somebody said how good the answer was, with what the router had read "
        "of the request, as outcomes for `router train`, `evaluate` and `calibrate`. No text is in them.",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="outcomes; gzipped if it ends in .gz")
    export.add_argument("--since", type=period, metavar="PERIOD", help="such as 24h, 7d (default: everything)")
    add_settings_arguments(export)
    add_model_arguments(export, hidden=True)
    export.set_defaults(run=_export)
    add_registry(actions)


def _add_embedding_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--embedding-model",
        type=Path,
        metavar="DIR",
        help="a local sentence encoder (such as all-MiniLM-L6-v2) that the router reads instead of states and texts",
    )


def _train(parsed: argparse.Namespace) -> int:
    from router_model.commands import train

    small, large = (_fingerprint(folder) for folder in (parsed.small, parsed.large))
    try:
        with outcome_files(parsed, parsed.data) as files:
            train(
                files,
                parsed.out,
                small_model=small,
                large_model=large,
                embedding_model=parsed.embedding_model,
                seed=parsed.seed,
            )
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _generate(parsed: argparse.Namespace) -> int:
    import asyncio

    from engine.request import EngineError
    from gateway.openai.errors import ApiError
    from gateway.routing.shadow import generate_outcomes
    from router_model.grading import GraderName

    try:
        made = asyncio.run(generate_outcomes(settings_of(parsed), parsed.data, parsed.out, GraderName(parsed.grader)))
    except (ApiError, EngineError, ValueError, OSError) as error:
        raise CommandError(", ".join([str(error), *getattr(error, "__notes__", ())])) from error
    except KeyboardInterrupt:
        print(
            f"stopped: what was made is kept beside {parsed.out}, and the same command goes on from there",
            file=sys.stderr,
        )
        raise
    before = f", {made.taken_up} of them from the run before" if made.taken_up else ""
    print(
        f"{made.rows} outcomes in {parsed.out}{before}: the small model scores {made.small_score:.1%}, the large one "
        f"{made.large_score:.1%}" + (f"; {made.ungraded} requests stayed ungraded" if made.ungraded else "")
    )
    if made.skipped:
        print(f"{made.skipped} requests were skipped:")
        for one in made.first_skipped:
            print(f"  {one.id}: {one.why}")
        if made.skipped > len(made.first_skipped):
            print(f"  and {made.skipped - len(made.first_skipped)} more")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    import msgspec

    from router_model.candidates import Candidate
    from router_model.commands import evaluate

    try:
        candidates = [msgspec.json.decode(text, type=Candidate) for text in parsed.policy]
        with outcome_files(parsed, parsed.data) as files, outcome_files(parsed, parsed.train) as train_files:
            evaluate(
                parsed.artefact,
                files,
                parsed.json,
                train_files=train_files,
                data_names=[OWN_LOG if is_log(source) else source for source in parsed.data],
                candidates=candidates,
                embedding_model=parsed.embedding_model,
                seed=parsed.seed,
            )
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _export(parsed: argparse.Namespace) -> int:
    written = write_log(settings_of(parsed), parsed.out, parsed.since)
    print(
        f"{written.rows} outcomes in {parsed.out}, {written.pairs} of them with both models graded; "
        f"{written.ungraded} decisions are ungraded and left out"
    )
    return 0


def _fingerprint(folder: Path | None) -> str:
    """The engine's fingerprint of a checkpoint; empty without one."""
    from gateway.routing.pair import NoCheckpoint, fingerprint_of

    try:
        return "" if folder is None else fingerprint_of(folder)
    except NoCheckpoint as error:
        raise CommandError(str(error)) from error
