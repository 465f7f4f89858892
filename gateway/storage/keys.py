"""API keys in the database."""

import uuid
from datetime import UTC, datetime

from sqlalchemy import Row, insert, or_, select, update

from gateway.storage.database import Database
from gateway.storage.models import ApiKeyRow
from gateway.storage.protocols import KeyRepository
from gateway.storage.records import KeyRecord

_TABLE = ApiKeyRow.__table__


class SqlKeyRepository(KeyRepository):
    """The `api_keys` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: KeyRecord) -> None:
        """Store a new key. Raises RowsRefused when its id or hash is taken."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(ApiKeyRow).values({name: getattr(key, name) for name in key.__struct_fields__})
            )

    async def by_hash(self, digest: str) -> KeyRecord | None:
        """The key with this hash, revoked or not."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(_TABLE).where(ApiKeyRow.hash == digest))).one_or_none()
        return None if row is None else _record(row)

    async def all(self) -> list[KeyRecord]:
        """Every key, oldest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(_TABLE).order_by(ApiKeyRow.created_at, ApiKeyRow.id))).all()
        return [_record(row) for row in rows]

    async def revoke(self, prefix_or_id: str) -> KeyRecord:
        """Revoke the one key with this id or display prefix. Raises LookupError for none or several."""
        wanted = ApiKeyRow.prefix == prefix_or_id
        if (identifier := _as_id(prefix_or_id)) is not None:
            wanted = or_(wanted, ApiKeyRow.id == identifier)
        async with self._database.read() as connection:
            rows = (await connection.execute(select(_TABLE).where(wanted))).all()
        if not rows:
            raise LookupError(f"no key has the id or prefix {prefix_or_id!r}: `pointsman keys list` shows them")
        if len(rows) > 1:
            raise LookupError(f"{len(rows)} keys have the prefix {prefix_or_id!r}: name one by its id")
        key = _record(rows[0])
        if key.revoked_at is not None:
            return key
        async with self._database.write() as connection:
            await connection.execute(
                update(ApiKeyRow)
                .where(ApiKeyRow.id == key.id, ApiKeyRow.revoked_at.is_(None))
                .values(revoked_at=datetime.now(UTC))
            )
            row = (await connection.execute(select(_TABLE).where(ApiKeyRow.id == key.id))).one()
        return _record(row)

    async def any_created(self) -> bool:
        """Whether a key was ever created, revoked ones included."""
        async with self._database.read() as connection:
            return (await connection.execute(select(ApiKeyRow.id).limit(1))).first() is not None


def _record(row: Row[tuple[object, ...]]) -> KeyRecord:
    return KeyRecord(**row._mapping)


def _as_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
