"""Lets requests in. Every route inherits the guard from the application, so a new one is closed unless it says `OPEN`.

Guards belong to routes, not to paths: no Host header or path trick gets round them.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.accounts.authenticator import Authenticator, Principal

OPEN = {"open": True}


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Put the request's Principal into the scope. Raises InvalidKey or KeysUnavailable."""
    if handler.opt.get("open"):
        return
    authenticator: Authenticator = connection.app.state.services.authenticator
    connection.scope["auth"] = await authenticator.authenticate(connection.headers.get("authorization"))


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Who the request comes from, as `require_key` found it."""
    principal: Principal = connection.scope["auth"]
    return principal
