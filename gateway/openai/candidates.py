"""What a request is for each model that might answer it: its constraint, its prompt, its tokens. Or why it is not.

A model that cannot answer is left out with a reason, so that `auto` never fails over a model that need not have been
asked. If none is left, the error is that of the most capable one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.openai.constraints import Asked, read_constraint
from gateway.openai.conversation import template_messages
from gateway.openai.errors import ApiError
from gateway.openai.prediction import check_prediction, prediction_text, prediction_tokens
from gateway.openai.prompt import Prompt, Prompter
from gateway.openai.sampling import max_tokens, sampling_params
from gateway.openai.schemas import ChatRequest
from gateway.openai.tools import ToolUse, tool_use
from gateway.routing.catalogue import ServedModel
from gateway.routing.eligibility import Eligibility, Ineligible, NothingEligible, Refusal, fits, too_long


@dataclass(frozen=True, slots=True)
class Candidates:
    """asked: of the first eligible model; the others' differ in the format of calls alone. dialects, prompts: by alias
    of every model that has them; predictions: of the eligible ones, where something is predicted. turn_start: where in
    the small model's prompt the user's last turn begins, for a router that reads it; 0 is unknown.
    """

    eligibility: Eligibility
    asked: Asked
    dialects: Mapping[str, str]
    prompts: Mapping[str, list[int]]
    predictions: Mapping[str, list[int]]
    turn_start: int = 0


class CandidateReader:
    """Reads one request for several models; what models share is computed once."""

    def __init__(self, request: ChatRequest, models: Sequence[ServedModel], prompters: Mapping[str, Prompter]) -> None:
        """Raises ApiError 400 for what is wrong whoever answers."""
        self._request, self._models, self._prompters = request, models, prompters
        self._tools: ToolUse = tool_use(request)
        self._messages: list[dict[str, Any]] = template_messages(request.messages)
        self._max_tokens = max_tokens(request)
        self._prediction = "" if request.prediction is None else prediction_text(request.prediction)
        self._asked: dict[str, Asked] = {}
        self._rendered: dict[int, Prompt] = {}
        self._predicted: dict[int, list[int]] = {}
        self._prompts: dict[str, Prompt] = {}

    def candidates(self, excluded: Mapping[str, Refusal]) -> Candidates:
        """All of them. excluded: models that are out already.

        Raises ApiError or NothingEligible where no model is left.
        """
        refusals = dict(excluded)
        for model in self._models:
            if model.alias not in refusals and (refusal := self._refusal(model)) is not None:
                refusals[model.alias] = refusal
        eligible = tuple(model.alias for model in self._models if model.alias not in refusals)
        if not eligible:
            raise self._nothing(refusals).error
        dialects = {alias: self._prompters[alias].dialect for alias in eligible}
        return Candidates(
            eligibility=Eligibility(eligible, {alias: refusal.reason for alias, refusal in refusals.items()}),
            asked=self._asked[dialects[eligible[0]]],
            dialects=dialects,
            prompts={alias: prompt.tokens for alias, prompt in self._prompts.items()},
            predictions={alias: self._predicted_by(alias) for alias in eligible} if self._prediction else {},
            turn_start=self._prompts[eligible[0]].turn_start,
        )

    def _refusal(self, model: ServedModel) -> Refusal | None:
        """Why this model cannot answer; None if it can."""
        reason = Ineligible.TOOLS if self._tools.offered else Ineligible.CONSTRAINT
        try:
            asked = self._asked_in(self._prompters[model.alias].dialect)
            reason = Ineligible.MESSAGES
            prompt = self._prompt_of(model.alias, asked).tokens
            if not fits(model, len(prompt), self._max_tokens):
                return too_long([model], {model.alias: len(prompt)}, self._max_tokens)
            reason = Ineligible.SAMPLING
            room = model.info.max_model_len - len(prompt)
            sampling_params(self._request, vocab_size=model.info.vocab_size, room=room)
            reason = Ineligible.PREDICTION
            if self._prediction:
                check_prediction(len(self._predicted_by(model.alias)), model)
        except ApiError as error:
            return Refusal(reason, error)
        return None

    def _nothing(self, refusals: Mapping[str, Refusal]) -> Refusal:
        """What to answer when every model is out."""
        by_window = all(isinstance(refusal.error, NothingEligible) for refusal in refusals.values())
        long = [model for model in self._models if refusals[model.alias].reason == Ineligible.TOO_LONG]
        if by_window and long:
            return too_long(
                long, {alias: len(prompt.tokens) for alias, prompt in self._prompts.items()}, self._max_tokens
            )
        return refusals[self._models[-1].alias]  # the catalogue ends with the most capable

    def _asked_in(self, dialect: str) -> Asked:
        if dialect not in self._asked:
            self._asked[dialect] = read_constraint(self._request, self._tools, dialect)
        return self._asked[dialect]

    def _prompt_of(self, alias: str, asked: Asked) -> Prompt:
        prompter = self._prompters[alias]
        if id(prompter) not in self._rendered:
            is_routed = len(self._models) > 1
            self._rendered[id(prompter)] = (
                prompter.prompt(self._messages, asked) if is_routed else Prompt(prompter.tokens(self._messages, asked))
            )
        prompt = self._prompts[alias] = self._rendered[id(prompter)]
        return prompt

    def _predicted_by(self, alias: str) -> list[int]:
        prompter = self._prompters[alias]
        if id(prompter) not in self._predicted:
            self._predicted[id(prompter)] = prediction_tokens(self._prediction, prompter)
        return self._predicted[id(prompter)]
