"""The demo judges answers by itself: it must be able to fail."""

import json
from typing import Any

import jsonschema_rs
import pytest

from bundled_models.cases import DEMO, Case, written
from gateway.demo import DemoFailed, check_valid, said


def reply(message: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish_reason}]}


def calls(*wanted: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    functions = [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in wanted]
    return {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": f} for f in functions]}


def expected(case: Case) -> dict[str, Any]:
    """The reply that is right for a case."""
    if isinstance(case.expected, list):
        return reply(calls(*[(call["name"], call["arguments"]) for call in case.expected]), "tool_calls")
    return reply({"content": json.dumps(case.expected)})


def test_the_expected_answers_are_valid_and_equal_what_was_expected() -> None:
    for case in written(DEMO):
        check_valid(case, expected(case))
        assert said(expected(case)) == case.expected


def test_a_tool_that_was_not_offered_fails() -> None:
    case = next(c for c in written(DEMO) if c.tools)
    with pytest.raises(DemoFailed, match=r"format_disk was called but not offered"):
        check_valid(case, reply(calls(("format_disk", {})), "tool_calls"))


def test_arguments_outside_the_schema_fail() -> None:
    case = next(c for c in written(DEMO) if c.tools)
    name = case.tools[0]["function"]["name"]
    with pytest.raises(jsonschema_rs.ValidationError):
        check_valid(case, reply(calls((name, {"no_such_parameter": 1})), "tool_calls"))


def test_an_extraction_outside_the_schema_fails() -> None:
    case = next(c for c in written(DEMO) if c.schema is not None)
    with pytest.raises(jsonschema_rs.ValidationError):
        check_valid(case, reply({"content": "{}"}))


def test_an_answer_that_was_cut_off_fails() -> None:
    case = written(DEMO)[0]
    with pytest.raises(DemoFailed, match=r"cut off"):
        check_valid(case, reply({"content": "["}, "length"))
