"""Schemas by chance: grown from nothing, real ones changed, two real ones spliced."""

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

from tests.grammars.fuzz.expressions import random_pattern

_NAMES: Final = ("a", "b", "c", "ab", "", "é", 'q"', "x/y", "a\\", "日", "constructor", "0")
_KINDS: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
_NUMBERS: Final = (
    0, 1, -1, 2, 3, 5, 7, 10, 12, 255, 0.5, 1.5, -0.1, 100.25, 1e3, 1e-7, 2**53, -(2**31), 1e300, 0.30000000000000004,
)  # fmt: skip
_FORMATS: Final = (
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference",
    "json-pointer", "relative-json-pointer", "regex", "iri", "idn-email", "idn-hostname", "uri-template", "byte",
)  # fmt: skip
_TEXTS: Final = ("", "a", "b", "ab", "aaa", "é", "0", "2020-01-01", '"', "\n", "a b", "🎉", "null", "\\")


def random_schema(rng: random.Random) -> Any:
    """A schema of up to some forty keywords. `$ref` leads to its `$defs`, to itself, or nowhere."""
    schema = _node(rng, rng.choice((1, 2, 2, 3)))
    if not isinstance(schema, dict):
        return schema
    if _mentions(schema, "$ref"):
        schema["$defs"] = {"x": _node(rng, 1), "y": _node(rng, 2)}
    if rng.random() < 0.1:
        draft = rng.choice(("draft-04", "draft-06", "draft-07"))
        schema["$schema"] = f"http://json-schema.org/{draft}/schema#"
    return schema


def ruled_schema(rng: random.Random, depth: int = 2) -> Any:
    """Objects and arrays that count, compare and order what they hold, which no grammar can say alone."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(({}, {"type": "string"}, {"type": "integer"}, {"enum": ["a", 1]}, {"maxLength": 2}))
    low, high = sorted((rng.randrange(4), rng.randint(1, 5)))
    schema: dict[str, Any]
    if rng.random() < 0.5:
        schema = {"type": "object"} if rng.random() < 0.9 else {}
        chances: dict[str, Any] = {
            "minProperties": low, "maxProperties": high, "required": _names(rng),
            "properties": {name: ruled_schema(rng, depth - 1) for name in _names(rng)},
            "patternProperties": {rng.choice(("^a", "b", "^[ab]+$", "^$")): ruled_schema(rng, depth - 1)},
            "additionalProperties": False if rng.random() < 0.4 else ruled_schema(rng, depth - 1),
            "propertyNames": rng.choice(({"maxLength": 2}, {"pattern": "^[ab]"}, {"enum": ["a", "b", "é"]})),
            "dependentRequired": {rng.choice(_NAMES[:4]): _names(rng)},
        }  # fmt: skip
    else:
        schema = {"type": "array"} if rng.random() < 0.9 else {}
        chances = {
            "minItems": low, "maxItems": high, "uniqueItems": True, "items": ruled_schema(rng, depth - 1),
            "contains": ruled_schema(rng, depth - 1), "minContains": low, "maxContains": high,
            "prefixItems": [ruled_schema(rng, depth - 1) for _ in range(rng.randint(1, 2))],
        }  # fmt: skip
    schema |= {name: chances[name] for name in chances if rng.random() < 0.4}
    if rng.random() < 0.1:
        schema["anyOf"] = [ruled_schema(rng, depth - 1) for _ in range(2)]
    return schema


def random_value(rng: random.Random, depth: int = 2) -> Any:
    """A JSON value of small parts."""
    chance = rng.random()
    if depth and chance < 0.15:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if depth and chance < 0.3:
        return {rng.choice(_NAMES[:6]): random_value(rng, depth - 1) for _ in range(rng.randrange(3))}
    return rng.choice((None, True, False, rng.choice(_NUMBERS), rng.choice(_NUMBERS), rng.choice(_TEXTS)))


def mutated(rng: random.Random, schema: Any, others: list[Any]) -> Any:
    """`schema` after one to four changes; a splice takes a part of one of `others`."""
    document = [copy.deepcopy(schema)]
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        places = list(_places(document))
        holder, key = rng.choice(places)
        value = holder[key]
        match rng.choice(("delete", "duplicate", "swap", "retype", "number", "splice", "keyword", "rename")):
            case "delete" if holder is not document:
                del holder[key]
            case "duplicate" if isinstance(holder, list) and holder is not document:
                holder.insert(key, copy.deepcopy(value))
            case "duplicate":
                other, place = rng.choice(places)
                other[place] = copy.deepcopy(value)
            case "swap":
                other, place = rng.choice(places)
                if not _contains(value, other) and not _contains(other[place], holder):
                    holder[key], other[place] = other[place], value
            case "retype":
                holder[key] = random_value(rng)
            case "number":
                numbers = [(h, k) for h, k in places if type(h[k]) in (int, float)]
                if numbers:
                    there, at = rng.choice(numbers)
                    there[at] = rng.choice((there[at] + 1, there[at] - 1, -there[at], rng.choice(_NUMBERS), 0))
            case "splice":
                donor = [copy.deepcopy(rng.choice(others))]
                there, at = rng.choice(list(_places(donor)))
                holder[key] = there[at]
            case "keyword" if isinstance(value, dict):
                keyword = rng.choice(sorted(_MAKERS))
                value[keyword] = _MAKERS[keyword](rng, 1)
            case "rename" if isinstance(holder, dict):
                holder[rng.choice(_NAMES)] = holder.pop(key)
    return document[0]


def smaller(schema: Any) -> Iterator[Any]:
    """Schemas that lack one part of `schema`, the largest parts first; for shrinking."""
    document = [schema]
    places = [place for place in _places(document) if place[0] is not document]
    paths = [_path(document, holder, key) for holder, key in places]
    if isinstance(schema, dict | list):
        yield from (copy.deepcopy(v) for v in (schema.values() if isinstance(schema, dict) else schema))
    for path in paths:
        for replacement in (_GONE, True, {}):
            clone = [copy.deepcopy(schema)]
            holder: Any = clone
            for step in path[:-1]:
                holder = holder[step]
            if replacement is _GONE:
                del holder[path[-1]]
            elif isinstance(holder[path[-1]], dict) and holder[path[-1]]:
                holder[path[-1]] = replacement
            else:
                continue
            yield clone[0]


_GONE: Final = object()


def _path(root: Any, holder: Any, key: Any) -> list[Any]:
    """Steps from `root` to the place."""
    stack: list[tuple[Any, list[Any]]] = [(root, [])]
    while stack:
        value, path = stack.pop()
        if value is holder:
            return [*path, key]
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        stack += [(member, [*path, step]) for step, member in members]
    raise LookupError(key)


def _places(root: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or position) below `root`."""
    stack = [root]
    while stack:
        holder = stack.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])


def _contains(value: Any, part: Any) -> bool:
    below = _places(value) if isinstance(value, dict | list) else ()
    return value is part or any(holder[key] is part for holder, key in below)


def _mentions(schema: Any, keyword: str) -> bool:
    return any(key == keyword for _, key in _places([schema]))


def _node(rng: random.Random, depth: int) -> Any:
    if rng.random() < 0.06:
        return rng.random() < 0.7
    names = sorted(_MAKERS) if depth else sorted(_LEAVES)
    chosen = rng.sample(names, rng.choice((1, 1, 2, 2, 3, 4)))
    node = {keyword: _MAKERS[keyword](rng, depth) for keyword in chosen}
    if "type" not in node and rng.random() < 0.6:
        node["type"] = _MAKERS["type"](rng, depth)
    return node


def _some(rng: random.Random, depth: int) -> list[Any]:
    return [_node(rng, depth - 1) for _ in range(rng.choice((1, 2, 2, 3)))]


def _names(rng: random.Random) -> list[str]:
    return rng.sample(_NAMES[:6] if rng.random() < 0.85 else _NAMES, rng.choice((1, 1, 2, 3)))


def _number(rng: random.Random, _: int) -> Any:
    return rng.choice(_NUMBERS)


def _count(rng: random.Random, _: int) -> Any:
    return rng.choice((0, 1, 1, 2, 2, 3, 4, 7, 40))


def _pattern(rng: random.Random, _: int) -> str:
    return random_pattern(rng)


_LEAVES: Final[dict[str, Any]] = {
    "type": lambda rng, _: rng.choice(_KINDS) if rng.random() < 0.8 else rng.sample(_KINDS, 2),
    "minimum": _number, "maximum": _number, "exclusiveMinimum": _number, "exclusiveMaximum": _number,
    "multipleOf": lambda rng, _: rng.choice((1, 2, 3, 5, 7, 0.5, 0.01, 0.1, 10, 1.5, 12)),
    "minLength": _count, "maxLength": _count, "pattern": _pattern, "format": lambda rng, _: rng.choice(_FORMATS),
    "minItems": _count, "maxItems": _count, "uniqueItems": lambda rng, _: rng.random() < 0.8,
    "minProperties": lambda rng, _: rng.randrange(4), "maxProperties": lambda rng, _: rng.randrange(5),
    "required": lambda rng, _: _names(rng), "const": lambda rng, _: random_value(rng),
    "enum": lambda rng, _: [random_value(rng) for _ in range(rng.randint(1, 4))],
    "dependentRequired": lambda rng, _: {rng.choice(_NAMES[:4]): _names(rng)},
    "$ref": lambda rng, _: rng.choice(("#/$defs/x", "#/$defs/y", "#/$defs/x", "#/$defs/y", "#", "#/$defs/none")),
}  # fmt: skip
_MAKERS: Final[dict[str, Any]] = {
    **_LEAVES,
    "properties": lambda rng, depth: {name: _node(rng, depth - 1) for name in _names(rng)},
    "patternProperties": lambda rng, depth: {
        random_pattern(rng): _node(rng, depth - 1) for _ in range(rng.randint(1, 2))
    },
    "additionalProperties": lambda rng, depth: False if rng.random() < 0.5 else _node(rng, depth - 1),
    "propertyNames": lambda rng, _: rng.choice(
        ({"pattern": random_pattern(rng)}, {"maxLength": 1}, {"enum": _names(rng)})
    ),
    "items": lambda rng, depth: _node(rng, depth - 1), "contains": lambda rng, depth: _node(rng, depth - 1),
    "minContains": _count, "maxContains": _count,
    "prefixItems": _some, "allOf": _some, "anyOf": _some, "oneOf": _some,
    "not": lambda rng, depth: _node(rng, depth - 1), "if": lambda rng, depth: _node(rng, depth - 1),
    "then": lambda rng, depth: _node(rng, depth - 1), "else": lambda rng, depth: _node(rng, depth - 1),
    "dependentSchemas": lambda rng, depth: {rng.choice(_NAMES[:4]): _node(rng, depth - 1)},
    "unevaluatedProperties": lambda rng, depth: False if rng.random() < 0.7 else _node(rng, depth - 1),
    "unevaluatedItems": lambda rng, depth: False if rng.random() < 0.7 else _node(rng, depth - 1),
}  # fmt: skip
