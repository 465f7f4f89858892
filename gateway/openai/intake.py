"""From a body to a Job: read, checked, rendered and measured, before the engine hears of it."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.accounts.authenticator import Principal
from gateway.openai.constraints import Asked, read_constraint
from gateway.openai.conversation import template_messages
from gateway.openai.errors import unsupported
from gateway.openai.job import Arrival, Job, check_sampling
from gateway.openai.limits import check_limits
from gateway.openai.prediction import check_prediction, prediction_text, prediction_tokens
from gateway.openai.prompt import Prompter
from gateway.openai.reading import read_chat
from gateway.openai.sampling import max_tokens
from gateway.openai.schemas import ChatRequest
from gateway.openai.tools import tool_use
from gateway.routing.catalogue import Catalogue
from gateway.routing.eligibility import eligibility
from gateway.settings import Settings

# Rendering and tokenising this much text takes about a millisecond; more leaves the event loop.
_LONG_BODY = 8_192


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads requests for a set of models. prompters: by model alias; models with one tokenizer share one.

    salt_key: makes cache salts unguessable, so that no tenant can aim at the cached prompts of another.
    """

    settings: Settings
    catalogue: Catalogue
    prompters: Mapping[str, Prompter]
    salt_key: bytes = field(repr=False)

    async def read(self, body: bytes, principal: Principal, arrival: Arrival, *, explore: bool = True) -> Job:
        """The job of a request body. Raises ApiError, UnknownModel or NothingEligible."""
        if len(body) > _LONG_BODY:
            return await asyncio.to_thread(self._read, body, principal, arrival, explore)
        return self._read(body, principal, arrival, explore)

    def _read(self, body: bytes, principal: Principal, arrival: Arrival, explore: bool) -> Job:
        limits = self.settings.limits
        reading = read_chat(body, max_depth=limits.json_depth, strict_params=self.settings.strict_params)
        if reading.request.prediction is not None and not self.settings.uses_predictions:
            if self.settings.strict_params:
                raise unsupported("prediction", "this server does not draft from predictions; leave it out.")
            reading = replace(reading, ignored=(*reading.ignored, "prediction"))
        request = reading.request
        check_limits(request, limits)
        wanted = self.catalogue.resolve(request.model)
        candidates = self.catalogue.models if wanted.model is None else (wanted.model,)
        tools = tool_use(request)
        dialects = {model.alias: self.prompters[model.alias].dialect for model in candidates}
        asked = read_constraint(request, tools, dialects[candidates[0].alias])
        prompts = self._prompts([model.alias for model in candidates], request, asked)
        lengths = {alias: len(tokens) for alias, tokens in prompts.items()}
        eligible = eligibility(candidates, lengths, max_tokens(request))
        job = Job(
            arrival=arrival,
            principal=principal,
            reading=reading,
            asked=asked,
            wanted=wanted,
            eligibility=eligible,
            prompts=prompts,
            salt=self._salt(principal, request),
            deadline_s=self.settings.deadline_s,
            explore=explore,
            dialects=dialects if len(set(dialects.values())) > 1 else {},
            predictions=self._predictions(eligible.eligible, request),
        )
        check_sampling(job, self.catalogue)
        return job

    def _prompts(self, aliases: list[str], request: ChatRequest, asked: Asked) -> dict[str, list[int]]:
        """The prompt by alias; rendered once for models that share a prompter."""
        messages = template_messages(request.messages)
        rendered: dict[int, list[int]] = {}
        for alias in aliases:
            prompter = self.prompters[alias]
            if id(prompter) not in rendered:
                rendered[id(prompter)] = prompter.tokens(messages, asked)
        return {alias: rendered[id(self.prompters[alias])] for alias in aliases}

    def _predictions(self, aliases: Sequence[str], request: ChatRequest) -> dict[str, list[int]]:
        """The expected answer by alias; encoded once for models that share a prompter. Checked even where this server
        has no use for it, so that a request is as good on one as on the other.
        """
        if request.prediction is None or not (text := prediction_text(request.prediction)):
            return {}
        encoded: dict[int, list[int]] = {}
        for alias in aliases:
            prompter = self.prompters[alias]
            if id(prompter) not in encoded:
                encoded[id(prompter)] = prediction_tokens(text, prompter)
            check_prediction(len(encoded[id(prompter)]), self.catalogue[alias])
        if not self.settings.uses_predictions:
            return {}
        return {alias: encoded[id(self.prompters[alias])] for alias in aliases}

    def _salt(self, principal: Principal, request: ChatRequest) -> str:
        """HMAC-SHA-256 over tenant and the client's own salts, each with its length in front so that none runs on."""
        parts = [principal.tenant, request.cache_salt or "", request.prompt_cache_key or ""]
        message = b"".join(len(data := part.encode()).to_bytes(4, "big") + data for part in parts)
        return hmac.new(self.salt_key, message, hashlib.sha256).hexdigest()
