"""Databases for the storage suite: a fresh, migrated one for each test, on SQLite and on a real PostgreSQL server.

PostgreSQL is the server that POINTSMAN_TEST_POSTGRES_URL names, else one that the session starts from installed
binaries.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from tests.gateway.live_world import live_pair, world
from tests.gateway.postgres_server import PostgresServer, find_binaries
from tests.gateway.server import checkpoints, collector, judging_router, routed_server, router_folder, server

__all__ = [
    "checkpoints",
    "collector",
    "judging_router",
    "live_pair",
    "routed_server",
    "router_folder",
    "server",
    "world",
]


def _administer(url: str, statement: str) -> None:
    async def run() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(run())


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a maintenance database on a running server."""
    if given := os.environ.get("POINTSMAN_TEST_POSTGRES_URL"):
        yield make_url(given).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        return
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: install Debian's postgresql, or set POINTSMAN_TEST_POSTGRES_URL")
    server = PostgresServer(binaries)
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database to copy."""
    name = f"template_{uuid.uuid4().hex}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    upgrade(_named(postgres_url, name))
    yield name
    _administer(postgres_url, f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("template") / "template.sqlite3"
    upgrade(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}")
    yield _named(server, name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_database_url(postgres_url: str, migrated_postgres: str) -> Iterator[str]:
    """URL of a migrated PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {migrated_postgres}")
    yield _named(postgres_url, name)
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """URL of a migrated SQLite database."""
    path = tmp_path / "test.sqlite3"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a migrated database, once of each kind."""
    name = "sqlite_database_url" if request.param == "sqlite" else "postgres_database_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database, once of each kind."""
    opened = Database(database_url)
    yield opened
    await opened.close()
