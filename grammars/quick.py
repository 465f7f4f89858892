"""Which constraints are cheap beyond doubt, from one look at their text: the others are tried out in a probe first.

The rules are coarse on purpose. A cheap constraint that they miss costs a few milliseconds; they must hold for
whatever an attacker writes. They bound what multiplies: text, counted repetitions, and the keywords under which one
subschema is combined with another before anything is compiled.
"""

import json
import math
import re
from typing import Any, Final

from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    Sequence,
    ToolCalls,
)

_MAX_JSON_BYTES: Final = 8_000
_MAX_CHOICE_BYTES: Final = 16_000
_MAX_EXPRESSION: Final = 1_000
_MAX_REFERENCES: Final = 64
_MAX_PARTS: Final = 8
_COMBINES: Final = re.compile(
    rb'"(?:allOf|oneOf|not|if|unevaluated\w+|depend\w+|propertyNames|contains|uniqueItems|patternProperties'
    rb'|(?:min|max)Properties|multipleOf|divisibleBy|extends|disallow|\$dynamicRef|\$recursiveRef)":'
)
_PATTERN: Final = re.compile(rb'"pattern":("(?:[^"\\]|\\.)*")')
_LONG: Final = re.compile(rb'"(?:min|max)(?:Length|Items)":(?!\d{1,3}[,}])')
_RULE: Final = re.compile(r"(?ms)^[ \t]*([A-Za-z_][\w.-]*)[ \t]*::=(.*?)(?=^[ \t]*[A-Za-z_][\w.-]*[ \t]*::=|\Z)")
_WORD: Final = re.compile(r"[A-Za-z_][\w.-]*")
_COUNT: Final = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")


def is_quick(constraint: Constraint, encoded: bytes) -> bool:
    """Whether planning, compiling and the first mask are bounded to tens of milliseconds. encoded: as compact JSON."""
    match constraint:
        case JsonObject():
            return True
        case JsonSchema() | ToolCalls():
            return _is_quick_json(encoded)
        case Regex():
            return _weight(constraint.pattern) <= _MAX_EXPRESSION and r"\b" not in constraint.pattern.lower()
        case Choice():
            return len(encoded) <= _MAX_CHOICE_BYTES
        case Grammar():
            return constraint.syntax == "ebnf" and _expanded(constraint.text) <= _MAX_EXPRESSION
        case Copied():
            return is_quick(constraint.inner, encoded)
        case FreeText():
            return len(encoded) <= _MAX_JSON_BYTES
        case Sequence() | Alternatives():
            return len(constraint.parts) <= _MAX_PARTS and all(is_quick(part, encoded) for part in constraint.parts)


def _is_quick_json(encoded: bytes) -> bool:
    return (
        len(encoded) <= _MAX_JSON_BYTES
        and not _COMBINES.search(encoded)
        and not _LONG.search(encoded)
        and encoded.count(b'"$ref":') <= _MAX_REFERENCES
        and sum(_weight(_text(found)) for found in _PATTERN.findall(encoded)) <= _MAX_EXPRESSION
    )


def _text(literal: bytes) -> str:
    value: Any = json.loads(literal)
    return str(value)


def _weight(expression: str) -> int:
    """Characters that an expression has at most once every counted repetition is written out."""
    weight = len(expression)
    for found in _COUNT.finditer(expression):
        weight *= max(1, *(int(digits[:6]) for digits in found.groups() if digits), 1)
        if weight > _MAX_EXPRESSION:
            break
    return weight


def _expanded(grammar: str) -> float:
    """Characters that an EBNF grammar has at most once every rule and repetition is written out; infinite where it
    recurs, since what an ambiguous recursion costs cannot be told from its text.
    """
    rules: dict[str, str] = dict(_RULE.findall(grammar))
    sizes: dict[str, float] = {}

    def size(name: str, depth: int) -> float:
        if name not in sizes:
            sizes[name] = math.inf  # while it is being worked out: a recursion
            used = [word for word in _WORD.findall(rules[name]) if word in rules] if depth < 50 else [name]
            product = max(1, _weight(rules[name]) / max(1, len(rules[name])))
            sizes[name] = product * (len(rules[name]) + sum(size(word, depth + 1) for word in used))
        return sizes[name]

    return sum((size(name, 0) for name in rules), 0.0) if rules else math.inf
