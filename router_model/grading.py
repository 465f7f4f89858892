"""Graders: how right an answer is, as a score from 0 to 1 that a router can be trained on.

Those here compare an answer with what was expected, or need nothing but the answer. One that runs a command of the
user's is in `gateway/routing/grading.py`.
"""

import enum
import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

Expected = list[dict[str, Any]] | dict[str, Any] | str | None

# Thousands may be parted by commas, as in 1,234.50. Bounded, so that no answer makes it slow.
_NUMBER = re.compile(r"(?:(?<!\w)[-−+])?(?:\d{1,3}(?:,\d{3}){1,8}|\d{1,40})(?:\.\d{1,40})?(?:[eE][-+]?\d{1,3})?")


class GraderName(enum.StrEnum):
    """Graders that can be chosen by name; also the source of the labels that they give, so stable.

    exact_match, contains, number: against the expected answer. schema_valid: whether the answer ended in order and
    satisfies its constraint, which says little of whether it is right. command: the user's own.
    """

    EXACT_MATCH = "exact_match"
    CONTAINS = "contains"
    NUMBER = "number"
    SCHEMA_VALID = "schema_valid"
    COMMAND = "command"

    @property
    def needs_expected(self) -> bool:
        """Whether it compares with an expected answer."""
        return self in {GraderName.EXACT_MATCH, GraderName.CONTAINS, GraderName.NUMBER}


def compare(grader: GraderName, answer: str, expected: Expected) -> bool:
    """Whether an answer is right by a grader that compares. ValueError for one that does not, or cannot compare with
    an expected answer of that type.
    """
    if grader is GraderName.EXACT_MATCH:
        return exact_match(answer, expected)
    if not grader.needs_expected:
        raise ValueError(f"the grader {grader.value} does not compare with an expected answer")
    if not isinstance(expected, str):
        raise ValueError(f"the grader {grader.value} compares with a string: expected is {type(expected).__name__}")
    return contains(answer, expected) if grader is GraderName.CONTAINS else number_equal(answer, expected)


def exact_match(answer: str, expected: Expected) -> bool:
    """Whether an answer says exactly what was expected; white space in JSON, key order and escapes do not count.

    expected: calls as a list of `{"name", "arguments"}` in order, or the object of an extraction, both compared as JSON
    with equal types (1 is not 1.0, nor true); a string, compared after stripping; or None, where any text that is not
    JSON is right: no call was due.
    """
    if expected is None:
        return bool(answer.strip()) and not answer.lstrip().startswith(("[", "{"))
    if isinstance(expected, str):
        return answer.strip() == expected.strip()
    try:
        said = json.loads(answer)
    except ValueError:
        return False
    return _canonical(said) == _canonical(expected)


def contains(answer: str, expected: str) -> bool:
    """Whether the expected words stand in the answer as whole words, whatever their case and the white space."""
    words, wanted = " ".join(answer.casefold().split()), " ".join(expected.casefold().split())
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", words) is not None


def number_equal(answer: str, expected: str) -> bool:
    """Whether the last number of the answer equals the last one of what was expected, exactly: 1,234.50 is 1234.5."""
    said, wanted = last_number(answer), last_number(expected)
    return said is not None and said == wanted


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None where there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None


def schema_valid(*, ended: bool, valid: bool | None) -> float:
    """1 for an answer that ended by itself and satisfies its constraint, else 0. valid: None where nothing was asked of
    its form, or nothing could be checked.
    """
    return float(ended and valid is not False)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
