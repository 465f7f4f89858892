"""`pointsman router`: train a router on outcomes, and score one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, settings_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers

_DATA = "JSON lines, plain or .gz: what both models made of each prompt (the form is in router_model/outcomes.py)"


def add_router(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser("router", help="train and evaluate routers")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="fit a router to outcomes and save it")
    train.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help=_DATA)
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to save the router")
    train.add_argument("--seed", type=int, default=0, help="of folds and bootstrap (default 0)")
    for name in ("small", "large"):
        train.add_argument(
            f"--{name}",
            type=Path,
            metavar="PATH",
            help=f"checkpoint of the {name} model behind the outcomes; the router is then used with that pair only",
        )
    train.set_defaults(run=_train)
    generate = actions.add_parser(
        "generate-outcomes",
        help="run both models over a file of requests and grade them",
        description="Send every request to both models the way the server would, grade the answers, and write the "
        "outcomes that `router train` reads.",
    )
    generate.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"id": ..., "request": a chat completion body, "expected": calls, object, text or null}',
    )
    generate.add_argument("--out", type=Path, required=True, metavar="FILE", help="outcomes; gzipped if it ends in .gz")
    add_model_arguments(generate)
    add_settings_arguments(generate)
    generate.set_defaults(run=_generate)
    evaluate = actions.add_parser("evaluate", help="score a saved router on outcomes that it was not trained on")
    evaluate.add_argument("--artefact", type=Path, required=True, metavar="DIR", help="the router's folder")
    evaluate.add_argument("--data", type=Path, required=True, metavar="FILE", help=_DATA)
    evaluate.add_argument("--json", type=Path, metavar="OUT", help="write the report to this file, too")
    evaluate.set_defaults(run=_evaluate)


def _train(parsed: argparse.Namespace) -> int:
    from router_model.commands import train

    small, large = (_fingerprint(folder) for folder in (parsed.small, parsed.large))
    try:
        train(parsed.data, parsed.out, small_model=small, large_model=large, seed=parsed.seed)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _generate(parsed: argparse.Namespace) -> int:
    import asyncio

    from engine.request import EngineError
    from gateway.openai.errors import ApiError
    from gateway.routing.shadow import generate_outcomes

    try:
        count, small, large = asyncio.run(generate_outcomes(settings_of(parsed), parsed.data, parsed.out))
    except (ApiError, EngineError, ValueError, OSError) as error:
        raise CommandError(", ".join([str(error), *getattr(error, "__notes__", ())])) from error
    print(f"{count} outcomes in {parsed.out}: the small model was right in {small:.1%}, the large one in {large:.1%}")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from router_model.commands import evaluate

    try:
        evaluate(parsed.artefact, parsed.data, parsed.json)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _fingerprint(folder: Path | None) -> str:
    """The engine's fingerprint of a checkpoint; empty without one."""
    if folder is None:
        return ""
    if not (folder / "config.json").is_file():
        raise CommandError(f"there is no model in {folder}: name a checkpoint folder")
    from engine.loaded_model import fingerprint

    return fingerprint(folder)
