"""Arguments that a tool does not declare: never generated, where the schema leaves it open."""

import copy
import json
from typing import Any

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
        {"type": "object", "properties": {}},
        {"type": "object"},
        True,
    ],
)
def test_what_other_keywords_open_stays_open(schema: Any) -> None:
    assert closed(schema) == schema
