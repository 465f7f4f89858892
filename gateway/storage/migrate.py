"""Brings a database to the newest schema, and says whether it is there."""

import asyncio
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from gateway.storage.models import Base
from gateway.storage.protocols import StorageUnavailable


def upgrade(url: str, revision: str = "head") -> str:
    """`upgrade_async` for callers without an event loop."""
    return asyncio.run(upgrade_async(url, revision))


async def upgrade_async(url: str, revision: str = "head") -> str:
    """Bring the database at `url` to a revision and return the revision it has then; doing it again changes nothing.

    An SQLite file is created with its folder. Raises StorageUnavailable.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return str(await _run(url, _upgrade, revision))


async def downgrade_async(url: str, revision: str = "base") -> None:
    """Undo migrations down to a revision, all by default, and with them the data. Raises StorageUnavailable."""
    await _run(url, _downgrade, revision)


async def current_revision(url: str) -> str | None:
    """The revision that the database has; None for an empty one. Raises StorageUnavailable."""
    found = await _run(url, _current)
    return None if found is None else str(found)


async def differences(url: str) -> list[Any]:
    """What Alembic would change to fit the database to the models; empty when they agree."""
    found: list[Any] = await _run(url, _differences)
    return found


def head_revision() -> str:
    """The newest revision there is."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


async def _run(url: str, function: Any, *arguments: object) -> Any:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            result = await connection.run_sync(function, *arguments)
            await connection.commit()
            return result
    except OSError as error:
        raise StorageUnavailable(f"the database cannot be reached: {error.strerror or error}") from error
    except StatementError as error:
        raise StorageUnavailable(f"the database failed: {error.orig or error}") from error
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, revision: str) -> str | None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    return _current(connection)


def _downgrade(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))
