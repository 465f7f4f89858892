"""`pointsman serve`: answer requests over HTTP."""

import argparse
from typing import TYPE_CHECKING

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, settings_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers


def add_serve(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="answer requests over HTTP",
        description="Serve the OpenAI-style API. Bound to loopback and with no key created, requests need no key; "
        "otherwise `pointsman keys create` makes one. SIGTERM drains: running requests finish, new ones are refused.",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    add_model_arguments(parser)
    add_settings_arguments(parser)
    parser.set_defaults(run=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    for name, folder in (("small", settings.small_path), ("large", settings.large_path)):
        if not (folder / "config.json").is_file():
            raise CommandError(f"there is no {name} model in {folder}: --{name} takes a checkpoint folder")
    from gateway.app import create_app
    from gateway.drain import Drain
    from gateway.serving import serve

    drain = Drain(settings.shutdown_grace_s)
    try:
        serve(create_app(settings, drain=drain), drain, settings)
    except SystemExit as error:
        if error.code:
            raise CommandError("the server could not start; the lines above say why") from None
    return 0
