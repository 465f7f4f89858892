"""The final validator: right answers pass, wrong ones are named by place and keyword."""

import json
from typing import Any

import pytest

from grammars import (
    Alternatives,
    Choice,
    Constraint,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    Sequence,
    Tool,
    ToolCalls,
)
from grammars.validation import Unjudged, Violation, unjudged, validate

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
    (Regex("a(?=b)."), "ac", "", "regex"),
    (Grammar('root ::= "a"'), "b", "", "grammar"),
    (Grammar('start: "a"', "lark"), "b", "", "grammar"),
    (Sequence((FreeText("!"), Choice(("a",)))), "x!b!a", "", "sequence"),
    (Sequence((FreeText("!"), JsonSchema(SCHEMA))), 'x!{"a/b":["xyz"]}', "", "sequence"),
    (Sequence((Regex("a*"), Choice(("b", "ab")))), "aac", "", "sequence"),
    (Sequence((JsonObject(), FreeText(";"), Choice(("",)))), "{} ;;", "", "sequence"),
    (Alternatives((Choice(("a",)), Grammar('root ::= "b"'))), "c", "", "alternatives"),
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
    (Grammar("start: /a+/", "lark"), "aa"),
    (Regex("a(?=b)."), "ab"),
    (JsonSchema({"pattern": "^(?!x)"}), '"y"'),
    (FreeText(), ""),
    (Sequence((FreeText("!"), Choice(("a!", "a")))), "x!a!"),
    (Sequence((Regex("a*"), Choice(("b", "ab")))), "aaab"),
    (Sequence((JsonObject(), FreeText(";"), Alternatives((Choice(("x",)), JsonSchema({"type": "null"}))))), "{} ;null"),
    (Sequence((JsonSchema({"type": "string"}), JsonObject(), Grammar('start: "x"', "lark"))), '"!"{}x'),
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


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Grammar('%ignore " "\nstart: "a"', "lark"), "a"),
        (Sequence((FreeText("!"), Grammar('root ::= "a" (= "b") "b"'))), "!ab"),
        (Regex("a{,3}"), "a{,3}"),
        (Sequence((Regex("[a-z ]*"), Regex("[a-z ]*"), Choice(("!",)))), "word " * 100),
    ],
)
def test_what_cannot_be_judged_is_neither_right_nor_wrong(constraint: Constraint, text: str) -> None:
    with pytest.raises(Unjudged):
        validate(constraint, text)


def test_what_will_not_be_judged_is_known_before() -> None:
    assert unjudged(Grammar('%ignore " "\nstart: "a"', "lark"))
    assert unjudged(JsonSchema({"pattern": "a{,3}"}))
    assert unjudged(ToolCalls((Tool("f", "", {"properties": {"s": {"pattern": "a{,3}"}}}),)))
    assert unjudged(JsonSchema({"pattern": "(?=a)"})) is None
    assert unjudged(Sequence((FreeText("!"), JsonSchema(SCHEMA)))) is None
