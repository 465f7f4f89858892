"""`POST /v1/router/calibrate`: fit the router in force to what was graded lately, as a new router."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, post

from gateway.openai.errors import ApiError
from gateway.openai.guard import operator_of
from gateway.router_api.artefacts import in_force, logged_since, promoted
from gateway.router_api.reading import read_json
from gateway.router_api.report import period_of
from gateway.routing.promotion import recalibrated
from gateway.services import Services
from router_model.artefact import TrainingMetrics
from router_model.promotion import Comparison
from router_model.thresholds import CurvePoint


class CalibrateIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """since: a period such as 7d, everything without it. promote: put the new router in force if it is better."""

    since: str | None = None
    promote: bool = False


class CalibrateOut(msgspec.Struct, kw_only=True):
    """hash: the new router, in the registry. rows: outcomes of the log that were used; metrics, targets: measured on
    them. in_force: what decides now. comparison: with the router before, where it was promoted.
    """

    object: str = "router.calibration"
    hash: str
    parent: str
    rows: int
    metrics: TrainingMetrics
    targets: dict[str, CurvePoint]
    in_force: str | None
    comparison: Comparison | None = None


@post("/v1/router/calibrate", status_code=200)
async def calibrate(request: Request[Any, Any, Any]) -> CalibrateOut:
    """Make a recalibrated router from the log, for a key that may operate the router.

    With `promote` the latest third of the conversations is held back and decides whether it comes into force. Raises
    ApiError 409 where no trained router is in force or the new one is not better, 422 where too little was graded.
    """
    operator_of(request)
    services: Services = request.app.state.services
    asked = await read_json(request, CalibrateIn)
    since = None if asked.since is None else datetime.now(UTC) - period_of(asked.since)
    routers = services.routers
    async with routers.changing:
        policy = services.router.policy
        if policy is None:
            raise ApiError(409, "no_router", "No trained router is in force, so there is none to calibrate; train one.")
        outcomes = await logged_since(services, since, policy.artefact)
        try:
            new = await asyncio.to_thread(recalibrated, policy.artefact, outcomes, hold_back=asked.promote)
        except ValueError as error:
            text = str(error)
            raise ApiError(422, "cannot_calibrate", f"{text[:1].upper()}{text[1:]}.") from error
        name = await asyncio.to_thread(routers.registry.add, new.artefact)
        comparison = None
        if asked.promote:
            comparison = (await promoted(services, name, force=False, held_back=new.held_back)).comparison
            await routers.take_over()
    manifest = new.artefact.manifest
    return CalibrateOut(
        hash=name,
        parent=policy.artefact.hash,
        rows=len(outcomes) - len(new.held_back),
        metrics=manifest.metrics,
        targets=manifest.targets,
        in_force=in_force(services),
        comparison=comparison,
    )
