"""Alembic migrations; applied by `pointsman migrate`, which calls `gateway.storage.migrate`."""
