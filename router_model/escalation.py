"""The second chance: whether the large model should answer again what the small one has answered.

An answer that failed always goes up, and `failure` alone says which those are, for serving as for measuring. Of the
others the policy says which are unlikely to be right (`Policy.judge`).
"""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.answer import PARTIAL, Answer
from router_model.cascade import answer_of
from router_model.logistic import Floats
from router_model.outcomes import Outcome
from router_model.refusal import is_refusal


class EscalateReason(enum.StrEnum):
    """Why. Stored in decision rows, so stable."""

    INVALID = "invalid"
    LENGTH = "length"
    EMPTY = "empty"
    REFUSAL = "refusal"
    LOW_CONFIDENCE = "low_confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """What the policy makes of an answer that did not fail.

    p_right: how likely it is right, None is unknown. rank: of the large model's expected gain over THIS answer; at or
    above threshold it is worth asking. reason: None where the answer may be sent.
    """

    p_right: float | None
    rank: float | None
    threshold: float
    reason: EscalateReason | None


def failure(
    answer: Answer, said: str | None, *, large_tokens: float | None = None, keeps_model: bool = False
) -> EscalateReason | None:
    """Why an answer is none, whatever the router thinks of it; None where it is one.

    said: its free text, None where a constraint says what it must be. large_tokens: expected length of the large
    model's answer, None is unknown. keeps_model: in a tool loop only an answer that cannot be sent at all counts.

    A free text that reached the client's limit has failed only where the large model is expected to write less: else
    that would be cut off, too, for all that is known. One of which only the beginning is there has not failed yet.
    """
    if answer.is_valid is False and answer.reason != "length":
        return EscalateReason.INVALID
    if keeps_model:
        return None
    if answer.reason == "length":
        is_long = large_tokens is None or large_tokens >= answer.n_tokens
        return None if said is not None and is_long else EscalateReason.LENGTH
    if said is None or answer.reason == PARTIAL:
        return None
    if not said.strip():
        return EscalateReason.EMPTY
    return EscalateReason.REFUSAL if is_refusal(said) else None


def recorded_failure(answer: Answer) -> EscalateReason | None:
    """`failure` of an answer in a row of outcomes: what was validated had a constraint, any other text was free."""
    return failure(answer, answer.text if answer.is_valid is None else None)


def has_failed(outcome: Outcome) -> bool:
    """Whether the small model's answer in a row is none, as far as the row tells.

    A row without an answer tells nothing, and one of a log only its validation: a log keeps no text.
    """
    answer = answer_of(outcome)
    if answer is None or (outcome.weak_response is None and outcome.small_valid is not False):
        return False
    return recorded_failure(answer) is not None


def second_ranks(gains: Floats, failed: NDArray[np.bool_]) -> Floats:
    """What answers [n] are compared with the threshold by, to be answered again: inf for those that failed, -inf where
    nothing is known of one.

    gains float64 [n]: of the large model over the answer, by what asking it costs; NaN is not known.
    """
    return np.where(failed, np.inf, np.where(np.isfinite(gains), gains, -np.inf))
