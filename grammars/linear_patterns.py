"""A client's schema for a validator whose expressions run in linear time: without look-around and word boundaries.

Such a validator reads neither look-around nor, as ECMA-262 means them, `\\b` and `[^]`. Other expressions are left to
it as they are, so that it judges independently of ours.
"""

from functools import partial
from typing import Any, Final

from grammars.regex import full_patterns, has_marks, search_pattern, search_patterns
from grammars.regex_syntax import RegexRefused

_MAPS: Final = frozenset({"properties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SCHEMAS: Final = frozenset({
    "items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else",
    "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip


def linear(schema: Any, *, are_booleans_known: bool = False) -> Any:
    """`schema` with every such `pattern` and name in `patternProperties` replaced by plain expressions.

    What cannot be replaced stays as it is, so that the validator refuses it in its own words. are_booleans_known: the
    validator reads `"exclusiveMinimum": true`, as in draft-04; else these are replaced, too.
    """
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    conditions: list[Any] = []
    inside = partial(linear, are_booleans_known=are_booleans_known)
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, dict):
            out[keyword] = {name: inside(member) for name, member in value.items()}
        elif keyword == "patternProperties" and isinstance(value, dict):
            out[keyword] = {_linear_name(name): inside(member) for name, member in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            out[keyword] = [inside(member) for member in value]
        elif keyword in _SCHEMAS:
            out[keyword] = inside(value)
        elif keyword == "pattern" and isinstance(value, str):
            conditions = [{"pattern": pattern} for pattern in linear_patterns(value)]
        else:
            out[keyword] = value
    if not are_booleans_known:
        _replace_booleans(out)
    if len(conditions) > 1:
        known = out.get("allOf")
        return {**out, "allOf": [*(known if isinstance(known, list) else ()), *conditions]}
    return {**out, **conditions[0]} if conditions else out


def _replace_booleans(node: dict[str, Any]) -> None:
    """Put the bound itself into `exclusiveMinimum` and `exclusiveMaximum`."""
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(exclusive) is False:
            del node[exclusive]
        elif node.get(exclusive) is True and inclusive in node:
            node[exclusive] = node.pop(inclusive)


def linear_patterns(pattern: str, *, whole: bool = False) -> list[str]:
    """Expressions to search for that together are `pattern`, itself searched for or (whole) matched in full."""
    asked = f"^(?:{pattern})$" if whole else pattern
    try:
        if _is_read_otherwise(pattern):
            return [f"^(?:{part})$" for part in (full_patterns if whole else search_patterns)(pattern)]
    except RegexRefused:
        pass
    return [asked]


def _is_read_otherwise(pattern: str) -> bool:
    """Whether the validator reads the expression otherwise than ECMA-262. Raises RegexRefused."""
    return "[^]" in pattern or has_marks(pattern)


def _linear_name(pattern: str) -> str:
    try:
        return f"^(?:{search_pattern(pattern)})$" if _is_read_otherwise(pattern) else pattern
    except RegexRefused:
        return pattern
