"""`minProperties` and `maxProperties`, written as the sets of optional names that satisfy them."""

from itertools import combinations as choose
from math import comb
from typing import TYPE_CHECKING, Any, Final

from grammars.keywords import read_count
from grammars.normal_form import Schema, disjunction

if TYPE_CHECKING:
    from grammars.json_schema import Walk

ALL: Final = frozenset({"minProperties", "maxProperties"})
_MAX_SETS: Final = 256
_NO_OBJECT: Final[Schema] = {"type": ["null", "boolean", "number", "string", "array"]}


def read_property_counts(walk: "Walk", node: dict[str, Any], pointer: str) -> list[Schema]:
    """The normal form of the two keywords. Raises ConstraintRefused.

    A name that is not declared may be written twice in one object, and a reader then keeps one of them: so a lower
    count above the number of required names can be held only for declared names, or for one name of any kind.
    """
    parts: list[Schema] = []
    properties, required = node.get("properties") or {}, dict.fromkeys(node.get("required") or ())
    optional = [name for name, member in properties.items() if name not in required and member is not False]
    is_closed = node.get("additionalProperties") is False and not node.get("patternProperties")
    if "minProperties" in node:
        missing = read_count(walk, node, "minProperties", pointer) - len(required)
        if missing > 0:
            parts.append(_at_least(walk, missing, len(required), optional, is_closed, pointer))
    if "maxProperties" in node:
        room = read_count(walk, node, "maxProperties", pointer) - len(required)
        if room < 0:
            parts.append(_NO_OBJECT)
        elif not is_closed or room < len(optional):
            parts.append(_at_most(walk, room, len(required), optional, is_closed, pointer))
    return parts


def _at_least(
    walk: "Walk", missing: int, n_required: int, optional: list[str], is_closed: bool, pointer: str
) -> Schema:
    """At least `missing` names beside the `n_required` required ones."""
    if missing > 1 and not is_closed:
        walk.refuse(
            "minProperties", pointer, "counts names that are not declared, and those may repeat: use `required`"
        )
    if comb(len(optional), missing) > _MAX_SETS:
        walk.refuse("minProperties", pointer, "has too many sets of optional names: list some in `required`")
    alternatives: list[Schema] = [{"type": ["object"], "required": list(names)} for names in choose(optional, missing)]
    if not is_closed:
        absent: dict[str, Any] = {"properties": dict.fromkeys(optional, False)} if optional else {}
        alternatives.append({"type": ["object"], **absent, "minProperties": n_required + 1})
    return disjunction([*alternatives, _NO_OBJECT])


def _at_most(walk: "Walk", room: int, n_required: int, optional: list[str], is_closed: bool, pointer: str) -> Schema:
    """At most `room` names beside the `n_required` required ones."""
    if not optional:
        return {"maxProperties": room + n_required}
    room = min(room, len(optional))
    if comb(len(optional), room) > _MAX_SETS:
        walk.refuse("maxProperties", pointer, "has too many sets of optional names: declare fewer")
    if not is_closed and room:
        walk.refuse("maxProperties", pointer, "counts optional and undeclared names together: close the object")
    alternatives: list[Schema] = []
    for names in choose(optional, room):
        absent = dict.fromkeys((name for name in optional if name not in names), False)
        cap: dict[str, Any] = {} if is_closed else {"maxProperties": n_required}
        alternatives.append({"type": ["object"], "properties": absent, **cap})
    return disjunction([*alternatives, _NO_OBJECT])
