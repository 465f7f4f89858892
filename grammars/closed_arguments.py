"""The arguments of a tool, closed: a call names no argument that its tool does not declare.

JSON Schema leaves an object open that does not say otherwise, and few who declare a function's parameters say it. To
the function an undeclared argument is an error, so none is generated; what remains is a part of what the schema allows.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

OPENED_BY: Final = (
    "additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties",
)  # fmt: skip
COMBINED_BY: Final = (
    "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies",
)  # fmt: skip
_OF_MEMBERS: Final = frozenset({*OPENED_BY, *COMBINED_BY, "properties", "required"})
_TO_DEFINITION: Final = re.compile(r"#/(\$defs|definitions)/([^/~%]+)")


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever an object declares properties and says nothing of others.

    Objects that other keywords take part in stay as they are: closing one branch of them would forbid the members of
    another. Alternatives that are all that is said of a value are closed one by one, and so are definitions that are
    only used where they are. An object without properties stays open, which is how a free mapping is declared; but a
    tool that declares an empty list of them takes no arguments. What is required counts as declared. Nothing is changed
    in place.
    """
    found = _closed(schema, Counter())
    if not isinstance(found, dict):
        return found
    if found.get("properties") == {} and found.keys().isdisjoint((*OPENED_BY, *COMBINED_BY)):
        found = _with_declared_alone(found)
    used_alone = _used_alone(schema)
    for table in {table for table, _ in used_alone}:
        found[table] = {
            name: _closed(inner, Counter()) if (table, name) in used_alone else inner
            for name, inner in schema[table].items()
        }
    return found


def _closed(schema: Any, uses: Counter[tuple[str, str]]) -> Any:
    """The schema, closed, but for its definitions. uses: of definitions that say all of a value; added to."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    if isinstance(schema.get("items"), dict):
        found["items"] = _closed(schema["items"], uses)
    properties, of_members = schema.get("properties"), schema.keys() & _OF_MEMBERS
    if of_members == {"$ref"} and (target := _definition(schema["$ref"])) is not None:
        uses[target] += 1
    elif of_members == {"anyOf"} and isinstance(schema["anyOf"], list):
        found["anyOf"] = [_closed(branch, uses) for branch in schema["anyOf"]]
    elif isinstance(properties, dict) and properties and of_members.isdisjoint(COMBINED_BY):
        found["properties"] = {name: _closed(inner, uses) for name, inner in properties.items()}
        if of_members.isdisjoint(OPENED_BY):
            found = _with_declared_alone(found)
    return found


def _with_declared_alone(schema: dict[str, Any]) -> dict[str, Any]:
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    properties = schema["properties"] | {name: {} for name in names if name not in schema["properties"]}
    return schema | {"properties": properties, "additionalProperties": False}


def _used_alone(schema: dict[str, Any]) -> set[tuple[str, str]]:
    """The definitions that may be closed, as (table, name): every reference to them says all of a value, from a place
    that is closed itself."""
    targets = [_definition(reference) for reference in _references(schema)]
    every = Counter(target for target in targets if target is not None)
    tables = {table: schema[table] if isinstance(schema.get(table), dict) else {} for table, _ in every}
    if None in targets or any(name not in tables[table] for table, name in every):
        return set()  # what else is pointed into may lie within a definition
    uses: Counter[tuple[str, str]] = Counter()
    _closed(schema, uses)
    uses_in: dict[tuple[str, str], Counter[tuple[str, str]]] = {target: Counter() for target in every}
    for (table, name), inner in uses_in.items():
        _closed(tables[table][name], inner)
        uses.update(inner)
    found = set(every)
    dropped = [target for target in found if uses[target] != every[target]]
    while dropped:  # what a definition uses that stays open is used from an open place
        target = dropped.pop()
        if target in found:
            found.remove(target)
            dropped += uses_in[target]
    return found


def _references(value: Any) -> Iterator[Any]:
    """What all keywords that point elsewhere hold, at any depth; of a nested `$id`, which moves them, None."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for one in inner:
        yield from _references(one)
        if isinstance(one, dict) and "$id" in one:
            yield None
    if isinstance(value, dict):
        yield from (value[name] for name in ("$ref", "$dynamicRef", "$recursiveRef") if name in value)


def _definition(reference: Any) -> tuple[str, str] | None:
    """The table and the name of a definition that is pointed to; None for what points elsewhere."""
    found = _TO_DEFINITION.fullmatch(reference) if isinstance(reference, str) else None
    return None if found is None else (found[1], found[2])
