"""The small language that a client's schema is rewritten into, and the questions that rewriting asks of it.

A normal schema is True, False or an object of these keywords only, each with its 2020-12 meaning: `type` (a list),
`enum` (alone in its node), `properties`, `required`, `additionalProperties`, `patternProperties`, `minProperties`,
`maxProperties`, `prefixItems`, `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `pattern` (written by
`regex.py`: it matches the whole text), `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`,
`anyOf`, `oneOf`, `allOf` and `$ref` into the `$defs` of the root.
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


def declared_types(schema: Schema, definitions: Mapping[str, Schema], depth: int = 8) -> frozenset[str] | None:
    """The types that `type` names at a node or behind its `$ref`, `integer` apart from `number`; None for none."""
    if isinstance(schema, bool):
        return None
    if "type" in schema:
        return frozenset(schema["type"])
    target = definition(schema, definitions) if "$ref" in schema else None
    return declared_types(target, definitions, depth - 1) if target is not None and depth else None


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


def every(schema: Schema) -> Iterator[Schema]:
    """`schema` and all schemas inside it."""
    stack = [schema]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(subschemas(node))


def conjunction(members: list[Schema]) -> Schema:
    """The schema that all of `members` together make."""
    kept = [member for member in members if member is not True and member != {}]
    if any(member is False for member in kept):
        return False
    if not kept:
        return True
    return kept[0] if len(kept) == 1 else {"allOf": kept}


def disjunction(members: list[Schema]) -> Schema:
    """The schema that accepts what any of `members` accepts."""
    if any(member is True or member == {} for member in members):
        return True
    kept = [member for member in members if member is not False]
    if not kept:
        return False
    return kept[0] if len(kept) == 1 else {"anyOf": kept}


def combinations(schema: Schema, depth: int = 64) -> int:
    """How many branches multiplying out one node's conjunctions of alternatives gives; references count as one."""
    if isinstance(schema, bool) or not depth:
        return 1
    product = 1
    for member in schema.get("allOf", ()):
        product *= combinations(member, depth - 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            product *= max(1, sum(combinations(member, depth - 1) for member in schema[keyword]))
    return product
