"""Rows travel to the database behind the answers, through a spool on disk that is also the queue.

    put(record) -> spool (one write) ........ every flush_s: read a segment, insert in batches, delete the segment

One path serves all days: while the database is away segments pile up and nothing else changes; after a crash the
segments that are left are inserted at the next start. A segment is deleted only after its rows were committed, and ids
are unique, so each row arrives exactly once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.storage.protocols import Recorder, RecordSink, RowsRefused, StorageUnavailable
from gateway.storage.records import Record
from gateway.storage.spool import Spool, read_segment

_LOG = logging.getLogger(__name__)
_MAX_BACKOFF_S = 5.0


class WriteBehindStats(msgspec.Struct):
    """Counters since start. lost: rows that fit neither on disk nor in memory; anything but 0 needs attention."""

    accepted: int = 0
    inserted: int = 0
    refused: int = 0
    lost: int = 0
    failures: int = 0
    damaged_bytes: int = 0


class WriteBehind(Recorder):
    """Owns the spool and the task that empties it. Use from one event loop."""

    def __init__(
        self,
        sink: RecordSink,
        spool: Spool,
        *,
        flush_s: float = 0.1,
        batch_rows: int = 200,
        overflow_rows: int = 10_000,
    ) -> None:
        """flush_s: seconds that rows are gathered; overflow_rows: kept in memory while the spool cannot be written."""
        self._sink, self._spool = sink, spool
        self._flush_s, self._batch_rows, self._overflow_rows = flush_s, batch_rows, overflow_rows
        self._overflow: list[Record] = []
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.stats = WriteBehindStats()

    @property
    def spool_bytes(self) -> int:
        """Bytes that wait on disk."""
        return self._spool.n_bytes

    def put(self, record: Record) -> None:
        """Take a record. Never waits for the database and never raises because of it or of the disk."""
        self.stats.accepted += 1
        try:
            self._spool.append(record)
        except (OSError, ValueError) as error:  # the disk, or text that is not Unicode, which the table's columns mend
            if len(self._overflow) < self._overflow_rows:
                self._overflow.append(record)
            else:
                self.stats.lost += 1
                _LOG.error("a %s row is lost: %s, and memory holds all it may", _tag(record), error)
        self._wake.set()

    def start(self) -> None:
        """Begin to write; what an earlier process left in the spool comes first."""
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="write-behind")

    async def flush(self) -> None:
        """Insert everything that was put before the call. Raises StorageUnavailable."""
        async with self._flushing:
            for segment in self._spool.sealed():
                await self._insert_segment(segment)
            if (last := self._spool.seal()) is not None:
                await self._insert_segment(last)
            while batch := self._overflow[: self._batch_rows]:
                await self._insert(batch)
                del self._overflow[: len(batch)]

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop, and insert what is left; rows that cannot be inserted in time stay in the spool for the next start."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except (TimeoutError, StorageUnavailable, OSError) as error:
            await self._spool.sync()
            _LOG.warning("%d bytes of rows stay in the spool: %s", self._spool.n_bytes, error)
            if self._overflow:
                self.stats.lost += len(self._overflow)
                _LOG.error("%d rows are lost: neither the database nor the spool took them", len(self._overflow))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._spool.close()

    async def _run(self) -> None:
        delay_s = self._flush_s
        while True:
            await self._wake.wait()
            await asyncio.sleep(delay_s)
            self._wake.clear()
            try:
                await self.flush()
            except Exception as error:  # this task must outlive whatever goes wrong: rows are safe in the spool
                self.stats.failures += 1
                if delay_s == self._flush_s:
                    expected = isinstance(error, StorageUnavailable | OSError)
                    _LOG.warning("rows are kept in the spool: %s", error, exc_info=None if expected else error)
                delay_s = min(max(2 * delay_s, 0.2), _MAX_BACKOFF_S)
                self._wake.set()
                with contextlib.suppress(OSError):
                    await self._spool.sync()
            else:
                if delay_s != self._flush_s:
                    _LOG.warning("the database is back; the spool is empty")
                delay_s = self._flush_s

    async def _insert_segment(self, path: Path) -> None:
        segment = await asyncio.to_thread(read_segment, path)
        for start in range(0, len(segment.records), self._batch_rows):
            await self._insert(segment.records[start : start + self._batch_rows])
        if segment.damaged_bytes:
            self.stats.damaged_bytes += segment.damaged_bytes
            _LOG.error("%d bytes of %s are damaged; it is kept as *.damaged", segment.damaged_bytes, path)
        self._spool.remove(path, damaged=segment.damaged_bytes > 0)

    async def _insert(self, batch: Sequence[Record]) -> None:
        try:
            await self._sink.insert(batch)
        except RowsRefused as error:
            if len(batch) > 1:  # find the one to blame, so that it does not hold up the others
                for record in batch:
                    await self._insert([record])
                return
            self.stats.refused += 1
            self._spool.refuse(batch[0])
            _LOG.error("a %s row is put aside in refused.rows: %s", _tag(batch[0]), error)
        else:
            self.stats.inserted += len(batch)


def _tag(record: Record) -> str:
    return str(record.__struct_config__.tag)
