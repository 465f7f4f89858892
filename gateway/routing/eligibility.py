"""Which models could answer a request at all, each exclusion with its reason; only then is there anything to decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.routing.catalogue import ServedModel


class Ineligible:
    """Why a model is out. Stored in decision rows and shown to clients, so stable."""

    TOO_LONG = "too_long"
    MIN_MODEL = "min_model"
    MESSAGES = "unsupported_messages"
    TOOLS = "unsupported_tools"
    CONSTRAINT = "unsupported_constraint"
    SAMPLING = "unsupported_sampling"
    PREDICTION = "unsupported_prediction"


class NothingEligible(ValueError):
    """No model can answer; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one model cannot answer, in a word, and as the error that a request for that model alone would get."""

    reason: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Eligibility:
    """eligible: aliases in the catalogue's order; reasons: why each of the others is not."""

    eligible: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)


def too_long(models: Sequence[ServedModel], prompt_tokens: Mapping[str, int], max_tokens: int | None) -> Refusal:
    """The refusal of models whose windows are all too short; the message names the longest."""
    window = max(model.info.max_model_len for model in models)
    prompt = min(prompt_tokens[model.alias] for model in models)
    asked = "" if max_tokens is None else f" and {max_tokens} were asked for the answer"
    message = (
        f"This model's window is {window} tokens; the prompt has {prompt}{asked}. "
        "Shorten the messages, offer fewer tools, or ask for fewer tokens."
    )
    return Refusal(Ineligible.TOO_LONG, NothingEligible(message))


def fits(model: ServedModel, prompt_tokens: int, max_tokens: int | None) -> bool:
    """Whether the window holds the prompt and `max_tokens` (None: one token at least)."""
    return prompt_tokens + (max_tokens or 1) <= model.info.max_model_len
