"""Reads the routing report's rows."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from gateway.reports.routing import RoutedRequest, RoutingReport, summarise
from gateway.storage.database import Database
from gateway.storage.models import DecisionRow, RequestRow

_COLUMNS = DecisionRow.__table__.c
_REQUESTS = RequestRow.__table__
_OF_REQUEST = ("drafted_tokens", "accepted_tokens")


async def load_requests(database: Database, since: datetime | None, until: datetime) -> list[RoutedRequest]:
    """Decisions with an outcome, made in [since, until). Raises StorageUnavailable.

    A decision counts without its request's row, which may still wait in a spool: it then has no drafts.
    """
    fields = [_COLUMNS[name] for name in RoutedRequest.__struct_fields__ if name not in ("model", *_OF_REQUEST)]
    fields += [func.coalesce(_REQUESTS.c[name], 0).label(name) for name in _OF_REQUEST]
    query = (
        select(_COLUMNS.model_served.label("model"), *fields)
        .select_from(DecisionRow.__table__.outerjoin(_REQUESTS, _REQUESTS.c.id == _COLUMNS.request_id))
        .where(_COLUMNS.model_served.is_not(None), _COLUMNS.shadow.is_(False), _COLUMNS.created_at < until)
    )
    if since is not None:
        query = query.where(_COLUMNS.created_at >= since)
    async with database.read() as connection:
        return [RoutedRequest(**row) for row in (await connection.execute(query)).mappings()]


async def routing_report(database: Database, period: timedelta | None = None) -> RoutingReport:
    """The report over the last `period`, or over everything. Raises StorageUnavailable."""
    until = datetime.now(UTC)
    since = None if period is None else until - period
    return summarise(await load_requests(database, since, until), since=since, until=until)
