"""Brings a database to the newest schema."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from gateway.storage.protocols import StorageUnavailable


def upgrade(url: str) -> str:
    """`upgrade_async` for callers without an event loop."""
    return asyncio.run(upgrade_async(url))


async def upgrade_async(url: str) -> str:
    """Bring the database at `url` to the newest revision and return that; doing it again changes nothing.

    An SQLite file is created with its folder. Raises StorageUnavailable.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            now = await connection.run_sync(_upgrade)
            await connection.commit()
            return str(now)
    except OSError as error:
        raise StorageUnavailable(f"the database cannot be reached: {error.strerror or error}") from error
    except StatementError as error:
        raise StorageUnavailable(f"the database failed: {error.orig or error}") from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> str | None:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return MigrationContext.configure(connection).get_current_revision()
