"""`pointsman demo`: see the main job work on the bundled models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.arguments import add_model_arguments

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers


def add_demo(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="see the main job work on the bundled models",
        description="Start a server with a database of its own, and send it real requests with the official client: "
        "structured answers, tool calls, a stream, a refused schema, 16 requests at once.",
    )
    add_model_arguments(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    parser.set_defaults(run=_demo)


def _demo(parsed: argparse.Namespace) -> int:
    from gateway import demo

    arguments = []
    for name in ("small", "large", "config"):
        value = getattr(parsed, name)
        if value is not None:
            arguments += [f"--{name}", str(value)]
    return demo.run(arguments)
