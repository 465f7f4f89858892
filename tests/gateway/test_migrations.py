"""The migrations lead to what the models say, on both databases."""

import asyncio
import subprocess
import sys

import pytest

from gateway.storage.database import Database
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.migrate import upgrade_async
from gateway.storage.protocols import StorageUnavailable
from tests.gateway.migrated import differences, newest_revision, revision_of, tables_of, undo_all


async def test_migrated_database_agrees_with_the_models(empty_url: str) -> None:
    assert await differences(empty_url), "an empty database must differ, or this test shows nothing"
    assert await upgrade_async(empty_url) == newest_revision()
    assert await differences(empty_url) == []


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    assert await revision_of(empty_url) is None
    first = await upgrade_async(empty_url)
    assert await upgrade_async(empty_url) == first == await revision_of(empty_url)


async def test_every_revision_can_be_undone(empty_url: str) -> None:
    await upgrade_async(empty_url)
    assert {"api_keys", "requests", "decisions", "outcomes"} <= await tables_of(empty_url)
    await undo_all(empty_url)
    assert await tables_of(empty_url) == {"alembic_version"}
    await upgrade_async(empty_url)
    assert await differences(empty_url) == []


async def test_two_gateways_may_migrate_at_once(postgres_database_url: str) -> None:
    await undo_all(postgres_database_url)
    program = "import sys; from gateway.storage.migrate import upgrade; print(upgrade(sys.argv[1]))"
    both = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, postgres_database_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in both:
        output, errors = await process.communicate()
        assert output.decode().strip() == newest_revision(), errors.decode()
    assert await differences(postgres_database_url) == []


async def test_a_database_that_was_not_migrated_says_so(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(StorageUnavailable, match="pointsman migrate"):
        await SqlKeyRepository(database).all()
    await database.close()
