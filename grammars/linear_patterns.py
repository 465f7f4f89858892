"""A client's schema for a validator whose expressions run in linear time: without look-around and word boundaries.

Such a validator reads neither look-around nor, as ECMA-262 means it, `\\b`. Other expressions are left to it as they
are, so that it judges independently of ours.
"""

from typing import Any, Final

from grammars.regex import full_patterns, has_marks, search_pattern, search_patterns
from grammars.regex_syntax import RegexRefused

_MAPS: Final = frozenset({"properties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SCHEMAS: Final = frozenset({
    "items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else",
    "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip


def linear(schema: Any) -> Any:
    """`schema` with every such `pattern` and name in `patternProperties` replaced by plain expressions.

    What cannot be replaced stays as it is, so that the validator refuses it in its own words.
    """
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    conditions: list[Any] = []
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, dict):
            out[keyword] = {name: linear(member) for name, member in value.items()}
        elif keyword == "patternProperties" and isinstance(value, dict):
            out[keyword] = {_linear_name(name): linear(member) for name, member in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            out[keyword] = [linear(member) for member in value]
        elif keyword in _SCHEMAS:
            out[keyword] = linear(value)
        elif keyword == "pattern" and isinstance(value, str):
            conditions = [{"pattern": pattern} for pattern in linear_patterns(value)]
        else:
            out[keyword] = value
    if len(conditions) > 1:
        known = out.get("allOf")
        return {**out, "allOf": [*(known if isinstance(known, list) else ()), *conditions]}
    return {**out, **conditions[0]} if conditions else out


def linear_patterns(pattern: str, *, whole: bool = False) -> list[str]:
    """Expressions to search for that together are `pattern`, itself searched for or (whole) matched in full."""
    asked = f"^(?:{pattern})$" if whole else pattern
    try:
        if has_marks(pattern):
            return [f"^(?:{part})$" for part in (full_patterns if whole else search_patterns)(pattern)]
    except RegexRefused:
        pass
    return [asked]


def _linear_name(pattern: str) -> str:
    try:
        return f"^(?:{search_pattern(pattern)})$" if has_marks(pattern) else pattern
    except RegexRefused:
        return pattern
