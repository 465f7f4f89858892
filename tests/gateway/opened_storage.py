"""The storage parts put together as the gateway puts them together, on a given database and folder."""

from pathlib import Path

from gateway.storage.database import Database
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.sink import SqlRecordSink
from gateway.storage.spool import Spool
from gateway.storage.write_behind import WriteBehind


class OpenedStorage:
    """A database, its keys and a running write-behind queue."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url, timeout_s=1.0)
        self.keys = SqlKeyRepository(self.database)
        spool = Spool(folder / "spool", max_bytes=1 << 26)
        self.records = WriteBehind(SqlRecordSink(self.database), spool, flush_s=0.01)
        self.records.start()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left, then close."""
        await self.records.close(timeout_s)
        await self.database.close()
