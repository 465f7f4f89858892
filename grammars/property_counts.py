"""`minProperties` and `maxProperties` of a plain node, written as the sets of optional names that satisfy them."""

from itertools import combinations as choose
from math import comb
from typing import Any, Final

from grammars.normal_form import Schema, disjunction

_MAX_SETS: Final = 256


class CountsUnheld(ValueError):
    """The counts of a node cannot be written as sets of names; keyword: the one in the way."""

    def __init__(self, keyword: str, reason: str) -> None:
        self.keyword = keyword
        super().__init__(reason)


def expand(node: dict[str, Any]) -> Schema:
    """A plain node without the two keywords that accepts the same values. Raises CountsUnheld.

    A name that is not declared may be written twice in one object, and a reader then keeps one of them: so a lower
    count above the number of required names can be held only for declared names, or for one name of any kind.
    """
    counts = {"minProperties", "maxProperties"}
    if not node.keys() & counts:
        return node
    bare = {keyword: value for keyword, value in node.items() if keyword not in counts}
    others = [name for name in node["type"] if name != "object"]
    required = list(node.get("required", ()))
    properties = node.get("properties", {})
    optional = [name for name, member in properties.items() if name not in required and member is not False]
    is_closed = node.get("additionalProperties") is False and "patternProperties" not in node
    ways: list[dict[str, Any]] = [{**bare, "type": ["object"]}]
    missing = node.get("minProperties", 0) - len(required)
    if missing > 0:
        ways = _at_least(bare, missing, optional, is_closed)
    if "maxProperties" in node:
        ways = [limited for way in ways for limited in _at_most(way, node["maxProperties"])]
    if len(ways) > _MAX_SETS:
        raise CountsUnheld("maxProperties", "has too many sets of optional names: declare fewer")
    rest: list[Schema] = [{**_without_objects(bare), "type": others}] if others else []
    return disjunction([*ways, *rest])


def _without_objects(node: dict[str, Any]) -> dict[str, Any]:
    names = ("properties", "patternProperties", "additionalProperties", "required")
    return {keyword: value for keyword, value in node.items() if keyword not in names}


def _at_least(node: dict[str, Any], missing: int, optional: list[str], is_closed: bool) -> list[dict[str, Any]]:
    """The ways of having at least `missing` names beside the required ones."""
    if missing > 1 and not is_closed:
        raise CountsUnheld("minProperties", "counts names that are not declared, and those may repeat: use `required`")
    if comb(len(optional), missing) > _MAX_SETS:
        raise CountsUnheld("minProperties", "has too many sets of optional names: list some in `required`")
    required = node.get("required", [])
    ways = [{**node, "type": ["object"], "required": [*required, *names]} for names in choose(optional, missing)]
    if not is_closed:
        absent = dict.fromkeys(optional, False)
        properties = {**node.get("properties", {}), **absent}
        ways.append({**node, "type": ["object"], "properties": properties, "minProperties": len(required) + 1})
    return ways


def _at_most(node: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """The ways of having at most `most` names."""
    required, properties = node.get("required", []), node.get("properties", {})
    optional = [name for name, member in properties.items() if name not in required and member is not False]
    is_closed = node.get("additionalProperties") is False and "patternProperties" not in node
    room = most - len(required)
    if room < 0:
        return []
    if not optional:
        return [node if is_closed else {**node, "maxProperties": most}]
    room = min(room, len(optional))
    if comb(len(optional), room) > _MAX_SETS:
        raise CountsUnheld("maxProperties", "has too many sets of optional names: declare fewer")
    if not is_closed and room:
        raise CountsUnheld("maxProperties", "counts optional and undeclared names together: close the object")
    ways = []
    for names in choose(optional, room):
        absent = dict.fromkeys((name for name in optional if name not in names), False)
        cap: dict[str, Any] = {} if is_closed else {"maxProperties": len(required)}
        ways.append({**node, "properties": {**properties, **absent}, **cap})
    return ways
