"""`pointsman report`: what was recorded, as tables, JSON or CSV."""

import argparse
from typing import TYPE_CHECKING

from gateway.commands.arguments import add_model_arguments, add_settings_arguments, period, settings_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers


def add_report(commands: "Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser("report", help="what the records say")
    reports = parser.add_subparsers(dest="report", required=True, metavar="REPORT")
    routing = reports.add_parser(
        "routing",
        help="which model answered, why, what it cost and what routing saved",
        description="Routing decisions with cost, time to first token and quality, against the large model alone.",
    )
    routing.add_argument("--since", type=period, metavar="PERIOD", help="such as 90m, 24h, 7d (default: everything)")
    routing.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    add_settings_arguments(routing)
    add_model_arguments(routing, hidden=True)
    routing.set_defaults(run=_routing)


def _routing(parsed: argparse.Namespace) -> int:
    from gateway.commands.database import with_database
    from gateway.reports.query import routing_report
    from gateway.reports.render import render_report

    report = with_database(settings_of(parsed), lambda database: routing_report(database, parsed.since))
    print(render_report(report, parsed.format), end="")
    return 0
