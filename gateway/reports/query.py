"""Reads the routing report's rows."""

from datetime import UTC, datetime, timedelta

from gateway.reports.facts import load_facts
from gateway.reports.routing import RoutedRequest, RoutingReport, summarise
from gateway.storage.database import Database


async def load_requests(database: Database, since: datetime | None, until: datetime) -> list[RoutedRequest]:
    """Decisions with an outcome, made in [since, until). Raises StorageUnavailable."""
    facts = await load_facts(database, since=since, until=until, limit=None)
    return [one.routed_request() for one in facts]


async def routing_report(database: Database, period: timedelta | None = None) -> RoutingReport:
    """The report over the last `period`, or over everything. Raises StorageUnavailable."""
    until = datetime.now(UTC)
    since = None if period is None else until - period
    return summarise(await load_requests(database, since, until), since=since, until=until)
