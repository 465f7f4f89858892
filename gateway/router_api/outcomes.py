"""`POST /v1/router/outcomes`: what became of an answer, told by the client whose request it was."""

import asyncio
import time
import uuid
from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, post
from msgspec import Meta

from gateway.accounts.authenticator import Principal
from gateway.openai.errors import ApiError, bad_request
from gateway.openai.guard import principal_of
from gateway.router_api.reading import read_json
from gateway.routing.grade_book import Origin, Prediction
from gateway.services import Services
from gateway.storage.decisions import Served
from gateway.storage.identifiers import made_at_s, new_id
from gateway.storage.protocols import StorageUnavailable
from gateway.storage.records import OutcomeRecord

MAX_OUTCOMES = 256

# Another gateway on the same database may have answered: its row arrives a moment later.
_ON_ITS_WAY_S, _POLL_S, _WAIT_S = 30.0, 0.1, 2.0


class OutcomeIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of one answer. At least one of score (0 to 1), correct and feedback (-1, 0, 1) is given.

    id: the client's own name for this statement; sending it again then changes nothing. source: who judged; a later
    statement of the same source replaces the one before. weight: what it counts in training beside others. model: whose
    answer was judged, the one that answered by default.
    """

    decision_id: uuid.UUID
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    correct: bool | None = None
    feedback: Literal[-1, 0, 1] | None = None
    source: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "client"
    weight: Annotated[float, Meta(gt=0, le=1)] = 1.0
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None

    @property
    def row_id(self) -> uuid.UUID:
        """Id of the row: made from the client's name for it, if there is one, within decision and source."""
        if self.id is None:
            return new_id()
        return uuid.uuid5(self.decision_id, f"{self.source}\n{self.id}")


class OutcomeOut(msgspec.Struct, kw_only=True):
    """One that was taken. model: alias, null where it is not known yet who answered."""

    id: str
    decision_id: str
    model: str | None


class OutcomesOut(msgspec.Struct, kw_only=True):
    """All that were taken, in their order.

    unchecked: those whose decision could not be looked up, the database being away; they count once it is found to be
    of the same key.
    """

    data: list[OutcomeOut]
    object: str = "list"
    unchecked: int = 0


@post("/v1/router/outcomes", status_code=200)
async def create_outcomes(request: Request[Any, Any, Any]) -> OutcomesOut:
    """Take one statement or a list of them: all or, with an error, none."""
    services: Services = request.app.state.services
    principal = principal_of(request)
    body = await read_json(request, OutcomeIn | list[OutcomeIn])  # type: ignore[arg-type]
    stated: list[OutcomeIn] = body if isinstance(body, list) else [body]
    if not 1 <= len(stated) <= MAX_OUTCOMES:
        raise bad_request(f"{len(stated)} outcomes were sent: send 1 to {MAX_OUTCOMES} at a time.")
    models = [_checked(one, services) for one in stated]
    served = await _served(services, {one.decision_id for one in stated}, principal)
    records = [
        _record(one, model, principal, served.get(one.decision_id)) for one, model in zip(stated, models, strict=True)
    ]
    for record in records:
        services.grades.put(record, Origin.API, _predicted(record, served.get(record.decision_id)))
    return OutcomesOut(
        data=[
            OutcomeOut(id=str(record.id), decision_id=str(record.decision_id), model=record.model or None)
            for record in records
        ],
        unchecked=sum(one.decision_id not in served for one in stated),
    )


def _checked(stated: OutcomeIn, services: Services) -> str | None:
    """Alias of the model that is named, if one is.

    Raises ApiError 400 for a statement that says nothing, or two things,
    or is of a model that is not served.
    """
    if stated.score is None and stated.correct is None and stated.feedback is None:
        raise bad_request("An outcome needs `score` (0 to 1), `correct` (true or false) or `feedback` (-1, 0 or 1).")
    if stated.score is not None and stated.correct is not None:
        raise bad_request("An outcome has `score` or `correct`, not both.", "score")
    if stated.model is None:
        return None
    try:
        return services.catalogue[stated.model].alias
    except KeyError:
        raise bad_request(
            f"The model '{stated.model[:128]}' does not exist; leave it out for the one that answered.", "model"
        ) from None


def _record(stated: OutcomeIn, model: str | None, principal: Principal, served: Served | None) -> OutcomeRecord:
    """The row. model: the one that is named; served: None where the decision cannot be looked up now.

    Raises ApiError 400 where no model answered.
    """
    if model is None and served is not None and served.model is None:
        raise bad_request("No model answered that request, so there is nothing to judge.", "decision_id")
    answered = None if served is None else served.model
    score = stated.score if stated.correct is None else float(stated.correct)
    return OutcomeRecord(
        id=stated.row_id,
        decision_id=stated.decision_id,
        key_id=principal.key_id,
        model=model or answered or "",  # empty: the one that answered, which cannot be told now
        score=score,
        feedback=stated.feedback,
        source=stated.source,
        weight=stated.weight,
    )


def _predicted(record: OutcomeRecord, served: Served | None) -> Prediction | None:
    return None if served is None else Prediction.of(served.artefact_hash, served.predicted(record.model))


async def _served(services: Services, ids: Collection[uuid.UUID], principal: Principal) -> dict[uuid.UUID, Served]:
    """Who was served by these decisions; those that cannot be looked up now are left out.

    Raises ApiError 404 for one that does not exist, or is another key's: to others it does not exist.
    """
    found: dict[uuid.UUID, Served] = {}
    until_s = time.monotonic() + _WAIT_S
    while True:
        found |= {one: served for one in ids if (served := services.recent.find(one)) is not None}
        missing = [one for one in ids if one not in found]
        if missing:
            try:
                found |= await services.decisions.find(missing)
            except StorageUnavailable:
                break
        missing = [one for one in missing if one not in found]
        if not any(_may_be_on_its_way(one) for one in missing) or time.monotonic() > until_s:
            _refuse(missing)
            break
        await asyncio.sleep(_POLL_S)
    _refuse([one for one, served in found.items() if served.key_id != principal.key_id])
    return found


def _may_be_on_its_way(decision_id: uuid.UUID) -> bool:
    """Whether it was made so lately that its row may not have been written yet; the id has the time in it."""
    return decision_id.version == 7 and 0 <= time.time() - made_at_s(decision_id) < _ON_ITS_WAY_S


def _refuse(unknown: Collection[uuid.UUID]) -> None:
    if unknown:
        raise ApiError(
            404,
            "decision_not_found",
            f"There is no decision {next(iter(unknown))} of this key: send the `decision_id` of a response's `router` "
            "object, or of its header x-router-decision-id.",
            param="decision_id",
        )
