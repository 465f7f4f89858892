"""The branches of a normal node, sorted by the kind of value that each admits."""

from collections.abc import Mapping
from typing import Any, Final

from grammars.normal_form import Schema, type_of

Branch = dict[str, Any]
KINDS: Final = ("object", "array", "string", "number", "boolean", "null")
_KEYWORDS: Final[dict[str, frozenset[str]]] = {
    "object": frozenset({
        "properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties",
    }),
    "array": frozenset({"prefixItems", "items", "minItems", "maxItems", "uniqueItems", "contains"}),
    "string": frozenset({"pattern", "minLength", "maxLength"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}  # fmt: skip
_MOST: Final = 256


def branches(schema: Schema, definitions: Mapping[str, Schema]) -> list[Branch] | None:
    """The plain and `enum` nodes that `schema` is the union of; None where that cannot be told.

    It cannot beside a `oneOf` that was not resolved, for a definition that refers to itself without a value between,
    and for more branches than are worth following.
    """
    found: list[Branch] = []
    return found if _collect(schema, definitions, found, frozenset()) else None


def _collect(schema: Schema, definitions: Mapping[str, Schema], found: list[Branch], within: frozenset[str]) -> bool:
    if schema is False:
        return True
    if schema is True or schema == {}:
        found.append({"type": list(KINDS)})
        return len(found) <= _MOST
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        is_alone = schema.keys() == {"$ref"} and name not in within and name in definitions
        return is_alone and _collect(definitions[name], definitions, found, within | {name})
    if "anyOf" in schema:
        return schema.keys() == {"anyOf"} and all(
            _collect(member, definitions, found, within) for member in schema["anyOf"]
        )
    if "oneOf" in schema or ("allOf" in schema and not _is_text_only(schema)):
        return False
    found.append(schema)
    return len(found) <= _MOST


def _is_text_only(schema: Branch) -> bool:
    """Whether `allOf` holds nothing but further conditions on strings or numbers."""
    scalar = _KEYWORDS["string"] | _KEYWORDS["number"]
    return all(isinstance(member, dict) and member.keys() <= scalar for member in schema["allOf"])


def kinds(branch: Branch) -> frozenset[str]:
    """The kinds of value that a branch admits."""
    if "enum" in branch:
        return frozenset(map(type_of, branch["enum"]))
    return frozenset("number" if name == "integer" else name for name in branch.get("type", KINDS))


def only(branch: Branch, wanted: frozenset[str]) -> Branch:
    """The part of a branch for some kinds of value."""
    if "enum" in branch:
        return {"enum": [value for value in branch["enum"] if type_of(value) in wanted]}
    names = [name for name in branch.get("type", KINDS) if ("number" if name == "integer" else name) in wanted]
    dropped = frozenset().union(*(words for kind, words in _KEYWORDS.items() if kind not in wanted))
    out = {name: value for name, value in branch.items() if name not in dropped} | {"type": names}
    if not wanted & {"string", "number"}:
        out.pop("allOf", None)
    return out
