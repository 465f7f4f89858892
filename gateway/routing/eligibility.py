"""Which models could answer a request at all, each exclusion with its reason; only then is there anything to decide."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.routing.catalogue import ServedModel

TOO_LONG = "too_long"


class NothingEligible(ValueError):
    """No model can answer; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Eligibility:
    """eligible: aliases in the catalogue's order; reasons: why each of the others is not."""

    eligible: tuple[str, ...]
    reasons: Mapping[str, str]


def eligibility(models: Iterable[ServedModel], prompt_tokens: Mapping[str, int], max_tokens: int | None) -> Eligibility:
    """Models whose window holds the prompt and `max_tokens` (None: one token at least).

    prompt_tokens: length of the rendered prompt by alias. Raises NothingEligible.
    """
    candidates = list(models)
    reasons = {
        model.alias: TOO_LONG
        for model in candidates
        if prompt_tokens[model.alias] + (max_tokens or 1) > model.info.max_model_len
    }
    eligible = tuple(model.alias for model in candidates if model.alias not in reasons)
    if not eligible:
        window = max(model.info.max_model_len for model in candidates)
        prompt = min(prompt_tokens[model.alias] for model in candidates)
        asked = "" if max_tokens is None else f" and {max_tokens} were asked for the answer"
        raise NothingEligible(
            f"This model's window is {window} tokens; the prompt has {prompt}{asked}. "
            "Shorten the messages, offer fewer tools, or ask for fewer tokens."
        )
    return Eligibility(eligible, reasons)
