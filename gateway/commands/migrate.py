"""`pointsman migrate`: bring the database to the newest schema."""

import argparse
from typing import TYPE_CHECKING

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, settings_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers


def add_migrate(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "migrate",
        help="bring the database to the newest schema",
        description="Create or upgrade the tables. Safe to run again, and from several places at once.",
    )
    add_settings_arguments(parser)
    add_model_arguments(parser, hidden=True)
    parser.set_defaults(run=_migrate)


def _migrate(parsed: argparse.Namespace) -> int:
    from gateway.storage.migrate import upgrade
    from gateway.storage.protocols import StorageUnavailable

    try:
        revision = upgrade(settings_of(parsed).storage_url)
    except StorageUnavailable as error:
        raise CommandError(str(error)) from error
    print(f"the database is at revision {revision}")
    return 0
