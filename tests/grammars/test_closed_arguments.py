"""Arguments that a tool does not declare: never generated, where the schema leaves it open."""

import copy
import json
from typing import Any

import jsonschema
import pytest

from grammars import GrammarCompiler, Tool, ToolCalls
from grammars.closed_arguments import closed
from grammars.validation import validate
from tests.grammars.answers import takes

NESTED = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"city": {"type": "string"}}},
        "stops": {"type": "array", "items": {"type": "object", "properties": {"at": {"type": "integer"}}}},
        "labels": {"type": "object"},
        "extra": {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
    },
}


OPEN = Tool("go", "", {"type": "object", "properties": {"to": {"type": "string"}, "by": NESTED}, "required": ["to"]})


@pytest.mark.parametrize("dialect", ["xlam", "hermes"])
def test_an_undeclared_argument_is_neither_generated_nor_accepted(compiler: GrammarCompiler, dialect: str) -> None:
    constraint = ToolCalls((OPEN,), "required", dialect=dialect)
    for arguments, is_right in (
        ({"to": "Rome"}, True),
        ({"to": "Rome", "by": {"labels": {"free": 1}, "extra": {"b": 2}}}, True),
        ({"to": "Rome", "via": "Pisa"}, False),
        ({"to": "Rome", "by": {"place": {"town": "Pisa"}}}, False),
        ({"to": "Rome", "by": {"stops": [{"at": 1, "for": 2}]}}, False),
    ):
        call = json.dumps({"name": "go", "arguments": arguments}, separators=(",", ":"))
        text = f"[{call}]" if dialect == "xlam" else f"<tool_call>\n{call}\n</tool_call>"
        assert takes(compiler, constraint, text) == is_right
        assert (validate(constraint, text) is None) == is_right


def test_objects_with_declared_properties_are_closed_at_every_depth() -> None:
    before = copy.deepcopy(NESTED)
    found = closed(NESTED)
    assert before == NESTED
    assert found["additionalProperties"] is False
    assert found["properties"]["place"]["additionalProperties"] is False
    assert found["properties"]["stops"]["items"]["additionalProperties"] is False
    assert found["properties"]["labels"] == {"type": "object"}
    assert found["properties"]["extra"] == NESTED["properties"]["extra"]  # type: ignore[index]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]},
        {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["b"]}]},
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^x": {}}},
        {"type": "object", "properties": {}, "minProperties": 1},
        {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}, "anyOf": [True]},
        {"type": "object"},
        True,
    ],
)
def test_what_other_keywords_open_stays_open(schema: Any) -> None:
    assert closed(schema) == schema


def test_a_tool_that_declares_an_empty_list_of_properties_takes_no_arguments(compiler: GrammarCompiler) -> None:
    free = {"type": "object", "properties": {}}
    constraint = ToolCalls((Tool("now", "", free), Tool("tag", "", {"properties": {"labels": free}})), "required")
    for name, arguments, is_right in (
        ("now", {}, True),
        ("now", {"zone": "CET"}, False),
        ("tag", {"labels": {"free": 1}}, True),
    ):
        text = json.dumps([{"name": name, "arguments": arguments}], separators=(",", ":"))
        assert takes(compiler, constraint, text) == is_right
        assert (validate(constraint, text) is None) == is_right


def test_what_is_required_counts_as_declared(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}
    constraint = ToolCalls((Tool("f", "", schema),), "required")
    for arguments, is_right in (
        ({"b": "x"}, True),
        ({"a": 1, "b": 2}, True),
        ({"a": 1}, False),
        ({"b": 1, "c": 2}, False),
    ):
        text = json.dumps([{"name": "f", "arguments": arguments}], separators=(",", ":"))
        assert takes(compiler, constraint, text) == is_right
        assert (validate(constraint, text) is None) == is_right


PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TREE = {"type": "object", "properties": {"inner": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}


@pytest.mark.parametrize(
    ("schema", "is_closed"),
    [
        ({"properties": {"at": {"$ref": "#/$defs/Place", "description": "Where."}}}, True),
        ({"properties": {"at": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}], "default": None}}}, True),
        ({"properties": {"at": {"anyOf": [PLACE, {"type": "string"}]}}}, True),
        ({"properties": {"at": {"$ref": "#/$defs/Tree"}, "all": {"items": {"$ref": "#/$defs/Place"}}}}, True),
        ({"properties": {"at": {"allOf": [{"$ref": "#/$defs/Place"}]}}}, False),
        ({"properties": {"at": {"$ref": "#/$defs/Place"}, "no": {"not": {"$ref": "#/$defs/Place"}}}}, False),
        ({"properties": {"at": {"$ref": "#/$defs/Place"}, "odd": {"$ref": "#/properties/at"}}}, False),
        ({"properties": {"at": {"$ref": "#/$defs/Part"}, "other": {"oneOf": [{"$ref": "#/$defs/Part"}]}}}, False),
    ],
)
def test_definitions_are_closed_that_are_all_that_is_said_of_a_value(
    compiler: GrammarCompiler, schema: dict[str, Any], is_closed: bool
) -> None:
    definitions = {"Place": PLACE, "Tree": TREE, "Part": {"$ref": "#/$defs/Place"}}
    used = {name: one for name, one in definitions.items() if f"$defs/{name}" in json.dumps([schema, definitions])}
    whole = {"type": "object", **schema, "$defs": used}
    before = copy.deepcopy(whole)
    constraint = ToolCalls((Tool("go", "", whole),), "required")
    at = {"inner": [{}, {"inner": []}]} if "Tree" in json.dumps(schema) else {"city": "Rome"}
    for value, is_right in ((at, True), ({**at, "more": 1}, not is_closed)):
        text = json.dumps([{"name": "go", "arguments": {"at": value}}], separators=(",", ":"))
        assert takes(compiler, constraint, text) == is_right
        assert (validate(constraint, text) is None) == is_right
        jsonschema.validate({"at": value}, whole)
    assert whole == before


@pytest.mark.parametrize("definitions", [7, [1], {"a": 7}, {}, {"a": {"$id": "x", "$ref": "#/$defs/a"}}])
def test_definitions_that_are_none_are_left_to_the_reader_of_schemas(definitions: Any) -> None:
    schema = {"$ref": "#/$defs/a", "$defs": definitions}
    assert closed(schema) == schema
