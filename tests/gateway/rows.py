"""Rows of a server's database, read from outside it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from gateway.cli import main
from gateway.storage.database import Database
from gateway.storage.models import Base
from tests.gateway.server import GatewayServer


def rows(url: str, table: type[Base]) -> list[dict[str, Any]]:
    """All rows of a table, oldest first."""

    async def read() -> list[dict[str, Any]]:
        database = Database(url)
        try:
            async with database.read() as connection:
                found = await connection.execute(select(table.__table__).order_by(table.__table__.c.created_at))
                return [dict(row) for row in found.mappings()]
        finally:
            await database.close()

    return asyncio.run(read())


def sqlite_url(server: GatewayServer) -> str:
    """Of the file that a server without a database of its own writes to."""
    return f"sqlite+aiosqlite:///{server.log.parent / 'pointsman.sqlite3'}"


def arrived(server: GatewayServer, url: str, table: type[Base], n: int) -> list[dict[str, Any]]:
    """The rows, once there are `n` of them; they are written behind the answers."""
    server.until(lambda: len(rows(url, table)) >= n)
    return rows(url, table)


def post(server: GatewayServer, path: str, body: object, **headers: str) -> Any:
    """POST JSON; the reply."""
    return server.fetch(path, json.dumps(body).encode(), headers)


def new_key(server: GatewayServer, arguments: Sequence[str], capsys: Any) -> str:
    """The secret of a new key of that server."""
    capsys.readouterr()
    assert main(["keys", "create", *arguments, "--data-dir", str(server.log.parent)]) == 0
    secret: str = capsys.readouterr().out.strip()
    return secret
