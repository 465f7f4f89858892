"""Inserts finished requests and decisions, each exactly once."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from gateway.storage.database import Database
from gateway.storage.models import ROWS, row_of
from gateway.storage.protocols import RecordSink
from gateway.storage.records import Record


class SqlRecordSink(RecordSink):
    """The `requests` and `decisions` tables. Ids are made by the gateway, so that inserting again changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert: Any = sqlite.insert if database.dialect == "sqlite" else postgresql.insert

    async def insert(self, records: Sequence[Record]) -> None:
        """Insert all or nothing. Raises StorageUnavailable or RowsRefused."""
        async with self._database.write() as connection:
            for kind, row in ROWS.items():
                values = [row_of(record) for record in records if type(record) is kind]
                if values:
                    statement = self._insert(row.__table__).on_conflict_do_nothing(index_elements=["id"])
                    await connection.execute(statement, values)
