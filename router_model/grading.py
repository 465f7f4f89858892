"""Graders: how right an answer is, as a score from 0 to 1 that a router can be trained on."""

import json
from typing import Any

Expected = list[dict[str, Any]] | dict[str, Any] | str | None


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


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
