"""Proof that no value satisfies two normal schemas at once: what turns an exact `oneOf` into an `anyOf`."""

from collections.abc import Mapping
from typing import Any

from grammars.normal_form import Schema, definition, equal, types
from grammars.validators import accepts


def are_disjoint(a: Schema, b: Schema, definitions: Mapping[str, Schema], depth: int = 6) -> bool:
    """True only when no instance satisfies both; False also means "not proved"."""
    if a is False or b is False:
        return True
    if a is True or b is True or depth == 0:
        return False
    if "enum" in a and "enum" in b:
        return not any(equal(one, other) for one in a["enum"] for other in b["enum"])
    for one, other in ((a, b), (b, a)):
        if "enum" in one:
            return not any(accepts(other, definitions, value) for value in one["enum"])
        if (
            "$ref" in one
            and (target := definition(one, definitions)) is not None
            and are_disjoint(target, other, definitions, depth - 1)
        ):
            return True
        if any(are_disjoint(member, other, definitions, depth - 1) for member in one.get("allOf", ())):
            return True
        for keyword in ("anyOf", "oneOf"):
            members = one.get(keyword)
            if members is not None and all(are_disjoint(member, other, definitions, depth - 1) for member in members):
                return True
    shared = types(a, definitions) & types(b, definitions)
    return all(_kind_is_disjoint(kind, a, b, definitions, depth) for kind in shared)


def _kind_is_disjoint(
    kind: str, a: dict[str, Any], b: dict[str, Any], definitions: Mapping[str, Schema], depth: int
) -> bool:
    """Whether no instance of one JSON type satisfies both."""
    match kind:
        case "object":
            return any(_objects_differ(one, other, definitions, depth) for one, other in ((a, b), (b, a)))
        case "array":
            return _beyond(a, b, "minItems", "maxItems")
        case "string":
            return _beyond(a, b, "minLength", "maxLength")
        case "number":
            return any(_numbers_apart(one, other) for one, other in ((a, b), (b, a)))
    return False


def _objects_differ(one: dict[str, Any], other: dict[str, Any], definitions: Mapping[str, Schema], depth: int) -> bool:
    """A name that `one` requires and that `other` forbids, or that both hold to disjoint schemas."""
    for name in one.get("required", ()):
        properties = other.get("properties", {})
        if name not in properties:
            if other.get("additionalProperties") is False and "patternProperties" not in other:
                return True
        elif name in one.get("properties", {}):
            if are_disjoint(one["properties"][name], properties[name], definitions, depth - 1):
                return True
        elif properties[name] is False:
            return True
    return False


def _beyond(a: dict[str, Any], b: dict[str, Any], low: str, high: str) -> bool:
    return any(low in one and high in other and one[low] > other[high] for one, other in ((a, b), (b, a)))


def _numbers_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Every number of `one` lies below every number of `other`."""
    for high, closed_high in (("maximum", True), ("exclusiveMaximum", False)):
        for low, closed_low in (("minimum", True), ("exclusiveMinimum", False)):
            if high in one and low in other:
                if one[high] < other[low]:
                    return True
                if one[high] == other[low] and not (closed_high and closed_low):
                    return True
    return False
