"""Keywords that combine schemas, rewritten into `anyOf` and `allOf` over the normal form, or refused."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from grammars.disjointness import are_disjoint
from grammars.negation import NotNegatable, negate
from grammars.normal_form import Schema, conjunction, declared_types, disjunction
from grammars.pointer import child

if TYPE_CHECKING:
    from grammars.json_schema import Walk

_MAX_BRANCHES: Final = 16
_MAX_POSITIONS: Final = 16


def _members(walk: "Walk", node: dict[str, Any], keyword: str, pointer: str) -> list[Schema]:
    members = node[keyword]
    if not isinstance(members, list) or not members:
        walk.refuse(keyword, pointer, "must be a list of at least one schema")
    return [walk.visit(member, child(pointer, keyword, i)) for i, member in enumerate(members)]


def _all_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return conjunction(_members(walk, node, "allOf", pointer))


def _any_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return disjunction(_members(walk, node, "anyOf", pointer))


def _one_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    """`anyOf` where the branches are proved disjoint; else each branch without those it may meet; else a proof is left
    to the backend, which refuses what it can't prove."""
    members: list[Schema] = [member for member in _members(walk, node, "oneOf", pointer) if member is not False]
    meets = [
        [j for j, other in enumerate(members) if i != j and not are_disjoint(member, other, walk.definitions)]
        for i, member in enumerate(members)
    ]
    if not any(meets):
        return disjunction(members)
    if len(members) <= _MAX_BRANCHES:
        try:
            return disjunction([_alone(walk, members, i, meets[i], node) for i in range(len(members))])
        except NotNegatable:
            pass
    walk.doubts.append(("oneOf", pointer))
    return {"oneOf": members}


def _alone(walk: "Walk", members: list[Schema], i: int, meets: list[int], node: dict[str, Any]) -> Schema:
    """Member `i`, without the members that it may meet. Raises NotNegatable."""
    within = declared_types(members[i], walk.definitions) or _own_types(node)
    return conjunction([members[i], *(negate(members[j], walk.definitions, within) for j in meets)])


def _not(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return _negated(walk, node, walk.visit(node["not"], child(pointer, "not")), "not", pointer)


def _negated(walk: "Walk", node: dict[str, Any], schema: Schema, keyword: str, pointer: str) -> Schema:
    try:
        return negate(schema, walk.definitions, _own_types(node))
    except NotNegatable as error:
        walk.refuse(
            keyword, pointer, f"the opposite of `{error.keyword}` has no exact form: say what is allowed instead"
        )


def _own_types(node: dict[str, Any]) -> frozenset[str] | None:
    """What `type` of a client's node says, which `keywords.py` checks."""
    names = node.get("type")
    if isinstance(names, str):
        return frozenset({names})
    return frozenset(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _conditional(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    if "then" not in node and "else" not in node:
        return True
    condition = walk.visit(node["if"], child(pointer, "if"))
    consequence = walk.visit(node.get("then", True), child(pointer, "then"))
    alternative = walk.visit(node.get("else", True), child(pointer, "else"))
    opposite = _negated(walk, node, condition, "if", pointer)
    return disjunction([conjunction([condition, consequence]), conjunction([opposite, alternative])])


def _dependent_required(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return _dependent(walk, node["dependentRequired"], "dependentRequired", pointer)


def _dependent_schemas(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return _dependent(walk, node["dependentSchemas"], "dependentSchemas", pointer)


def _dependencies(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    return _dependent(walk, node["dependencies"], "dependencies", pointer)


def _dependent(walk: "Walk", members: Any, keyword: str, pointer: str) -> Schema:
    """For each name: it is absent, or its consequence holds too."""
    if not isinstance(members, dict):
        walk.refuse(keyword, pointer, "must be an object")
    parts: list[Schema] = []
    for name, value in members.items():
        consequence: Schema
        if isinstance(value, list) and keyword != "dependentSchemas":
            if not all(isinstance(other, str) for other in value):
                walk.refuse(keyword, child(pointer, keyword, name), "must be a list of names")
            consequence = {"required": list(dict.fromkeys(value))} if value else True
        elif keyword == "dependentRequired":
            walk.refuse(keyword, child(pointer, keyword, name), "must be a list of names")
        else:
            consequence = walk.visit(value, child(pointer, keyword, name))
        if consequence is not True:
            absent: Schema = {"properties": {name: False}}
            parts.append(disjunction([absent, conjunction([{"required": [name]}, consequence])]))
    return conjunction(parts)


def _names(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    at = child(pointer, "propertyNames")
    names = walk.visit(node["propertyNames"], at)
    if names is True:
        return True
    if names is False:
        return {"maxProperties": 0}
    if "enum" in names:
        allowed = [name for name in names["enum"] if isinstance(name, str)]
        return {"properties": dict.fromkeys(allowed, True), "additionalProperties": False}
    low, high = names.get("minLength", 0), names.get("maxLength")
    patterns = [names["pattern"]] if "pattern" in names else []
    if low or high is not None:
        patterns.append(f"[\\s\\S]{{{low},{'' if high is None else high}}}")
    if names.keys() - {"type", "pattern", "minLength", "maxLength"} or "string" not in names.get("type", ["string"]):
        walk.refuse("propertyNames", pointer, "only `enum`, `pattern` and lengths of names can be held exactly")
    return conjunction([{"patternProperties": {p: True}, "additionalProperties": False} for p in patterns])


def _containing(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    low, high, most = node.get("minContains", 1), node.get("maxContains"), node.get("maxItems")
    for keyword, value in (("minContains", low), ("maxContains", high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            walk.refuse(keyword, pointer, "must be a whole number of at least 0")
    member = walk.visit(node["contains"], child(pointer, "contains"))
    if low == 0 and high is None:
        return True
    if high == 0 and low == 0:
        return {"items": _negated(walk, {}, member, "contains", pointer)}
    if member is True and high is None:
        return {"minItems": low}
    if low != 1 or high is not None or not isinstance(most, int) or most > _MAX_POSITIONS:
        walk.refuse("contains", pointer, f"is held only with `maxItems` of at most {_MAX_POSITIONS} and no other count")
    places: list[Schema] = [
        {"prefixItems": [*[True] * i, member], "minItems": i + 1, "type": ["array"]} for i in range(most)
    ]
    others: Schema = {"type": ["null", "boolean", "number", "string", "object"]}
    return disjunction([*places, others])


def _unique(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    if node["uniqueItems"] is False:
        return True
    if node["uniqueItems"] is not True:
        walk.refuse("uniqueItems", pointer, "must be true or false")
    most = node.get("maxItems")
    if not isinstance(most, int) or most > 1:
        walk.refuse("uniqueItems", pointer, "needs a memory of finished items: set `maxItems` to 1, or drop it")
    return True


READERS: Final[dict[str, Callable[["Walk", dict[str, Any], str], Schema]]] = {
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _conditional,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "dependencies": _dependencies,
    "propertyNames": _names,
    "contains": _containing,
    "uniqueItems": _unique,
}
"""Each reads its keyword at a node into a schema that must hold there. Raises ConstraintRefused."""

ALL: Final = frozenset(READERS) | {"then", "else", "minContains", "maxContains"}
