"""`contains` of a plain node with few items, written as the places where such items may stand."""

from itertools import combinations as choose
from math import comb
from typing import Any, Final

from grammars.normal_form import Schema, disjunction

_MAX_SETS: Final = 64


class ItemsUnheld(ValueError):
    """The counted items of a node cannot be written as places."""


def expand(node: dict[str, Any]) -> Schema:
    """A plain node without `contains` that accepts the same values.

    The places are required to hold what is counted beside what the node says of them, so their schemas must be joined:
    that is possible where the node says nothing else of its items. Raises ItemsUnheld elsewhere, for more than one
    `contains`, and for more sets of places than a few.
    """
    if "contains" not in node:
        return node
    bare = {keyword: value for keyword, value in node.items() if keyword != "contains"}
    others = [name for name in node["type"] if name != "array"]
    most = node.get("maxItems")
    if len(node["contains"]) > 1:
        raise ItemsUnheld("is counted for more than one schema: keep one")
    if node.keys() & {"prefixItems", "items"}:
        raise ItemsUnheld("stands beside what is said of all items: say it inside `contains`")
    least, schema = node["contains"][0]["at_least"], node["contains"][0]["schema"]
    if most is None or comb(most, least) > _MAX_SETS:
        raise ItemsUnheld("needs a small `maxItems`: add one")
    ways: list[Schema] = []
    for places in choose(range(most), least):
        prefix = [schema if i in places else True for i in range(places[-1] + 1)]
        fewest = max(node.get("minItems", 0), len(prefix))
        ways.append({**bare, "type": ["array"], "prefixItems": prefix, "minItems": fewest})
    rest: list[Schema] = [{**_without_arrays(bare), "type": others}] if others else []
    return disjunction([*ways, *rest])


def _without_arrays(node: dict[str, Any]) -> dict[str, Any]:
    return {keyword: value for keyword, value in node.items() if keyword not in ("minItems", "maxItems", "uniqueItems")}
