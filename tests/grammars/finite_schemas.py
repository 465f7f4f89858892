"""Schemas with small finite languages, each with values among which all of its valid ones are."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from tests.grammars.exploration import SINGLE

MOST_VALUES: Final = 300
# What takes names out of the hands of `additionalProperties`, so that a language is finite no longer.
_WIDENING: Final = frozenset({"properties", "patternProperties"})
NAMES: Final = ("a", "b", "c")
_CHARS: Final = tuple(char for char in SINGLE if char != '"')


@dataclass(frozen=True, slots=True)
class Finite:
    """values: a superset of what `schema` accepts (up to the spelling of whole numbers), spelled in their order."""

    schema: Any
    values: tuple[Any, ...]


def finite_schemas(depth: int = 2) -> st.SearchStrategy[Finite]:
    """Schemas whose language is finite, of every keyword family that can be."""
    plain = _scalars()
    for _ in range(depth):
        plain = _scalars() | _arrays(plain) | _objects(plain) | _combined(plain)
    return (plain | _referring(plain)).filter(lambda finite: len(finite.values) <= MOST_VALUES)


def orders(value: Any) -> Iterator[Any]:
    """`value` with the members of its objects in every order."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for members in itertools.product(*(list(orders(value[name])) for name in names)):
                yield dict(zip(names, members, strict=True))
    elif isinstance(value, list):
        for members in itertools.product(*(list(orders(member)) for member in value)):
            yield list(members)
    else:
        yield value


def lists(items: Iterable[Any], most: int) -> tuple[Any, ...]:
    """Every list of at most `most` of the items."""
    kept = list(items)
    return tuple(list(picked) for n in range(most + 1) for picked in itertools.product(kept, repeat=n))


def objects(choices: Mapping[str, Iterable[Any]]) -> tuple[Any, ...]:
    """Every object of some of the names, each with one of its values, in the order of the names."""
    kept = {name: list(values) for name, values in choices.items()}
    return tuple(
        dict(zip(names, picked, strict=True))
        for n in range(len(kept) + 1)
        for names in itertools.combinations(kept, n)
        for picked in itertools.product(*(kept[name] for name in names))
    )


def texts(alphabet: str, most: int) -> tuple[str, ...]:
    """Every text of at most `most` letters."""
    return tuple("".join(letters) for n in range(most + 1) for letters in itertools.product(alphabet, repeat=n))


def compact(value: Any) -> str:
    """The text of a value as the grammars spell it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# Not finite by themselves: what stands beside, or inside, a finite schema.
CONDITIONS: Final[st.SearchStrategy[Any]] = st.sampled_from([
    {"type": "integer"}, {"type": ["string", "null"]}, {"minimum": 1}, {"maximum": 10}, {"multipleOf": 2},
    {"minLength": 1}, {"maxLength": 1}, {"pattern": "^a"}, {"pattern": "b"}, {"const": 1}, {"enum": ["a", 0, None]},
    {"minItems": 1}, {"maxItems": 1}, {"uniqueItems": True}, {"contains": {"const": 1}}, {"items": {"minimum": 1}},
    {"contains": {"type": "integer"}, "minContains": 2},
    {"contains": {"const": "a"}, "maxContains": 1, "minContains": 0},
    {"required": ["a"]}, {"required": ["b"]}, {"minProperties": 1}, {"maxProperties": 1}, {"minProperties": 2},
    {"properties": {"a": {"const": 1}}}, {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"properties": {"b": False}}, {"propertyNames": {"enum": ["a", "b"]}}, {"dependentRequired": {"a": ["b"]}},
    {"dependentSchemas": {"a": {"required": ["b"]}}}, {"patternProperties": {"^a": {"minimum": 1}}},
    {"additionalProperties": False}, {"const": {"a": 1}}, {"enum": [[], [1]]}, True, {},
])  # fmt: skip


@st.composite
def _scalars(draw: st.DrawFn) -> Finite:
    match draw(
        st.sampled_from(["enum", "const", "boolean", "null", "integer", "integer", "string", "string", "letter"])
    ):
        case "enum":
            some = st.sampled_from([None, True, False, 0, 1, 12, -1, "", "a", "b", "ab", "true"])
            values = draw(st.lists(some, min_size=1, max_size=4, unique_by=repr))
            return Finite({"enum": values}, tuple(values))
        case "const":
            value = draw(st.sampled_from([None, 1, "ab", [], {}, [1, "a"], {"a": 1}, {"b": [], "a": "b"}, "12"]))
            return Finite({"const": value}, (value,))
        case "boolean":
            return Finite({"type": "boolean"}, (False, True))
        case "null":
            return Finite({"type": "null"}, (None,))
        case "integer":
            low = draw(st.integers(-12, 22))
            high = low + draw(st.integers(0, 14))
            lower, upper = (
                draw(st.sampled_from(["minimum", "exclusiveMinimum"])),
                draw(st.sampled_from(["maximum", "exclusiveMaximum"])),
            )
            node: dict[str, Any] = {"type": "integer", lower: low, upper: high}
            if draw(st.integers(0, 3)) == 0:
                node["multipleOf"] = draw(st.sampled_from([1, 2, 3, 5]))
            return Finite(node, tuple(range(low, high + 1)))
        case "string":
            pattern = draw(st.sampled_from(["^[ab]*$", "^a*b?$", "^(a|bb)$", "^[ab]+$", "^(ab)*$"]))
            longest = draw(st.integers(0, 3))
            node = {"type": "string", "pattern": pattern, "maxLength": longest, "minLength": draw(st.integers(0, 2))}
            return Finite(node, texts("ab", longest))
    return Finite({"type": "string", "maxLength": 1}, ("", *_CHARS))


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Finite]) -> Finite:
    item = draw(inner.filter(lambda finite: len(finite.values) <= 12))
    if draw(st.integers(0, 3)) == 0:
        other = draw(inner.filter(lambda finite: len(finite.values) <= 6))
        node: dict[str, Any] = {"type": "array", "prefixItems": [item.schema, other.schema], "items": False}
        pairs = [list(pair) for pair in itertools.product(item.values, other.values)]
        return Finite(node, ([], *([first] for first in item.values), *pairs))
    most = draw(st.integers(0, 3 if len(item.values) <= 4 else 2))
    node = {"type": "array", "items": item.schema, "maxItems": most}
    if draw(st.booleans()):
        node["minItems"] = draw(st.integers(0, 2))
    if draw(st.integers(0, 3)) == 0:
        node["uniqueItems"] = True
    if draw(st.integers(0, 4)) == 0:
        node["contains"] = {"const": draw(st.sampled_from(item.values))}
        if draw(st.booleans()):
            node["minContains"] = draw(st.integers(0, 2))
        if draw(st.booleans()):
            node["maxContains"] = draw(st.integers(0, 2))
    return Finite(
        node, tuple(list(items) for n in range(most + 1) for items in itertools.product(item.values, repeat=n))
    )


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Finite]) -> Finite:
    small = inner.filter(lambda finite: len(finite.values) <= 5)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    members = {name: draw(small) for name in names}
    properties = {name: member.schema for name, member in members.items()}
    node: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    choices: dict[str, tuple[Any, ...]] = {name: member.values for name, member in members.items()}
    if draw(st.integers(0, 3)) == 0:
        del choices[names[-1]], properties[names[-1]]
        additional = members[names[-1]]
        node |= {"additionalProperties": additional.schema, "propertyNames": {"enum": names}}
        choices[names[-1]] = additional.values
    if draw(st.booleans()):
        node["required"] = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    if draw(st.integers(0, 3)) == 0:
        node["minProperties"] = draw(st.integers(0, 3))
    if draw(st.integers(0, 3)) == 0:
        node["maxProperties"] = draw(st.integers(0, 3))
    return Finite(node, objects(choices))


@st.composite
def _combined(draw: st.DrawFn, inner: st.SearchStrategy[Finite]) -> Finite:
    first, second = draw(inner), draw(inner)
    keyword = draw(st.sampled_from(["anyOf", "oneOf", "allOf", "not", "if", "beside"]))
    match keyword:
        case "anyOf" | "oneOf":
            values = {compact(value): value for value in (*first.values, *second.values)}
            return Finite({keyword: [first.schema, second.schema]}, tuple(values.values()))
        case "allOf":
            return Finite({"allOf": [first.schema, draw(CONDITIONS)]}, first.values)
        case "not":
            return Finite({"allOf": [first.schema], "not": draw(CONDITIONS)}, first.values)
        case "if":
            node = {"if": draw(CONDITIONS), "then": draw(CONDITIONS), "else": draw(CONDITIONS)}
            return Finite({"allOf": [first.schema], **node}, first.values)
    beside = draw(CONDITIONS)
    if isinstance(beside, dict) and not beside.keys() & (first.schema.keys() | _WIDENING):
        return Finite({**first.schema, **beside}, first.values)
    return first


@st.composite
def _referring(draw: st.DrawFn, inner: st.SearchStrategy[Finite]) -> Finite:
    target = draw(inner)
    node = {"$ref": "#/$defs/x"}
    if draw(st.booleans()):
        beside = draw(CONDITIONS)
        node |= beside if isinstance(beside, dict) else {}  # a node of its own: what it says widens nothing
    return Finite({**node, "$defs": {"x": target.schema}}, target.values)
