"""From a body to a Job: read, checked, rendered and measured, before the engine hears of it."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from gateway.accounts.authenticator import Principal
from gateway.openai.candidates import CandidateReader
from gateway.openai.errors import bad_request, unsupported
from gateway.openai.job import Arrival, Job
from gateway.openai.limits import check_limits
from gateway.openai.prompt import Prompter
from gateway.openai.reading import read_chat
from gateway.openai.routing_ask import check_ask, read_ask
from gateway.openai.schemas import ChatRequest
from gateway.routing.ask import RoutingAsk
from gateway.routing.catalogue import Catalogue
from gateway.routing.eligibility import Ineligible, Refusal
from gateway.routing.sessions import Sessions
from gateway.settings import Settings

# Rendering and tokenising this much text takes about a millisecond; more leaves the event loop.
_LONG_BODY = 8_192
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads requests for a set of models. prompters: by model alias; models with one tokenizer share one.

    salt_key: makes cache salts unguessable, so that no tenant can aim at the cached prompts of another. sessions: who
    answered which conversation.
    """

    settings: Settings
    catalogue: Catalogue
    prompters: Mapping[str, Prompter]
    salt_key: bytes = field(repr=False)
    sessions: Sessions = field(default_factory=Sessions, repr=False)

    async def read(
        self,
        body: bytes,
        principal: Principal,
        arrival: Arrival,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Job:
        """The job of a request body. headers: the request's, names in lower case, for what they ask of the router.

        Raises ApiError, UnknownModel or NothingEligible.
        """
        if len(body) > _LONG_BODY:
            return await asyncio.to_thread(self._read, body, principal, arrival, headers)
        return self._read(body, principal, arrival, headers)

    def answered(self, job: Job, model: str, *, routed: bool) -> None:
        """Remember who answered the job's conversation. routed: the small model computed its prompt, too."""
        computed = {model, "small"} if routed else {model}
        prompts = {alias: len(job.prompts[alias]) for alias in computed}
        self.sessions.answered(job.session, model, scope=job.salt, prompts=prompts)

    def _read(self, body: bytes, principal: Principal, arrival: Arrival, headers: Mapping[str, str]) -> Job:
        settings = self.settings
        reading = read_chat(body, max_depth=settings.limits.json_depth, strict_params=settings.strict_params)
        if reading.request.prediction is not None and not settings.uses_predictions:
            if settings.strict_params:
                raise unsupported("prediction", "this server does not draft from predictions; leave it out.")
            reading = replace(reading, ignored=(*reading.ignored, "prediction"))
        request = reading.request
        check_limits(request, settings.limits)
        wanted = self.catalogue.resolve(request.model)
        ask = read_ask(headers, request.router)
        check_ask(ask, wanted, settings.routing.cascade)
        models = self.catalogue.models if wanted.model is None else (wanted.model,)
        found = CandidateReader(request, models, self.prompters).candidates(_excluded(ask))
        eligible = found.eligibility.eligible
        return Job(
            arrival=arrival,
            principal=principal,
            reading=reading,
            ask=ask,
            asked=found.asked,
            wanted=wanted,
            eligibility=found.eligibility,
            prompts=found.prompts,
            salt=self._salt(principal, request),
            deadline_s=settings.deadline_s,
            dialects=found.dialects if len(set(found.dialects.values())) > 1 else {},
            predictions=found.predictions if settings.uses_predictions else {},
            session=self.sessions.find(principal.tenant, ask.session, map(msgspec.msgpack.encode, request.messages)),
            turn_start=found.turn_start,
            is_uniform=len({id(self.prompters[alias]) for alias in eligible}) == 1,
        )

    def _salt(self, principal: Principal, request: ChatRequest) -> str:
        """HMAC-SHA-256 over tenant and the client's own salts, each with its length in front so that none runs on."""
        parts = [principal.tenant, request.cache_salt or "", request.prompt_cache_key or ""]
        message = b"".join(len(data := part.encode()).to_bytes(4, "big") + data for part in parts)
        return hmac.new(self.salt_key, message, hashlib.sha256).hexdigest()


def _excluded(ask: RoutingAsk) -> dict[str, Refusal]:
    """Models that the request itself rules out."""
    if ask.min_model != "large":
        return {}
    return {"small": Refusal(Ineligible.MIN_MODEL, bad_request("'router.min_model' is large.", "router.min_model"))}
