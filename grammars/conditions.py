"""Keywords that combine schemas, read as expressions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from grammars.expressions import ANYTHING, NOTHING, All, AnyOf, Conjunction, Expression, Not, OneOf
from grammars.plain import Plain
from grammars.plain_objects import LAST, Layer, Objects
from grammars.pointer import child

if TYPE_CHECKING:
    from grammars.json_schema import Walk


def members(walk: "Walk", node: dict[str, Any], keyword: str, pointer: str) -> Conjunction:
    """What the schemas of a list say. Raises ConstraintRefused for what is no such list."""
    found = node[keyword]
    if not isinstance(found, list) or not found:
        walk.refuse(keyword, pointer, "must be a list of at least one schema")
    return tuple(walk.visit(member, child(pointer, keyword, i)) for i, member in enumerate(found))


def _all_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    return All(members(walk, node, "allOf", pointer))


def _any_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    found = tuple(dict.fromkeys(members(walk, node, "anyOf", pointer)))
    return ANYTHING if ANYTHING in found else AnyOf(found, "anyOf", pointer)


def _one_of(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    found = tuple(member for member in members(walk, node, "oneOf", pointer) if member is not NOTHING)
    return found[0] if len(found) == 1 else OneOf(found, pointer) if found else NOTHING


def _not(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    return Not(walk.visit(node["not"], child(pointer, "not")), "not", pointer)


def _conditional(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    if "then" not in node and "else" not in node:
        walk.visit(node["if"], child(pointer, "if"))
        return ANYTHING
    condition = walk.visit(node["if"], child(pointer, "if"))
    consequence = walk.visit(node.get("then", True), child(pointer, "then"))
    alternative = walk.visit(node.get("else", True), child(pointer, "else"))
    return when(condition, consequence, alternative, pointer)


def when(condition: Expression, consequence: Expression, alternative: Expression, pointer: str) -> Expression:
    """`if`, `then` and `else`."""
    opposite = Not(condition, "if", pointer)
    return AnyOf((All((condition, consequence)), All((opposite, alternative))), "if", pointer)


def _dependent_required(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    return _dependent(walk, node["dependentRequired"], "dependentRequired", pointer)


def _dependent_schemas(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    return _dependent(walk, node["dependentSchemas"], "dependentSchemas", pointer)


def _dependencies(walk: "Walk", node: dict[str, Any], pointer: str) -> Expression:
    return _dependent(walk, node["dependencies"], "dependencies", pointer)


def _dependent(walk: "Walk", found: Any, keyword: str, pointer: str) -> Expression:
    """For each name: it is absent, or its consequence holds too."""
    if not isinstance(found, dict):
        walk.refuse(keyword, pointer, "must be an object")
    parts: list[Expression] = []
    for name, value in found.items():
        consequence: Expression
        if isinstance(value, list) and keyword != "dependentSchemas":
            if not all(isinstance(other, str) for other in value):
                walk.refuse(keyword, child(pointer, keyword, name), "must be a list of names")
            consequence = present(*value)
        elif keyword == "dependentRequired":
            walk.refuse(keyword, child(pointer, keyword, name), "must be a list of names")
        else:
            consequence = walk.visit(value, child(pointer, keyword, name))
        if consequence is not ANYTHING:
            parts.append(AnyOf((absent(name), All((present(name), consequence))), keyword, pointer))
    return All(tuple(parts))


def absent(name: str) -> Plain:
    """No member of that name; what is no object has none."""
    return Plain(objects=Objects((Layer({name: (NOTHING,)}, place=LAST),)))


def present(*names: str) -> Expression:
    """An object with members of these names."""
    return Plain(frozenset({"object"}), objects=Objects(required=tuple(dict.fromkeys(names)))) if names else ANYTHING


READERS: Final[dict[str, Callable[["Walk", dict[str, Any], str], Expression]]] = {
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _conditional,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "dependencies": _dependencies,
}
"""Each reads its keyword at a node into an expression that must hold there. Raises ConstraintRefused."""

ALL: Final = frozenset(READERS) | {"then", "else"}
