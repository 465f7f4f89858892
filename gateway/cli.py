"""The `pointsman` command. Exit codes: 0 done, 1 the work failed, 2 the command or the settings are wrong."""

import argparse
import sys
from collections.abc import Sequence

from gateway.commands.arguments import CommandError
from gateway.commands.demo import add_demo
from gateway.commands.keys import add_keys
from gateway.commands.migrate import add_migrate
from gateway.commands.report import add_report
from gateway.commands.router import add_router
from gateway.commands.serve import add_serve
from gateway.settings import SettingsError

PROG = "pointsman"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. arguments: without the program's name; None is the command line."""
    parsed = build_parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except (CommandError, SettingsError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def build_parser() -> argparse.ArgumentParser:
    """The command line. What does the work is imported when it is needed, so that help comes at once."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="A self-hosted gateway for structured generation: learned routing, an embedded engine, "
        "guaranteed constraints.",
        epilog="Settings come from the command line, POINTSMAN_* variables, one TOML file (--config) and defaults, in "
        "this order; docs/settings.md lists them all.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (add_serve, add_demo, add_migrate, add_keys, add_report, add_router):
        add(commands)
    return parser
