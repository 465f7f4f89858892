"""`GET` and `POST /v1/router/artefacts`: the deployment's routers, and which of them decides."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, get, post

from gateway.openai.errors import ApiError, bad_request
from gateway.openai.guard import operator_of
from gateway.router_api.reading import read_json
from gateway.router_api.report import storage_away
from gateway.routing.own_log import read_log
from gateway.routing.policy_source import policy_of
from gateway.routing.promotion import NoComparison, Promoted, made_at, promote, unlearned_since
from gateway.services import Services
from gateway.storage.protocols import StorageUnavailable
from router_model.artefact import MANIFEST_FILE, ArtefactError, Manifest, RouterArtefact, TrainingMetrics
from router_model.outcomes import Outcome
from router_model.promotion import Comparison, PromotionRefused
from router_model.registry import Promotion, UnknownArtefact
from router_model.thresholds import CurvePoint

MOST_ROWS = 20_000
"""A server compares and calibrates on no more than the latest so many graded decisions; the commands read all."""


class ArtefactOut(msgspec.Struct, kw_only=True):
    """One router. is_current: the registry says that it is in force; fits: it was trained for the served pair.

    n_rows: outcomes that it was trained on, n_both of them with both models' scores. parent: the router that it is a
    recalibration of.
    """

    hash: str
    object: str = "router.artefact"
    is_current: bool
    fits: bool
    added_at: datetime
    kind: str
    n_rows: int
    n_both: int
    is_identified: bool
    metrics: TrainingMetrics
    targets: dict[str, CurvePoint]
    parent: str | None = None


class ArtefactList(msgspec.Struct, kw_only=True):
    """All that are in the registry. in_force: what decides in this process, from the registry or from the settings;
    null where the rule does. history: of promotions, oldest first.
    """

    data: list[ArtefactOut]
    object: str = "list"
    in_force: str | None
    history: list[Promotion]


class ChangeIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """promote: hash of a router in the registry, or its beginning; force: without a comparison. Or rollback: true."""

    promote: str | None = None
    force: bool = False
    rollback: bool = False


class ChangeOut(msgspec.Struct, kw_only=True):
    """hash: now in force in the registry; null after going back to before the first promotion. in_force: what decides.

    comparison: with the one before, null where there was none to make.
    """

    object: str = "router.promotion"
    hash: str | None
    in_force: str | None
    comparison: Comparison | None = None


@get("/v1/router/artefacts")
async def list_artefacts(request: Request[Any, Any, Any]) -> ArtefactList:
    """The registry, for a key that may operate the router."""
    operator_of(request)
    services: Services = request.app.state.services
    try:
        return await asyncio.to_thread(_list, services)
    except ArtefactError as error:
        raise registry_damaged(error) from error


@post("/v1/router/artefacts", status_code=200)
async def change_artefact(request: Request[Any, Any, Any]) -> ChangeOut:
    """Promote a router, or go back to the one before.

    A promotion is compared with what is in force on the requests that were routed since both were added and of which
    both answers were graded: neither can have been trained on them. Raises ApiError 404 for an unknown router, 409 for
    one that is not measurably better or where nothing is to be taken back, 422 where too little was graded to tell.
    """
    operator_of(request)
    services: Services = request.app.state.services
    asked = await read_json(request, ChangeIn)
    if (asked.promote is not None) == asked.rollback:
        raise bad_request("Send either `promote` with the hash of a router, or `rollback`: true.")
    routers = services.routers
    async with routers.changing:
        if asked.promote is None:
            name, comparison = await _rolled_back(services), None
        else:
            try:
                done = await promoted(services, asked.promote, force=asked.force)
            except UnknownArtefact as error:
                raise ApiError(404, "artefact_not_found", _sentence(error), param="promote") from error
            name, comparison = done.hash, done.comparison
        await routers.take_over()
    return ChangeOut(hash=name, in_force=in_force(services), comparison=comparison)


async def _rolled_back(services: Services) -> str | None:
    """Hash of the router that is in force again. Raises ApiError 409 where there is none to go back from."""
    try:
        return await asyncio.to_thread(services.routers.registry.rollback, at=datetime.now(UTC))
    except UnknownArtefact as error:
        raise ApiError(409, "nothing_promoted", _sentence(error), param="rollback") from error
    except ArtefactError as error:
        raise registry_damaged(error) from error


async def promoted(services: Services, name: str, *, force: bool, held_back: list[Outcome] | None = None) -> Promoted:
    """Put a router of the registry in force; the caller holds `changing`, and lets it be taken over.

    held_back: what to compare on; None is what was routed since it, and the one in force, were added. Raises
    UnknownArtefact, and ApiError 409, 422 or 503.
    """
    registry, policy = services.routers.registry, services.router.policy
    small, large = (services.catalogue[alias].info.fingerprint for alias in ("small", "large"))
    full = await asyncio.to_thread(registry.find, name)
    try:
        candidate = await asyncio.to_thread(registry.load, full, small_model=small, large_model=large)
        await asyncio.to_thread(policy_of, candidate, services.settings)  # what could not decide comes not into force
        outcomes = held_back
        if outcomes is None:
            since = unlearned_since(registry, full, in_force(services))
            outcomes = [] if force else await logged_since(services, since, candidate)
        incumbent = None if policy is None else policy.artefact
        return await asyncio.to_thread(promote, registry, candidate, incumbent, outcomes, force=force)
    except PromotionRefused as error:
        raise ApiError(409, "promotion_refused", _sentence(error), param="promote") from error
    except (NoComparison, ArtefactError, ValueError) as error:
        raise ApiError(422, "cannot_compare", _sentence(error), param="promote") from error


async def logged_since(services: Services, since: datetime | None, artefact: RouterArtefact) -> list[Outcome]:
    """Graded decisions made since then, the latest MOST_ROWS, as far as a router of that kind can read them.

    Raises ApiError 503.
    """
    try:
        found = await read_log(services.database, since, kind=artefact.kind, most=MOST_ROWS)
    except StorageUnavailable as error:
        raise storage_away(error) from error
    return await asyncio.to_thread(lambda: [row.outcome() for row in found.rows])


def in_force(services: Services) -> str | None:
    """Hash of the router that decides in this process; None where the rule does."""
    policy = services.router.policy
    return None if policy is None else policy.artefact.hash


def _list(services: Services) -> ArtefactList:
    registry = services.routers.registry
    current = registry.current()
    served = tuple(services.catalogue[alias].info.fingerprint for alias in ("small", "large"))
    return ArtefactList(
        data=[
            found
            for name in registry.list()
            if (found := _read(registry.folder / name, is_current=name == current, served=served)) is not None
        ],
        in_force=in_force(services),
        history=list(registry.history),
    )


def _read(folder: Path, *, is_current: bool, served: tuple[str, ...]) -> ArtefactOut | None:
    """What its manifest says; None for one of another version, which could not be promoted."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return ArtefactOut(
        hash=folder.name,
        is_current=is_current,
        fits=(manifest.small_model, manifest.large_model) == served,
        added_at=made_at(folder),
        kind=manifest.kind.value,
        n_rows=manifest.n_rows,
        n_both=manifest.n_both,
        is_identified=manifest.is_identified,
        metrics=manifest.metrics,
        targets=manifest.targets,
        parent=None if manifest.recalibration is None else manifest.recalibration.parent,
    )


def registry_damaged(error: ArtefactError) -> ApiError:
    """A 500 that says what to put right, to the operator only."""
    return ApiError(500, "registry_damaged", _sentence(error))


def _sentence(error: Exception) -> str:
    text = str(error.args[0] if error.args else error)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
