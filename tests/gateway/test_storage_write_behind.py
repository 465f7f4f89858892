"""Each row that was put arrives exactly once, whatever fails and whenever the process dies."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.storage.protocols import RowsRefused, StorageUnavailable
from gateway.storage.records import Record, RequestRecord
from gateway.storage.spool import Spool
from gateway.storage.write_behind import WriteBehind
from tests.gateway.waiting import until


class FakeTable:
    """A sink that keeps rows by id, counts arrivals, and can be made to fail before or after it has stored them."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Record] = {}
        self.away = False
        self.acknowledges = True
        self.refuses: set[UUID] = set()
        self.largest_batch = 0

    async def insert(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        self.largest_batch = max(self.largest_batch, len(records))
        if self.away:
            raise StorageUnavailable("away")
        if self.refuses & {record.id for record in records}:
            raise RowsRefused("never")
        for record in records:
            self.rows.setdefault(record.id, record)
        if not self.acknowledges:
            raise StorageUnavailable("the answer was lost")


def request(number: int = 0) -> RequestRecord:
    return RequestRecord(endpoint="/v1/chat/completions", model_requested=str(number), status=200)


def open_writer(folder: Path, sink: FakeTable, max_bytes: int = 1 << 20, overflow_rows: int = 0) -> WriteBehind:
    spool = Spool(folder, max_bytes=max_bytes, segment_bytes=900)
    return WriteBehind(sink, spool, flush_s=0.001, batch_rows=3, overflow_rows=overflow_rows)


def crash(writer: WriteBehind) -> None:
    """Let go of the folder as the death of the process would, writing nothing."""
    writer._spool.close()  # closes descriptors only


steps = st.lists(
    st.one_of(st.integers(1, 8), st.sampled_from(["flush", "crash", "away", "back", "unacknowledged", "acknowledged"])),
    max_size=25,
)


@given(steps)
@settings(max_examples=60)
def test_every_row_arrives_exactly_once(actions: list[int | str]) -> None:
    async def run(folder: Path) -> None:
        table = FakeTable()
        writer = open_writer(folder, table)
        put: list[RequestRecord] = []
        for action in actions:
            match action:
                case int():
                    for _ in range(action):
                        put.append(request(len(put)))
                        writer.put(put[-1])
                case "flush":
                    try:
                        await writer.flush()
                    except StorageUnavailable:
                        assert table.away or not table.acknowledges
                case "crash":
                    crash(writer)
                    writer = open_writer(folder, table)
                case "away" | "back":
                    table.away = action == "away"
                case _:
                    table.acknowledges = action == "acknowledged"
        table.away, table.acknowledges = False, True
        await writer.close()
        assert table.rows == {row.id: row for row in put}
        assert writer.spool_bytes == 0
        assert table.largest_batch <= 3

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
        assert not list(Path(folder).glob("*.rows"))


async def test_the_task_writes_by_itself_and_comes_back_after_an_outage(tmp_path: Path) -> None:
    table = FakeTable()
    writer = open_writer(tmp_path, table)
    writer.start()
    writer.put(request())
    await until(lambda: len(table.rows) == 1)
    table.away = True
    writer.put(request())
    await until(lambda: writer.stats.failures > 0)
    assert writer.spool_bytes > 0
    table.away = False
    await until(lambda: len(table.rows) == 2)
    await writer.close()
    assert (writer.stats.accepted, writer.stats.inserted, writer.stats.lost) == (2, 2, 0)


async def test_the_task_survives_a_sink_that_breaks_its_promise(tmp_path: Path) -> None:
    table = FakeTable()
    broken = True
    insert = table.insert

    async def sometimes(records: Sequence[Record]) -> None:
        if broken:
            raise KeyError("a fault in our own code")
        await insert(records)

    table.insert = sometimes  # type: ignore[method-assign]
    writer = open_writer(tmp_path, table)
    writer.start()
    writer.put(request())
    await until(lambda: writer.stats.failures > 0)
    broken = False
    await until(lambda: len(table.rows) == 1)
    await writer.close()


async def test_a_refused_row_is_set_aside_and_holds_up_no_other(tmp_path: Path) -> None:
    table = FakeTable()
    writer = open_writer(tmp_path, table)
    rows = [request(number) for number in range(7)]
    table.refuses = {rows[1].id, rows[5].id}
    for row in rows:
        writer.put(row)
    await writer.close()
    assert set(table.rows) == {row.id for row in rows} - table.refuses
    assert writer.stats.refused == 2
    assert (tmp_path / "refused.rows").stat().st_size > 0


async def test_a_damaged_segment_gives_what_it_can_and_is_kept(tmp_path: Path) -> None:
    table = FakeTable()
    writer = open_writer(tmp_path, table)
    rows = [request(number) for number in range(2)]
    for row in rows:
        writer.put(row)
    crash(writer)
    segment = tmp_path / "00000001.rows"
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.write_bytes(data)
    writer = open_writer(tmp_path, table)
    await writer.close()
    assert list(table.rows.values()) == rows[1:]
    assert writer.stats.damaged_bytes > 0
    assert segment.with_suffix(".damaged").read_bytes() == data


async def test_a_full_disk_falls_back_to_memory_and_then_counts_the_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = FakeTable()
    table.away = True
    writer = open_writer(tmp_path, table, max_bytes=1000, overflow_rows=2)
    for number in range(20):
        writer.put(request(number))
    assert 0 < writer.stats.lost < 18
    assert "lost" in caplog.text
    table.away = False
    await writer.close()
    assert len(table.rows) == 20 - writer.stats.lost


async def test_closing_while_the_database_is_away_keeps_the_rows(tmp_path: Path) -> None:
    table = FakeTable()
    table.away = True
    writer = open_writer(tmp_path, table)
    writer.start()
    row = request()
    writer.put(row)
    await writer.close(timeout_s=0.5)
    assert not table.rows
    table.away = False
    await open_writer(tmp_path, table).close()
    assert list(table.rows) == [row.id]
