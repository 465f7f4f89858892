"""`pointsman keys`: create, list and revoke API keys."""

import argparse
import sys
from typing import TYPE_CHECKING

from gateway.commands.arguments import add_model_arguments, add_settings_arguments, settings_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers


def add_keys(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser("keys", help="create, list and revoke API keys")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key; its secret is printed once and never again")
    create.add_argument("name", help="who will use it, for example a service")
    create.add_argument(
        "--router-admin",
        action="store_true",
        help="the key may also change how requests are routed, and read reports over all keys",
    )
    listing = actions.add_parser("list", help="show all keys, without their secrets")
    revoke = actions.add_parser("revoke", help="end a key; running servers notice within seconds")
    revoke.add_argument("key", help="its id, or its first characters as `keys list` shows them")
    for action, run in ((create, _create), (listing, _list), (revoke, _revoke)):
        add_settings_arguments(action)
        add_model_arguments(action, hidden=True)
        action.set_defaults(run=run)


def _create(parsed: argparse.Namespace) -> int:
    from gateway.accounts.keys import create_key
    from gateway.commands.database import with_database
    from gateway.storage.keys import SqlKeyRepository

    settings = settings_of(parsed)
    pepper = settings.accounts.key_pepper
    key = with_database(
        settings,
        lambda database: create_key(SqlKeyRepository(database), parsed.name, pepper, router_admin=parsed.router_admin),
    )
    print(key.secret.reveal())
    print(f"Keep it: it is not shown again. Requests need a key from now on. (id {key.record.id})", file=sys.stderr)
    return 0


def _list(parsed: argparse.Namespace) -> int:
    from gateway.commands.database import with_database
    from gateway.storage.keys import SqlKeyRepository

    keys = with_database(settings_of(parsed), lambda database: SqlKeyRepository(database).all())
    for key in keys:
        state = "active" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d %H:%M}Z"
        role = "  (router admin)" if key.router_admin else ""
        print(f"{key.prefix}  {key.id}  {key.created_at:%Y-%m-%d %H:%M}Z  {state}  {key.name}{role}")
    if not keys:
        print("There are no keys: requests need none while the server is bound to loopback.", file=sys.stderr)
    return 0


def _revoke(parsed: argparse.Namespace) -> int:
    from gateway.commands.database import with_database
    from gateway.storage.keys import SqlKeyRepository

    key = with_database(settings_of(parsed), lambda database: SqlKeyRepository(database).revoke(parsed.key))
    print(f"revoked {key.prefix} ({key.name})")
    return 0
