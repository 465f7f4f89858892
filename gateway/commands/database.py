"""Short work on the database for a command, on an event loop of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.commands.arguments import CommandError
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade_async
from gateway.storage.protocols import RowsRefused, StorageUnavailable

T = TypeVar("T")


def with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` and return its result. An SQLite file is created and upgraded first; a shared database is not.

    Raises CommandError for a database that cannot be used, and for what `work` cannot find or do.
    """

    async def run() -> T:
        if settings.storage_url.startswith("sqlite"):
            await upgrade_async(settings.storage_url)
        database = Database(settings.storage_url, timeout_s=settings.storage.timeout_s)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (StorageUnavailable, RowsRefused, LookupError, ValueError) as error:
        raise CommandError(str(error.args[0] if error.args else error)) from error
