"""Real outages: a cut connection, a locked file, a killed process. The rows arrive exactly once all the same."""

import asyncio
import random
import signal
import sqlite3
import sys
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from gateway.storage.database import Database
from gateway.storage.models import RequestRow
from gateway.storage.protocols import StorageUnavailable
from gateway.storage.records import RequestRecord
from tests.gateway.cuttable_proxy import proxied
from tests.gateway.opened_storage import OpenedStorage
from tests.gateway.waiting import until

ROOT = Path(__file__).parents[2]


def request() -> RequestRecord:
    return RequestRecord(endpoint="/v1/chat/completions", model_requested="auto", status=200)


async def stored_ids(url: str) -> list[UUID]:
    database = Database(url)
    async with database.read() as connection:
        ids = list(await connection.scalars(select(RequestRow.id)))
    await database.close()
    return ids


async def test_rows_put_during_a_cut_arrive_once_it_is_mended(postgres_database_url: str, tmp_path: Path) -> None:
    async with proxied(postgres_database_url) as (proxy, url):
        store = OpenedStorage(url, tmp_path)
        rows = [request() for _ in range(30)]
        store.records.put(rows[0])
        await until(lambda: store.records.stats.inserted == 1)
        await proxy.cut()
        for row in rows[1:]:
            store.records.put(row)
            await asyncio.sleep(0.002)
        await until(lambda: store.records.stats.failures > 0)
        with pytest.raises(StorageUnavailable):
            await store.keys.any_created()
        await proxy.mend()
        await until(lambda: store.records.stats.inserted == len(rows))
        assert store.records.spool_bytes == 0
        await store.close()
    assert sorted(await stored_ids(postgres_database_url)) == sorted(row.id for row in rows)


async def test_the_store_opens_and_takes_rows_without_a_database(postgres_database_url: str, tmp_path: Path) -> None:
    row = request()
    async with proxied(postgres_database_url) as (proxy, url):
        await proxy.cut()
        store = OpenedStorage(url, tmp_path)
        store.records.put(row)
        await store.close(timeout_s=0.5)
        assert await stored_ids(postgres_database_url) == []
        await proxy.mend()
        store = OpenedStorage(url, tmp_path)
        await store.close()
    assert await stored_ids(postgres_database_url) == [row.id]


async def test_rows_wait_while_another_process_holds_the_sqlite_file(sqlite_database_url: str, tmp_path: Path) -> None:
    store = OpenedStorage(sqlite_database_url, tmp_path)
    holder = sqlite3.connect(sqlite_database_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    row = request()
    store.records.put(row)
    await until(lambda: store.records.stats.failures > 0)
    holder.execute("ROLLBACK")
    holder.close()
    await until(lambda: store.records.stats.inserted == 1)
    await store.close()
    assert await stored_ids(sqlite_database_url) == [row.id]


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.storage.records import RequestRecord
from tests.gateway.opened_storage import OpenedStorage

async def main() -> None:
    store = OpenedStorage(sys.argv[1], Path(sys.argv[2]))
    while True:
        record = RequestRecord(endpoint="/v1/chat/completions", model_requested="auto", status=200)
        store.records.put(record)
        print(record.id, flush=True)
        await asyncio.sleep(0.0005)

asyncio.run(main())
"""


async def test_a_killed_process_loses_no_row_that_it_had_taken(database_url: str, tmp_path: Path) -> None:
    reported: list[UUID] = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, database_url, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        before_kill = random.randrange(20, 200)
        lines = [await process.stdout.readline() for _ in range(before_kill)]
        process.send_signal(signal.SIGKILL)
        lines += (await process.stdout.read()).splitlines(keepends=True)
        reported += [UUID(line.decode().strip()) for line in lines if line.endswith(b"\n")]
        await process.wait()
    store = OpenedStorage(database_url, tmp_path)
    await store.close()
    found = await stored_ids(database_url)
    assert len(found) == len(set(found))
    missing = set(reported) - set(found)
    assert not missing, f"{len(missing)} of {len(reported)} rows were taken and lost"
    # At most the one row that each process had put and not yet reported when it was killed.
    assert len(set(found) - set(reported)) <= 2
