"""Everything that the gateway needs of storage, opened and closed together."""

from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.protocols import KeyRepository
from gateway.storage.sink import SqlRecordSink
from gateway.storage.spool import Spool
from gateway.storage.write_behind import WriteBehind


class Store:
    """The database, its repositories and the write-behind queue, as the settings say.

    Opening needs no database, only a folder for the spool: the gateway starts, and serves, while the database is away.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises SpoolError when the data folder is in use or cannot be written."""
        storage = settings.storage
        spool = Spool(settings.spool_dir, max_bytes=storage.spool_bytes)
        self.database = Database(
            settings.storage_url, timeout_s=storage.timeout_s, synchronous=storage.sqlite_synchronous
        )
        self.keys: KeyRepository = SqlKeyRepository(self.database)
        self.records = WriteBehind(
            SqlRecordSink(self.database),
            spool,
            flush_s=storage.flush_s,
            batch_rows=storage.batch_rows,
            overflow_rows=storage.overflow_rows,
        )

    async def start(self) -> None:
        """Begin to write records."""
        self.records.start()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left, within the time, and close every connection."""
        await self.records.close(timeout_s)
        await self.database.close()
