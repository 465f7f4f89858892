"""What the rest of the gateway needs of storage, without naming a database."""

from collections.abc import Sequence
from typing import Protocol

from gateway.storage.records import KeyRecord, Record


class StorageError(Exception):
    """Base of what storage tells its callers."""


class StorageUnavailable(StorageError):
    """The database could not be reached or did not answer in time. Trying again later may help."""


class RowsRefused(StorageError):
    """The database answers, but will never take these rows."""


class KeyRepository(Protocol):
    """Stored API keys. Every method raises StorageUnavailable."""

    async def add(self, key: KeyRecord) -> None:
        """Store a new key."""

    async def by_hash(self, digest: str) -> KeyRecord | None:
        """The key with this hash, revoked or not."""

    async def all(self) -> list[KeyRecord]:
        """Every key, oldest first."""

    async def revoke(self, prefix_or_id: str) -> KeyRecord:
        """Revoke the one key with this id or this display prefix; revoking twice changes nothing.

        Raises LookupError when there is none, or more than one.
        """

    async def any_created(self) -> bool:
        """Whether a key was ever created, revoked ones included."""


class RecordSink(Protocol):
    """Where finished requests and decisions go."""

    async def insert(self, records: Sequence[Record]) -> None:
        """Insert all or nothing; a record whose id is already there is left as it is.

        Raises StorageUnavailable, or RowsRefused when one of the records can never be stored.
        """


class Recorder(Protocol):
    """What a request handler sees: it hands a record over and goes on."""

    def put(self, record: Record) -> None:
        """Take a record. Never waits for the database and never raises because of it."""
