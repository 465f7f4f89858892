"""The final validator: right answers pass, wrong ones are named by place and keyword."""

import json
from typing import Any

import pytest

from grammars import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex, Tool, ToolCalls
from grammars.validation import Violation, validate

SCHEMA = {"type": "object", "properties": {"a/b": {"type": "array", "items": {"type": "string", "maxLength": 2}}}}
TOOLS = (Tool("f", "", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}), Tool("g"))

WRONG: list[tuple[Constraint, str, str, str]] = [
    (JsonSchema(SCHEMA), '{"a/b":["x","xyz"]}', "/a~1b/1", "maxLength"),
    (JsonSchema(SCHEMA), "{", "", "json"),
    (JsonSchema(SCHEMA), '{"a/b":NaN}', "", "json"),
    (JsonSchema({"format": "date"}), '"2023-02-29"', "", "format"),
    (JsonSchema({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}), "1",
     "", "exclusiveMinimum"),
    (JsonSchema({"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}), '{"a":1}', "/a", "exclusiveMinimum"),
    (JsonObject(), "[]", "", "type"),
    (Regex("a+|b"), "ab", "", "regex"),
    (Choice(("a", "b")), "c", "", "choice"),
    (ToolCalls(TOOLS), '[{"name":"f","arguments":{"n":"1"}}]', "/0/arguments/n", "type"),
    (ToolCalls(TOOLS), '[{"name":"h","arguments":{}}]', "/0/name", "tools"),
    (ToolCalls(TOOLS), "[]", "", "tools"),
    (ToolCalls(TOOLS), "", "", "tools"),
    (ToolCalls(TOOLS, "required"), "hello", "", "tools"),
    (ToolCalls(TOOLS, parallel=False), '[{"name":"g","arguments":{}},{"name":"g","arguments":{}}]', "", "tools"),
    (ToolCalls(TOOLS), '[{"name":"g","arguments":{"x":1}}]', "/0/arguments", "additionalProperties"),
    (ToolCalls(TOOLS), '[{"name":"g","arguments":{}}', "", "json"),
    (ToolCalls(TOOLS, answer=JsonObject()), "hello", "", "json"),
]  # fmt: skip

RIGHT: list[tuple[Constraint, str]] = [
    (JsonSchema(SCHEMA), '{"a/b":["x"]}'),
    (JsonSchema({"format": "no such format"}), '"x"'),
    (JsonSchema({"type": "number"}), "1e999"),
    (JsonSchema(True), "null"),
    (JsonObject(), "{}"),
    (Regex("a+|b"), "b"),
    (Choice(("a", "b")), "b"),
    (Grammar('root ::= "a"'), "a"),
    (ToolCalls(TOOLS), "hello"),
    (ToolCalls(TOOLS), '[{"name":"f","arguments":{"n":1}},{"name":"g","arguments":{}}]'),
    (ToolCalls(TOOLS, answer=JsonObject()), '{"a":1}'),
]


@pytest.mark.parametrize(("constraint", "text", "pointer", "keyword"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_answer_is_named_by_place_and_keyword(constraint: Any, text: str, pointer: str, keyword: str) -> None:
    violation = validate(constraint, text)
    assert isinstance(violation, Violation)
    assert (violation.pointer, violation.keyword) == (pointer, keyword)
    assert violation.message


@pytest.mark.parametrize(("constraint", "text"), RIGHT, ids=range(len(RIGHT)))
def test_a_right_answer_passes(constraint: Any, text: str) -> None:
    assert validate(constraint, text) is None


def test_a_pattern_that_would_backtrack_is_judged_in_linear_time() -> None:
    assert validate(JsonSchema({"pattern": "^(a+)+$"}), json.dumps("a" * 5_000 + "b")) is not None
