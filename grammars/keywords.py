"""Keywords that bind values of one type (numbers, strings, arrays, objects), read as one plain assertion."""

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from grammars.draft import Draft
from grammars.expressions import ANYTHING, Conjunction, Expression, Not
from grammars.formats import ENFORCED as FORMATS
from grammars.normal_form import TYPES
from grammars.plain import BY_TYPE, KINDS, Plain
from grammars.plain_arrays import Arrays, Contained, both
from grammars.plain_numbers import Numbers
from grammars.plain_objects import Layer, Objects
from grammars.plain_texts import Texts
from grammars.pointer import child
from grammars.regex import full_pattern, search_pattern
from grammars.regex_syntax import RegexRefused

if TYPE_CHECKING:
    from grammars.json_schema import Walk

_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TEXTS: Final = ("pattern", "format", "minLength", "maxLength")
_ARRAYS: Final = (
    "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains",
    "maxContains",
)  # fmt: skip
_OBJECTS: Final = (
    "properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties",
    "propertyNames",
)  # fmt: skip
ALL: Final = frozenset({"type", *_NUMBERS, *_TEXTS, *_ARRAYS, *_OBJECTS})


def is_known_format(name: Any) -> bool:
    """Whether the standard defines the format."""
    return name in FORMATS


def read(walk: "Walk", node: dict[str, Any], pointer: str) -> Plain:
    """What the keywords in ALL say at a node. Raises ConstraintRefused."""
    return Plain(
        _kinds(walk, node["type"], pointer) if "type" in node else KINDS,
        _numbers(walk, node, pointer) if not node.keys().isdisjoint(_NUMBERS) else None,
        _texts(walk, node, pointer) if not node.keys().isdisjoint(_TEXTS) else None,
        _arrays(walk, node, pointer) if not node.keys().isdisjoint(_ARRAYS) else None,
        _objects(walk, node, pointer) if not node.keys().isdisjoint(_OBJECTS) else None,
        pointer,
    )


def _kinds(walk: "Walk", value: Any, pointer: str) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        walk.refuse("type", pointer, "must be a type or a list of types")
    for name in names:
        if name not in TYPES and name != "integer":
            walk.refuse("type", pointer, f"names no type: {name!r}; use one of {', '.join((*TYPES, 'integer'))}")
    return frozenset().union(*(BY_TYPE[name] for name in names))


def _numbers(walk: "Walk", node: dict[str, Any], pointer: str) -> Numbers:
    bounds: dict[str, Any] = {keyword: node[keyword] for keyword in _NUMBERS if keyword in node}
    for side in ("Minimum", "Maximum"):
        exclusive, inclusive = f"exclusive{side}", side.lower()
        if isinstance(bounds.get(exclusive), bool):
            if walk.declared not in (None, Draft.DRAFT4):
                walk.refuse(exclusive, pointer, "is a boolean only in draft-04: give the bound itself")
            if bounds.pop(exclusive):
                if inclusive not in bounds:
                    walk.refuse(exclusive, pointer, f"needs `{inclusive}` beside it")
                bounds[exclusive] = bounds.pop(inclusive)
    for keyword, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            walk.refuse(keyword, pointer, f"must be a number, not {value!r:.40}")
        if keyword == "multipleOf" and value <= 0:
            walk.refuse(keyword, pointer, "must be above 0")
        if isinstance(value, int) and int(float(value)) != value:
            walk.refuse(keyword, pointer, f"{value} has no exact double: choose a bound of at most 53 bits")
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            bounds[keyword] = int(value)
    whole = Numbers(low=bounds.get("minimum"), high=bounds.get("maximum"))
    if "exclusiveMinimum" in bounds:
        whole = whole.meet(Numbers(low=bounds["exclusiveMinimum"], low_open=True))
    if "exclusiveMaximum" in bounds:
        whole = whole.meet(Numbers(high=bounds["exclusiveMaximum"], high_open=True))
    return whole.meet(Numbers(divisors=(bounds["multipleOf"],))) if "multipleOf" in bounds else whole


def read_count(walk: "Walk", node: dict[str, Any], keyword: str, pointer: str) -> int:
    """The whole number under `keyword`. Raises ConstraintRefused."""
    value = node[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        walk.refuse(keyword, pointer, f"must be a whole number of at least 0, not {value!r:.40}")
    return int(value)


def _counts(walk: "Walk", node: dict[str, Any], low: str, high: str, pointer: str) -> tuple[int, int | None]:
    fewest = read_count(walk, node, low, pointer) if low in node else 0
    return fewest, read_count(walk, node, high, pointer) if high in node else None


def _texts(walk: "Walk", node: dict[str, Any], pointer: str) -> Texts:
    patterns: list[str] = []
    if "pattern" in node:
        patterns.append(read_pattern(walk, "pattern", node["pattern"], pointer))
    if "format" in node:
        name = node["format"]
        if not isinstance(name, str):
            walk.refuse("format", pointer, "must be a text")
        if name in FORMATS:
            patterns += _of_format(name)
        else:
            walk.warn("format", pointer, f"`{name}` is no format of the standard")
    shortest, longest = _counts(walk, node, "minLength", "maxLength", pointer)
    return Texts(shortest, longest, tuple(dict.fromkeys(patterns)))


@cache
def _of_format(name: str) -> list[str]:
    """The expressions of a format in the normal form: a few, always the same."""
    return [full_pattern(pattern) for pattern in FORMATS[name]]


def read_pattern(walk: "Walk", keyword: str, pattern: Any, pointer: str) -> str:
    """A client's expression in the normal form. Raises ConstraintRefused."""
    if not isinstance(pattern, str):
        walk.refuse(keyword, pointer, "must be a regular expression")
    try:
        if pattern not in walk.patterns:
            walk.patterns[pattern] = search_pattern(pattern)
        return walk.patterns[pattern]
    except RegexRefused as error:
        walk.refuse(keyword, pointer, f"`{pattern[:80]}` {error}")


def conjunction(expression: Expression) -> Conjunction:
    """The members that all hold; none for what says nothing."""
    return () if expression is ANYTHING else (expression,)


def _arrays(walk: "Walk", node: dict[str, Any], pointer: str) -> Arrays:
    prefix, rest = node.get("prefixItems"), node.get("items")
    where_prefix, where_rest = "prefixItems", "items"
    if isinstance(rest, list):
        if walk.declared is not None and walk.declared >= Draft.DRAFT2020:
            walk.refuse("items", pointer, "is a list, which 2020-12 spells `prefixItems`")
        if prefix is not None:
            walk.refuse("items", pointer, "is a list beside `prefixItems`: use one of them")
        prefix, rest = rest, node.get("additionalItems")
        where_prefix, where_rest = "items", "additionalItems"
    if prefix is not None and not isinstance(prefix, list):
        walk.refuse(where_prefix, pointer, "must be a list of schemas")
    places = [walk.visit(item, child(pointer, where_prefix, i)) for i, item in enumerate(prefix or ())]
    items = ANYTHING if rest is None else walk.visit(rest, child(pointer, where_rest))
    if not isinstance(node.get("uniqueItems", False), bool):
        walk.refuse("uniqueItems", pointer, "must be true or false")
    fewest, most = _counts(walk, node, "minItems", "maxItems", pointer)
    arrays = Arrays(tuple(map(conjunction, places)), conjunction(items), fewest, most, node.get("uniqueItems", False))
    return arrays.meet(_contains(walk, node, pointer)) if "contains" in node else arrays


def _contains(walk: "Walk", node: dict[str, Any], pointer: str) -> Arrays:
    least, most = _counts(walk, node, "minContains", "maxContains", pointer)
    least = least if "minContains" in node else 1
    schema = walk.visit(node["contains"], child(pointer, "contains"))
    if schema is ANYTHING:
        return Arrays(fewest=least, most=most)
    if most == 0 and least == 0:
        return Arrays(items=(Not(schema, "contains", pointer),))
    return Arrays(contained=(Contained((schema,), least, most, pointer),)) if least or most is not None else Arrays()


def _objects(walk: "Walk", node: dict[str, Any], pointer: str) -> Objects:
    said: dict[str, dict[str, Conjunction]] = {"properties": {}, "patternProperties": {}}
    for keyword, schemas in said.items():
        found = node.get(keyword)
        if found is None:
            continue
        if not isinstance(found, dict):
            walk.refuse(keyword, pointer, "must be an object of schemas")
        for name, member in found.items():
            key = name if keyword == "properties" else read_pattern(walk, keyword, name, pointer)
            schema = conjunction(walk.visit(member, child(pointer, keyword, name)))
            schemas[key] = both(schemas.get(key, ()), schema)
    additional: Conjunction = ()
    if "additionalProperties" in node:
        additional = conjunction(walk.visit(node["additionalProperties"], child(pointer, "additionalProperties")))
    required = node.get("required")
    if isinstance(required, bool) and walk.declared is None:
        walk.refuse("required", pointer, "is a boolean, as in draft-03: list the names in the object's `required`")
    if required is not None and (not isinstance(required, list) or not all(isinstance(name, str) for name in required)):
        walk.refuse("required", pointer, "must be a list of names")
    fewest, most = _counts(walk, node, "minProperties", "maxProperties", pointer)
    names: Conjunction = ()
    if "propertyNames" in node:
        names = conjunction(walk.visit(node["propertyNames"], child(pointer, "propertyNames")))
    layers: tuple[Layer, ...] = ()
    if said["properties"] or said["patternProperties"] or additional:
        layers = (Layer(said["properties"], said["patternProperties"], additional),)
    return Objects(layers, tuple(dict.fromkeys(required or ())), fewest, most, names)
