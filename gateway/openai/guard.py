"""Lets requests in. Every route inherits the guard from the application, so a new one is closed unless it says `OPEN`.

A route that concerns all keys asks `operator_of` besides.
Guards belong to routes, not to paths: no Host header or path trick gets round them.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.accounts.authenticator import Authenticator, Principal
from gateway.openai.errors import ApiError

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


def operator_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Likewise, where it may change routing or read what was measured over all keys. Raises ApiError 403."""
    principal = principal_of(connection)
    if not principal.may_operate:
        message = "This key may not operate the router: `pointsman keys create NAME --router-admin` makes one that may."
        raise ApiError(403, "permission_denied", message)
    return principal
