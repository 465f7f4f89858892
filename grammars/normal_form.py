"""The small language that a client's schema is rewritten into, and the questions that are asked of it.

A schema of the normal form, each keyword with its 2020-12 meaning, is one of

    True | False
    {"$ref": "#/$defs/d0"}            into the `$defs` of the root; nothing stands beside it
    {"enum": [...]}                   alone
    {"anyOf": [...]}                  alone; no boolean and no other `anyOf` directly inside
    {"oneOf": [...]}                  alone; only where it is left to the backend to prove the members disjoint
    {"type": [...], ...}              a plain node: keywords that bind those types

and a plain node holds: `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`; `pattern` (in the
dialect of `regex_text.py`: it matches the whole text), `minLength`, `maxLength`; `prefixItems`, `items`, `minItems`,
`maxItems`, `uniqueItems` (true), `contains` (a list of `{"schema": S, "at_least": n}`, which all hold); `properties`,
`patternProperties` (disjoint patterns; a declared name's schema says what they say of it, too),
`additionalProperties`, `required`, `minProperties`, `maxProperties`; and `allOf` of nodes that hold just a `pattern` or
just a `multipleOf`, where these have no common form.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any] | bool
TYPES = ("null", "boolean", "number", "string", "array", "object")
ALL_TYPES = frozenset(TYPES)


def definition(schema: dict[str, Any], definitions: Mapping[str, Schema]) -> Schema | None:
    """What the `$ref` of `schema` names, or None while it is still being rewritten (a recursion)."""
    return definitions.get(schema["$ref"].removeprefix("#/$defs/"))


def type_of(value: Any) -> str:
    """The JSON type of a value; integers are numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def equal(a: Any, b: Any) -> bool:
    """JSON equality: 1 equals 1.0, true never equals 1, the order of members does not matter."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    return type_of(a) == type_of(b) and bool(a == b)


def types(schema: Schema, definitions: Mapping[str, Schema], depth: int = 8) -> frozenset[str]:
    """Types that an instance may have, no fewer than it really may."""
    if isinstance(schema, bool):
        return ALL_TYPES if schema else frozenset()
    found = ALL_TYPES
    if "enum" in schema:
        found = frozenset(map(type_of, schema["enum"]))
    if "type" in schema:
        found &= frozenset("number" if name == "integer" else name for name in schema["type"])
    if depth:
        if "$ref" in schema and (target := definition(schema, definitions)) is not None:
            found &= types(target, definitions, depth - 1)
        for member in schema.get("allOf", ()):
            found &= types(member, definitions, depth - 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                found &= frozenset().union(*(types(member, definitions, depth - 1) for member in schema[keyword]))
    return found


def subschemas(schema: Schema) -> Iterator[Schema]:
    """The schemas directly inside a normal schema, `$defs` included."""
    if isinstance(schema, bool):
        return
    for keyword in ("properties", "patternProperties", "$defs"):
        yield from schema.get(keyword, {}).values()
    for keyword in ("prefixItems", "anyOf", "oneOf", "allOf"):
        yield from schema.get(keyword, ())
    for keyword in ("additionalProperties", "items"):
        if keyword in schema:
            yield schema[keyword]
    for counted in schema.get("contains", ()):
        yield counted["schema"]


def every(schema: Schema) -> Iterator[Schema]:
    """`schema` and all schemas inside it."""
    stack = [schema]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(subschemas(node))


def disjunction(members: list[Schema]) -> Schema:
    """The schema that accepts what any of `members` accepts."""
    if any(member is True or member == {} for member in members):
        return True
    kept = [member for member in members if member is not False]
    if not kept:
        return False
    return kept[0] if len(kept) == 1 else {"anyOf": kept}
