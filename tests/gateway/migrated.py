"""What the migrations made of a database, as Alembic sees it."""

from collections.abc import Callable
from typing import Any, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from gateway.storage.models import Base

T = TypeVar("T")


def newest_revision() -> str | None:
    """The newest revision there is."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def revision_of(url: str) -> str | None:
    """The revision that the database has; None for an empty one."""
    return await _seen(url, lambda connection: MigrationContext.configure(connection).get_current_revision())


async def tables_of(url: str) -> set[str]:
    """The names of its tables."""
    return await _seen(url, lambda connection: set(inspect(connection).get_table_names()))


async def differences(url: str) -> list[Any]:
    """What Alembic would change to fit the database to the models; empty when they agree."""

    def found(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    return await _seen(url, found)


async def undo_all(url: str) -> None:
    """Undo every migration, and with them the data."""

    def downgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    await _seen(url, downgrade)


async def _seen(url: str, look: Callable[[Connection], T]) -> T:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(look)
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    config.set_main_option("path_separator", "os")
    return config
