"""`POST /v1/router/evaluate`: what another policy would have scored on the requests that were served."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, post

from gateway.openai.errors import ApiError, bad_request
from gateway.openai.guard import principal_of
from gateway.reports.facts import Facts, load_facts
from gateway.reports.other_policies import OtherPolicies, Reward, Scope, value_policies
from gateway.router_api.reading import read_json
from gateway.router_api.report import period_of, storage_away
from gateway.routing.policy_source import pair_prices
from gateway.services import Services
from gateway.storage.protocols import StorageUnavailable
from router_model.artefact import ArtefactError
from router_model.candidates import Candidate
from router_model.off_policy import Unidentifiable
from router_model.policy import Policy
from router_model.policy_value import PolicyValue
from router_model.registry import UnknownArtefact

MOST_DECISIONS = 10_000
"""The latest this many are asked about: a router takes up to half a millisecond for each."""


class EvaluateIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """policy: see `Candidate`. since: a period such as 24h or 7d, everything without it. scope: see `OtherPolicies`."""

    policy: Candidate
    since: str | None = None
    reward: Reward = Reward()
    scope: Scope = "all"


class EvaluateOut(msgspec.Struct, frozen=True, kw_only=True):
    """policy: the one asked about; logged: the one that was served. The rest as in `OtherPolicies`."""

    policy: PolicyValue
    logged: PolicyValue
    scope: Scope
    reward: Reward
    requests: int
    graded: int
    fixed: int
    unread: int
    object: str = "router.evaluation"


@post("/v1/router/evaluate", status_code=200)
async def evaluate_policy(request: Request[Any, Any, Any]) -> EvaluateOut:
    """Estimate a policy's value on the caller's own requests, or on everybody's for a key that may operate the router.

    Raises ApiError 422 where the log cannot answer.
    """
    services: Services = request.app.state.services
    principal = principal_of(request)
    asked = await read_json(request, EvaluateIn)
    until = datetime.now(UTC)
    async with services.reports:
        try:
            facts = await load_facts(
                services.database,
                since=None if asked.since is None else until - period_of(asked.since),
                until=until,
                key_id=None if principal.may_operate else principal.key_id,
                with_features=asked.policy.needs_artefact,
                limit=MOST_DECISIONS,
            )
        except StorageUnavailable as error:
            raise storage_away(error) from error
        try:
            found = await asyncio.to_thread(_valued, services, asked, facts)
        except Unidentifiable as error:
            raise unidentifiable(error) from error
        except ValueError as error:
            raise bad_request(f"{_sentence(error)}.", "policy") from error
    return _answer(found)


def _valued(services: Services, asked: EvaluateIn, facts: Sequence[Facts]) -> OtherPolicies:
    """Reads files and computes for seconds: for a thread."""
    return value_policies(
        facts,
        {asked.policy.name: asked.policy},
        scope=asked.scope,
        reward=asked.reward,
        routers=_routers(services, asked.policy),
    )


def _answer(found: OtherPolicies) -> EvaluateOut:
    logged, policy = found.policies
    if policy.refused is not None:
        raise unidentifiable(policy.refused)
    return EvaluateOut(
        policy=policy,
        logged=logged,
        scope=found.scope,
        reward=found.reward,
        requests=found.requests,
        graded=found.graded,
        fixed=found.fixed,
        unread=found.unread,
    )


def unidentifiable(why: Unidentifiable | str) -> ApiError:
    """A 422: the question is understood, and the log has no answer."""
    return ApiError(422, "unidentifiable", f"{str(why)[:1].upper()}{str(why)[1:]}.")


def _routers(services: Services, candidate: Candidate) -> dict[str, Policy | None]:
    """The router that the candidate names, as a policy of its own: the one in force, or one of the registry.

    Raises ApiError 404, and 400 for one that cannot be used with the served pair.
    """
    in_force, name = services.router.policy, candidate.artefact
    if not candidate.needs_artefact:
        return {}
    if name is None or (in_force is not None and name and in_force.artefact.hash.startswith(name)):
        return {name or "": None if in_force is None else Policy(artefact=in_force.artefact, prices=in_force.prices)}
    small, large = (services.catalogue[alias].info.fingerprint for alias in ("small", "large"))
    try:
        artefact = services.routers.registry.load(name, small_model=small, large_model=large)
    except UnknownArtefact as error:  # its message lists what is there, which is the operator's to know
        message = f"There is no router '{name[:64]}', or more than one begins so."
        raise ApiError(404, "artefact_not_found", message, param="policy.artefact") from error
    except ArtefactError as error:
        raise bad_request(f"{_sentence(error)}.", "policy.artefact") from error
    return {name: Policy(artefact=artefact, prices=pair_prices(services.settings.prices))}


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}"
