"""Keywords that bind values of one type (numbers, strings, arrays, objects), put into the normal form."""

import math
from typing import TYPE_CHECKING, Any, Final

from grammars.draft import Draft
from grammars.formats import ENFORCED as FORMATS
from grammars.formats import NOT_REGULAR
from grammars.normal_form import TYPES, Schema, conjunction
from grammars.pointer import child
from grammars.regex import full_pattern, search_pattern
from grammars.regex_syntax import RegexRefused

if TYPE_CHECKING:
    from grammars.json_schema import Walk

_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems")
_ARRAYS: Final = ("items", "prefixItems", "additionalItems")
_OBJECTS: Final = ("properties", "patternProperties", "additionalProperties", "required")
ALL: Final = frozenset({"type", "pattern", "format", *_NUMBERS, *_COUNTS, *_ARRAYS, *_OBJECTS})


def is_known_format(name: Any) -> bool:
    """Whether the standard defines the format."""
    return name in FORMATS or name in NOT_REGULAR


def read(walk: "Walk", node: dict[str, Any], pointer: str) -> Schema:
    """The normal form of the keywords in ALL. Raises ConstraintRefused."""
    if not node.keys() & ALL:
        return True
    out: dict[str, Any] = {}
    extra: list[Schema] = []
    if "type" in node:
        out["type"] = _types(walk, node["type"], pointer)
    _read_numbers(walk, node, pointer, out)
    _read_counts(walk, node, pointer, out)
    extra += _read_texts(walk, node, pointer, out)
    _read_arrays(walk, node, pointer, out)
    _read_objects(walk, node, pointer, out)
    return conjunction([out, *extra])


def _types(walk: "Walk", value: Any, pointer: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        walk.refuse("type", pointer, "must be a type or a list of types")
    for name in names:
        if name not in TYPES and name != "integer":
            walk.refuse("type", pointer, f"names no type: {name!r}; use one of {', '.join((*TYPES, 'integer'))}")
    return list(dict.fromkeys(names))


def _read_numbers(walk: "Walk", node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
    bounds: dict[str, Any] = {keyword: node[keyword] for keyword in _NUMBERS if keyword in node}
    for side in ("Minimum", "Maximum"):
        exclusive, inclusive = f"exclusive{side}", side.lower()
        if isinstance(bounds.get(exclusive), bool):
            if walk.draft is not Draft.DRAFT4:
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
        out[keyword] = int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _read_counts(walk: "Walk", node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
    for keyword in _COUNTS:
        if keyword in node:
            count = read_count(walk, node, keyword, pointer)
            if count or not keyword.startswith("min"):
                out[keyword] = count


def read_count(walk: "Walk", node: dict[str, Any], keyword: str, pointer: str) -> int:
    """The whole number under `keyword`. Raises ConstraintRefused."""
    value = node[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        walk.refuse(keyword, pointer, f"must be a whole number of at least 0, not {value!r:.40}")
    return int(value)


def _read_texts(walk: "Walk", node: dict[str, Any], pointer: str, out: dict[str, Any]) -> list[Schema]:
    """`pattern` and `format`, each one or more expressions: the first stays in the node, the others stand beside it."""
    patterns: list[str] = []
    if "pattern" in node:
        patterns.append(read_pattern(walk, "pattern", node["pattern"], pointer))
    if "format" in node:
        name = node["format"]
        if not isinstance(name, str):
            walk.refuse("format", pointer, "must be a text")
        if name in NOT_REGULAR:
            walk.refuse("format", pointer, f"`{name}` is not a regular language: describe the text with `pattern`")
        if name in FORMATS:
            patterns += [full_pattern(pattern) for pattern in FORMATS[name]]
        else:
            walk.warn("format", pointer, f"`{name}` is no format of the standard")
    if patterns:
        out["pattern"] = patterns[0]
    return [{"pattern": pattern} for pattern in patterns[1:]]


def read_pattern(walk: "Walk", keyword: str, pattern: Any, pointer: str) -> str:
    """A client's expression in the normal form. Raises ConstraintRefused."""
    if not isinstance(pattern, str):
        walk.refuse(keyword, pointer, "must be a regular expression")
    try:
        return search_pattern(pattern)
    except RegexRefused as error:
        walk.refuse(keyword, pointer, f"`{pattern[:80]}` {error}")


def _read_arrays(walk: "Walk", node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
    prefix, rest = node.get("prefixItems"), node.get("items")
    where_prefix, where_rest = "prefixItems", "items"
    if isinstance(rest, list):
        if walk.declared is not None and walk.declared >= Draft.DRAFT2020:
            walk.refuse("items", pointer, "is a list, which 2020-12 spells `prefixItems`")
        if prefix is not None:
            walk.refuse("items", pointer, "is a list beside `prefixItems`: use one of them")
        prefix, rest = rest, node.get("additionalItems")
        where_prefix, where_rest = "items", "additionalItems"
    if prefix is not None:
        if not isinstance(prefix, list):
            walk.refuse(where_prefix, pointer, "must be a list of schemas")
        if prefix:
            out["prefixItems"] = [walk.visit(item, child(pointer, where_prefix, i)) for i, item in enumerate(prefix)]
    if rest is not None:
        items = walk.visit(rest, child(pointer, where_rest))
        if items is not True:
            out["items"] = items


def _read_objects(walk: "Walk", node: dict[str, Any], pointer: str, out: dict[str, Any]) -> None:
    for keyword in ("properties", "patternProperties"):
        members = node.get(keyword)
        if members is None:
            continue
        if not isinstance(members, dict):
            walk.refuse(keyword, pointer, "must be an object of schemas")
        if members:
            out[keyword] = {
                name if keyword == "properties" else read_pattern(walk, keyword, name, pointer): walk.visit(
                    member, child(pointer, keyword, name)
                )
                for name, member in members.items()
            }
            if len(out[keyword]) < len(members):
                walk.refuse(keyword, pointer, "has two patterns that mean the same: merge them")
    if "additionalProperties" in node:
        additional = walk.visit(node["additionalProperties"], child(pointer, "additionalProperties"))
        if additional is not True:
            out["additionalProperties"] = additional
    required = node.get("required")
    if isinstance(required, bool) and walk.declared is None:
        walk.refuse("required", pointer, "is a boolean, as in draft-03: list the names in the object's `required`")
    if required is not None:
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            walk.refuse("required", pointer, "must be a list of names")
        if required:
            out["required"] = list(dict.fromkeys(required))
