"""The migrations lead to what the models say, on both databases."""

import asyncio
import subprocess
import sys

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.storage import migrate
from gateway.storage.database import Database
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.protocols import StorageUnavailable


async def tables(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    await engine.dispose()
    return found


async def test_migrated_database_agrees_with_the_models(empty_url: str) -> None:
    assert await migrate.differences(empty_url), "an empty database must differ, or this test shows nothing"
    assert await migrate.upgrade_async(empty_url) == migrate.head_revision()
    assert await migrate.differences(empty_url) == []


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    assert await migrate.current_revision(empty_url) is None
    first = await migrate.upgrade_async(empty_url)
    assert await migrate.upgrade_async(empty_url) == first == await migrate.current_revision(empty_url)


async def test_every_revision_can_be_undone(empty_url: str) -> None:
    await migrate.upgrade_async(empty_url)
    assert {"api_keys", "requests", "decisions", "outcomes"} <= await tables(empty_url)
    await migrate.downgrade_async(empty_url)
    assert await tables(empty_url) == {"alembic_version"}
    await migrate.upgrade_async(empty_url)
    assert await migrate.differences(empty_url) == []


async def test_two_gateways_may_migrate_at_once(postgres_database_url: str) -> None:
    await migrate.downgrade_async(postgres_database_url)
    program = "import sys; from gateway.storage.migrate import upgrade; print(upgrade(sys.argv[1]))"
    both = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, postgres_database_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in both:
        output, errors = await process.communicate()
        assert output.decode().strip() == migrate.head_revision(), errors.decode()
    assert await migrate.differences(postgres_database_url) == []


async def test_a_database_that_was_not_migrated_says_so(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(StorageUnavailable, match="pointsman migrate"):
        await SqlKeyRepository(database).all()
    await database.close()
