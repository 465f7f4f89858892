"""The small model's answer, as the cascade reads it, and what its form says of it."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.arithmetic import Arithmetic, Equation, number, without_notes

NAMES = (
    "log_tokens",
    "log_chars",
    "log_lines",
    "ended_by_length",
    "is_valid",
    "is_invalid",
    "has_logprobs",
    "logprob_mean",
    "logprob_min",
    "log_equations",
    "log_notes",
    "notes_wrong",
    "notes_unreadable",
    "plain_wrong",
    "log_numbers",
    "has_final_mark",
    "final_is_number",
    "final_is_whole",
    "final_is_negative",
    "final_size",
    "final_was_computed",
    "final_was_last_result",
    "longest_decimals",
    "ends_in_sentence",
    "doubts",
    "refusals",
    "unknowns",
    "steps",
    "distinct_words",
    "repeated_lines",
    "is_json",
)
"""What `answer_features` gives, in order."""

PARTIAL = "partial"
"""`Answer.reason` of an answer of which only the beginning is there."""

MAX_CHARS = 8_192
"""A longer answer is judged by its last characters, where its conclusion stands."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_DECIMALS = re.compile(r"\d\.(\d+)")
_FINAL = re.compile(r"####|\b(?:the (?:final )?answer is|therefore|so in total|in total|final answer)\b|\\boxed", re.I)
_DOUBT = re.compile(
    r"\b(?:however|mistake|but wait|assum\w+|not possible|impossible|cannot|can't|unclear|approximately|about"
    r"|not sure|might|perhaps|actually|incorrect|round\w*)\b",
    re.I,
)
_REFUSAL = re.compile(
    r"\b(?:i'?m sorry|i cannot|i can't|as an ai|unable to|not able to|don't have|no information|i apologi[sz]e)\b", re.I
)
_UNKNOWN = re.compile(r"\blet'?s? (?:\w+ )?(?:be|say|call|denote)\b|\b[a-z] = |\b\d+[a-z]\b|\b[a-z] [-+*/] ", re.I)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """reason: why it ended, `stop` or `length`; `partial` where only its beginning is there. is_valid: the verdict of
    its validation, None where there was none. logprob_*: over its tokens, None where they are not known.
    """

    text: str
    n_tokens: int
    logprob_mean: float | None = None
    logprob_min: float | None = None
    reason: str = "stop"
    is_valid: bool | None = None


def answer_features(answer: Answer) -> NDArray[np.float32]:
    """The features named in NAMES, float32 [len(NAMES)]; always finite."""
    text = answer.text[-MAX_CHARS:]
    shown = without_notes(text)
    arithmetic = Arithmetic.of(text)
    equations = arithmetic.notes + arithmetic.plain
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    words = _WORD.findall(shown.lower())
    final = _final_number(shown)
    results = [equation.claimed for equation in equations]
    last = arithmetic.notes[-1:] or arithmetic.plain[-1:]
    values = (
        np.log1p(max(answer.n_tokens, 0)),
        np.log1p(len(answer.text)),
        np.log1p(len(lines)),
        answer.reason == "length",
        answer.is_valid is True,
        answer.is_valid is False,
        answer.logprob_mean is not None,
        max(answer.logprob_mean, -10.0) if answer.logprob_mean is not None else 0.0,
        max(answer.logprob_min, -30.0) if answer.logprob_min is not None else 0.0,
        np.log1p(len(equations)),
        np.log1p(len(arithmetic.notes)),
        _wrong(arithmetic.notes),
        np.log1p(arithmetic.n_unreadable),
        _wrong(arithmetic.plain),
        np.log1p(len(_NUMBER.findall(shown))),
        _FINAL.search(shown) is not None,
        final is not None,
        final is not None and final == np.floor(final),
        final is not None and final < 0,
        np.log1p(min(abs(final), 1e12)) if final is not None else 0.0,
        final is not None and any(abs(final - result) <= 0.011 * max(abs(final), 1) for result in results),
        final is not None and bool(last) and abs(final - last[0].claimed) <= 0.011 * max(abs(final), 1),
        max((len(found) for found in _DECIMALS.findall(shown)), default=0),
        shown.rstrip()[-1:] in {".", "!", "?", ")", "}", "]", "`", '"'},
        np.log1p(len(_DOUBT.findall(shown))),
        np.log1p(len(_REFUSAL.findall(shown))),
        np.log1p(len(_UNKNOWN.findall(shown))),
        np.log1p(shown.count(". ") + shown.count("\n")),
        len(set(words)) / max(len(words), 1),
        1 - len(set(lines)) / max(len(lines), 1),
        shown.lstrip()[:1] in {"{", "["},
    )
    return np.nan_to_num(np.array(values, np.float32), posinf=1e6, neginf=-1e6)


def _wrong(equations: tuple[Equation, ...]) -> float:
    return sum(not one.holds for one in equations) / max(len(equations), 1)


def _final_number(text: str) -> float | None:
    """The number after `####`, else the last one of the text."""
    marked = text.rsplit("####", 1)
    found = _NUMBER.findall(marked[1])[:1] if len(marked) > 1 else _NUMBER.findall(text)[-1:]
    return number(found[0]) if found else None
