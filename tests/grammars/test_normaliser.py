"""The law of the normaliser: the same values are valid before and after; and the shape of what it writes."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.json_schema import normalise
from grammars.limits import Limits
from grammars.normal_form import Schema
from grammars.validators import build
from tests.grammars.schemas import SCHEMAS, VALUES
from tests.grammars.standard import judge

PLAIN = {
    "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "minLength",
    "maxLength", "prefixItems", "items", "minItems", "maxItems", "uniqueItems", "contains", "properties",
    "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties", "allOf",
}  # fmt: skip


def near(value: Any) -> Iterator[Any]:
    """Values one step away: where a bound, a count or a name decides."""
    yield value
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield from (value + 1, value - 1, value + 0.5, -value)
    elif isinstance(value, str):
        yield from (value + "a", value[:-1], value.upper(), "b" + value)
    elif isinstance(value, list):
        yield from (value[:-1], [*value, 1], [*value, *value[:1]], value[::-1])
        for i, item in enumerate(value[:2]):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in near(item))
    else:
        yield from ({**value, "c": 1}, {**value, "zz": "a"})
        for name, member in list(value.items())[:2]:
            yield {key: one for key, one in value.items() if key != name}
            yield from ({**value, name: other} for other in near(member))


def check_shape(node: Schema, *, inside_any: bool = False) -> None:
    """Each node is one of the forms that `normal_form.py` promises."""
    if isinstance(node, bool):
        assert not inside_any
        return
    keys = node.keys() - {"$defs"}
    for alone in ("$ref", "enum", "anyOf", "oneOf"):
        if alone in keys:
            assert keys == {alone}
            assert not (alone == "anyOf" and inside_any)
            for member in node[alone] if alone in ("anyOf", "oneOf") else ():
                check_shape(member, inside_any=alone == "anyOf")
            break
    else:
        assert keys <= PLAIN
        assert node["type"]
        assert all(member.keys() in ({"pattern"}, {"multipleOf"}) for member in node.get("allOf", ()))
        for inner in (
            *node.get("properties", {}).values(),
            *node.get("patternProperties", {}).values(),
            *node.get("prefixItems", ()),
            *(one["schema"] for one in node.get("contains", ())),
            node.get("items", True),
            node.get("additionalProperties", True),
        ):
            check_shape(inner)
    for definition in node.get("$defs", {}).values():
        check_shape(definition)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, values=st.lists(VALUES, min_size=6, max_size=10))
def test_the_same_values_are_valid_before_and_after(schema: Any, values: list[Any]) -> None:
    try:
        normal = normalise(schema).schema
    except ConstraintRefused:
        return
    check_shape(normal)
    client, ours = build(schema, Draft.DRAFT2020), judge(normal)
    tried = [other for value in values for other in near(value)]
    assert [value for value in tried if client.is_valid(value) != ours.is_valid(value)] == []


@pytest.mark.full
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, values=st.lists(VALUES, min_size=4, max_size=8))
def test_the_same_values_are_valid_before_and_after_many_more_rewrites(schema: Any, values: list[Any]) -> None:
    test_the_same_values_are_valid_before_and_after.hypothesis.inner_test(schema, values)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS)
def test_what_is_refused_as_impossible_accepts_nothing(schema: Any) -> None:
    try:
        normalise(schema)
    except ConstraintRefused as refused:
        if refused.keyword == "schema" and "no value" in refused.reason:
            client = build(schema, Draft.DRAFT2020)
            tried = [None, True, False, 0, 1, 2, 5, 0.5, 10, "", "a", "b", "ab", [], [1], ["a", "b"], {}, {"a": 1}]
            assert not any(client.is_valid(value) for value in tried)


def test_the_test_suite_of_json_schema_is_judged_alike_or_refused(data: Path) -> None:
    wrong = []
    for line in (data / "json-schema-test-suite" / "draft2020-12.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["keyword"] in ("format", "vocabulary"):  # formats are asserted here, vocabularies are not chosen
            continue
        try:
            ours = judge(normalise(row["schema"]).schema)
        except ConstraintRefused:
            continue
        wrong += [(row["keyword"], test) for test in row["tests"] if ours.is_valid(test["data"]) != test["valid"]]
    assert wrong == []


@pytest.mark.parametrize("listed", [{"k": "t1"}, "x", 5])
def test_a_union_of_tagged_objects_still_meets_a_listed_value(listed: Any) -> None:
    tagged = [{"type": "object", "properties": {"k": {"const": f"t{i}"}}, "required": ["k"]} for i in range(12)]
    schema = {"oneOf": [*tagged, {"anyOf": [{"const": listed}, {**tagged[0], "properties": {"k": {"const": "z"}}}]}]}
    client, ours = build(schema, Draft.DRAFT2020), judge(_merged(schema))
    for value in ({"k": "t1"}, {"k": "t2"}, {"k": "t1", "a": 1}, {"k": "z"}, {"k": "y"}, "x", 5, {}):
        assert client.is_valid(value) == ours.is_valid(value)


def _merged(schema: Any) -> Any:
    return normalise(schema).schema


def test_a_reference_with_siblings_that_comes_back_to_itself_becomes_one_definition() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n", "minProperties": 1}, "v": {"type": "null"}}}
    normal = _merged({"$ref": "#/$defs/n", "$defs": {"n": node}})
    check_shape(normal)
    assert len(normal["$defs"]) == 2
    ours = judge(normal)
    assert ours.is_valid({"next": {"next": {"v": None}}})
    assert not ours.is_valid({"next": {"next": {}}})


def test_properties_keep_the_order_in_which_the_schema_says_them() -> None:
    schema = {
        "allOf": [{"properties": {"b": {}, "a": {}}}, {"properties": {"d": {}, "a": {}}}],
        "properties": {"c": {"type": "null"}},
        "type": "object",
    }
    assert list(_merged(schema)["properties"]) == ["b", "a", "d", "c"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"allOf": [{"minimum": 1}, {"exclusiveMinimum": 1}], "type": "number"}, {"type": ["number"],
          "exclusiveMinimum": 1}),
        ({"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"}, {"type": ["integer"], "multipleOf": 12}),
        ({"allOf": [{"multipleOf": 0.4}, {"multipleOf": 0.6}], "type": "number"}, {"type": ["number"],
          "multipleOf": 1.2}),
        ({"type": ["integer", "string"], "anyOf": [{"type": "number"}, {"type": "null"}]}, {"type": ["integer"]}),
        ({"enum": [1, "a", None], "allOf": [{"type": "string"}]}, {"enum": ["a"]}),
        ({"type": "array", "minItems": 1, "allOf": [{"minItems": 3}, {"maxItems": 5}]}, {"type": ["array"],
          "minItems": 3, "maxItems": 5}),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, {"type": ["array"], "maxItems": 1}),
        ({"type": "object", "required": ["a"], "minProperties": 1, "allOf": [{"properties": {"a": {"minimum": 2}}},
          {"properties": {"a": {"type": "integer"}}}]},
         {"type": ["object"], "properties": {"a": {"type": ["integer"], "minimum": 2}}, "required": ["a"]}),
        ({"anyOf": [{"type": "object", "required": ["a"], "properties": {"a": False}}, {"type": "null"}]},
         {"type": ["null"]}),
    ],
)  # fmt: skip
def test_conjunctions_become_one_node(schema: Any, expected: Any) -> None:
    assert _merged(schema) == expected


@pytest.mark.parametrize(
    ("schema", "keyword", "pointer"),
    [
        ({"properties": {"a": {"not": {"type": "integer"}}}}, "not", "/properties/a"),
        ({"not": {"uniqueItems": True}}, "not", ""),
        ({"not": {"additionalProperties": {"type": "string"}}}, "not", ""),
        ({"items": {"contains": {"type": "null"}, "maxContains": 2}}, "maxContains", "/items"),
        ({"allOf": [{"$ref": "#"}, {"type": "string"}]}, "$ref", "/allOf/0"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "$ref", ""),
        ({"enum": [1], "type": "string"}, "schema", ""),
    ],
)
def test_what_has_no_exact_form_is_refused_with_the_clients_keyword_and_pointer(
    schema: Any, keyword: str, pointer: str
) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        normalise(schema)
    assert (caught.value.keyword, caught.value.pointer) == (keyword, pointer)


BOMBS: list[Any] = [
    {"allOf": [{"anyOf": [{"properties": {f"a{i}": {"const": j}}, "required": [f"a{i}"]} for j in range(4)]}
               for i in range(12)]},
    {"allOf": [{"oneOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(40)]},
    {"oneOf": [{"properties": {f"p{i}": {"type": "integer"}}} for i in range(200)]},
    {"allOf": [{"if": {"properties": {f"k{i}": {"const": 1}}, "required": [f"k{i}"]}, "then": {"required": [f"z{i}"]}}
               for i in range(60)]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"not": {"oneOf": [
        {"properties": {"x": {"$ref": "#/$defs/a"}}}, {"properties": {"y": {"$ref": "#/$defs/a"}}},
        {"required": ["z"]}]}}}}},
    {"patternProperties": {f"{chr(97 + i)}.*{chr(98 + i)}": {"minimum": i} for i in range(20)}},
    {"unevaluatedProperties": False, "anyOf": [{"properties": {f"a{i}": {}}} for i in range(30)]},
    {"properties": {"a": {"$ref": "#"}},
     "patternProperties": {"a": {"allOf": [{"$ref": "#"}, {"not": {"$ref": "#"}}]}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", BOMBS, ids=range(len(BOMBS)))
def test_no_schema_keeps_the_normaliser_busy(schema: Any) -> None:
    began = time.process_time()
    with suppress(ConstraintRefused):
        check_shape(normalise(schema, limits=Limits()).schema)
    assert time.process_time() - began < 3  # a guard against blow-ups, not a measurement
