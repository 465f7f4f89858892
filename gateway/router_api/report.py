"""`GET /v1/router/report`: what routing did, saved and cost in quality, as JSON or as one page of HTML."""

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar import Request, Response, get

from gateway.openai.errors import ApiError, bad_request
from gateway.openai.guard import principal_of
from gateway.reports.facts import load_facts
from gateway.reports.page import render_page
from gateway.reports.period import parse_period
from gateway.reports.router_report import InForce, router_report
from gateway.routing.router import policy_name
from gateway.routing.rule import POLICY
from gateway.services import Services
from gateway.storage.protocols import StorageUnavailable
from router_model.drift import DriftState

log = logging.getLogger(__name__)

# Nothing in the page is fetched and nothing runs, whatever a name in it says.
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


@get("/v1/router/report")
async def show_report(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Over the caller's own requests; over everybody's for a key that may operate the router.

    Query: `since` (a period such as 24h or 7d; everything without it) and `format` (`json` or `html`).
    """
    services: Services = request.app.state.services
    since_text, form = _asked(request)
    until = datetime.now(UTC)
    since = None if since_text is None else until - period_of(since_text)
    principal = principal_of(request)
    key_id, scope = (None, "all keys") if principal.may_operate else (principal.key_id, f"key {principal.name}")
    async with services.reports:
        try:
            facts = await load_facts(services.database, since=since, until=until, key_id=key_id)
        except StorageUnavailable as error:
            raise storage_away(error) from error
        routes = None if principal.may_operate else {one.route for one in facts}
        report = await asyncio.to_thread(
            router_report, facts, in_force(services, routes), since=since, until=until, scope=scope
        )
    if form == "html":
        page = await asyncio.to_thread(render_page, report)
        headers = {"content-security-policy": _PAGE_POLICY, "x-content-type-options": "nosniff"}
        return Response(page.encode(), media_type="text/html", headers=headers)
    return Response(msgspec.json.encode(report), media_type="application/json")


def _asked(request: Request[Any, Any, Any]) -> tuple[str | None, str]:
    """The query. Raises ApiError 400 for what it does not have."""
    asked = {name: str(value) for name, value in request.query_params.items()}
    if unknown := sorted(set(asked) - {"since", "format"}):
        raise bad_request(f"There is no parameter '{unknown[0][:64]}': use since and format.", unknown[0][:64])
    form = asked.get("format", "json")
    if form not in ("json", "html"):
        raise bad_request(f"There is no format '{form[:64]}': use json or html.", "format")
    return asked.get("since"), form


def period_of(text: str) -> timedelta:
    """A period of a request. Raises ApiError 400."""
    try:
        return parse_period(text[:32])
    except ValueError as error:
        raise bad_request(f"{str(error)[:1].upper()}{str(error)[1:]}.", "since") from error


def storage_away(error: StorageUnavailable) -> ApiError:
    """A 503: what was recorded cannot be read now. Why is for the log: it may name hosts and users of the database."""
    log.warning("the records cannot be read: %s", error)
    return ApiError(
        503, "storage_unavailable", "The records cannot be read at the moment; try again.", headers={"retry-after": "5"}
    )


def in_force(services: Services, routes: Collection[str] | None = None) -> InForce:
    """What decides at the moment. routes: whose drift is told; None is all."""
    policy = services.router.policy
    drift = DriftState() if policy is None else policy.monitor.state
    return InForce(
        policy=POLICY if policy is None else policy_name(policy),
        artefact_hash=None if policy is None else policy.artefact.hash,
        price_version=services.settings.prices.version,
        drift=drift.reasons if routes is None else drift.concerning(routes),
    )
