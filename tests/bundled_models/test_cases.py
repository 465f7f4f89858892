"""Test cases of the bundled pair: read, rendered as requests, judged."""

import json
from pathlib import Path

import pytest

from bundled_models import signature
from bundled_models.cases import DEMO, HANDWRITTEN, OPEN_TOOLS, difficulty_of, generated, written


@pytest.mark.parametrize("path", [HANDWRITTEN, DEMO, OPEN_TOOLS])
def test_the_expected_answer_is_right_and_another_is_not(path: Path) -> None:
    for case in written(path):
        answer = "No tool fits." if case.expected is None else json.dumps(case.expected)
        assert case.is_right(answer)
        assert not case.is_right("[]")


def test_a_request_offers_what_the_case_offers() -> None:
    for case in written(DEMO):
        body = case.body("auto")
        assert body["messages"][-1] == {"role": "user", "content": case.text}
        assert body.get("tools", []) == list(case.tools)
        assert ("response_format" in body) == (case.schema is not None)


def test_a_request_renders_to_the_prompt_of_the_case() -> None:
    with_calls = 0
    for case in generated(200, seed=3, split="router"):
        messages = [m for m in case.body("auto")["messages"] if m["role"] != "system"]
        preamble = signature.preamble(case.tools, case.schema, case.system, case.schema_name)
        assert preamble + signature.turns(messages) == case.prompt
        with_calls += any("tool_calls" in message for message in messages)
    assert with_calls > 0


def test_open_tools_are_none_of_the_catalogue() -> None:
    known = {tool["function"]["name"] for case in written(HANDWRITTEN) for tool in case.tools}
    assert not known & {tool["function"]["name"] for case in written(OPEN_TOOLS) for tool in case.tools}


def test_generated_cases_are_the_same_for_the_same_seed_and_differ_between_splits() -> None:
    again = [case.prompt for case in generated(20, seed=5)]
    assert [case.prompt for case in generated(20, seed=5)] == again
    assert not set(again) & {case.prompt for case in generated(20, seed=5, split="router")}


def test_difficulty_follows_calls_values_and_choice() -> None:
    assert difficulty_of("call", offered=2, given=2) == "easy"
    assert difficulty_of("call", offered=3, given=2) == "medium"
    assert difficulty_of("call", offered=5, given=1) == "hard"
    assert difficulty_of("call", offered=1, given=4) == "hard"
    assert difficulty_of("calls", offered=1, given=1) == "hard"


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"cases.jsonl, line 1"):
        written(path)
