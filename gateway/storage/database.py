"""The connection to SQLite or PostgreSQL: pool, pragmas, time limits, one writer, errors in our own words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.storage.protocols import RowsRefused, StorageUnavailable


class Database:
    """An engine and its rules. Close it on the event loop that used it.

    SQLite runs in WAL mode, so that readers never wait, and takes one write transaction at a time from this process;
    other processes (`pointsman keys`) are waited for by busy_timeout. PostgreSQL needs neither.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, synchronous: str = "normal") -> None:
        """url: SQLAlchemy URL with an asynchronous driver; timeout_s: for connecting and for every transaction."""
        parsed = make_url(url)
        self.dialect = parsed.get_backend_name()
        self._timeout_s = timeout_s
        self._writer = asyncio.Lock()
        if self.dialect == "sqlite":
            self._engine = create_async_engine(parsed, connect_args={"timeout": timeout_s})
            event.listen(self._engine.sync_engine, "connect", _sqlite_pragmas(timeout_s, synchronous))
        else:
            self._engine = create_async_engine(
                parsed, pool_pre_ping=True, pool_size=4, connect_args={"timeout": timeout_s}
            )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises StorageUnavailable."""
        async with _in_our_words(self._timeout_s), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed when the block ends well. Raises StorageUnavailable or RowsRefused."""
        async with _in_our_words(self._timeout_s):
            if self.dialect != "sqlite":
                async with self._engine.begin() as connection:
                    yield connection
                return
            async with self._writer, self._engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _sqlite_pragmas(timeout_s: float, synchronous: str) -> Any:
    def set_pragmas(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if synchronous == 'full' else 'NORMAL'}")
        cursor.execute(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
        cursor.close()

    return set_pragmas


@asynccontextmanager
async def _in_our_words(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise StorageUnavailable(f"the database did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise StorageUnavailable(f"the database cannot be reached: {error.strerror or error}") from error
    except OverflowError as error:  # SQLite's driver, for a number that fits no column; asyncpg wraps its own
        raise RowsRefused(f"the database refuses the row: {error}") from error
    except StatementError as error:
        if _blames_row(error):
            raise RowsRefused(f"the database refuses the row: {_short(error)}") from error
        hint = "; run `pointsman migrate`" if _lacks_table(error) else ""
        raise StorageUnavailable(f"the database failed: {_short(error)}{hint}") from error


def _blames_row(error: StatementError) -> bool:
    """Whether the values are at fault, so that trying again is of no use."""
    if not isinstance(error, DBAPIError):
        return True  # a Python value that its column type could not convert
    if isinstance(error, IntegrityError | DataError):
        return True
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    # Classes 22 and 23 are data exceptions and integrity violations. What asyncpg cannot encode is a ValueError.
    return sqlstate[:2] in ("22", "23") or isinstance(getattr(error.orig, "__cause__", None), ValueError)


def _lacks_table(error: StatementError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "42P01" or "no such table" in str(error.orig)


def _short(error: StatementError) -> str:
    """The driver's message only: SQLAlchemy's own quotes the parameters."""
    lines = str(error.orig or error).splitlines()
    return lines[0] if lines else type(error).__name__
