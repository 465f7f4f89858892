"""Alembic's entry point. The connection comes from `gateway.storage.migrate`: no migration runs any other way."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import text

from gateway.storage.columns import CleanText, UtcDateTime
from gateway.storage.models import Base

# Any constant will do; it keeps two gateways that start at once from migrating at once.
_LOCK = 0x706F696E74


def run() -> None:
    """Apply the requested revisions in one transaction."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_item=_render_item,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter a column in place
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.run_migrations()


def _render_item(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Our column types as what they are in the database: a revision must not change when `columns` does."""
    if kind == "type" and isinstance(item, CleanText):
        return "sa.Text()"
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


run()
